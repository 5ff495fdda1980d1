"""One manifest, two data sources: volumes for stages 2 and 3, slices and images for stage 1."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.manifest import ManifestError, read_manifest, write_manifest
from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable


def _config(**section: Any) -> AttrDict:
    return AttrDict({"DATA": {"TRAIN": section, "TEST": section}})


@pytest.fixture
def mixed_manifest(tiny_manifest: Path, tmp_path: Path) -> Path:
    """The tiny volumes and one 2D image."""
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_manifest.parent, folder)
    Image.fromarray(np.full((20, 30), 51, dtype=np.uint8)).save(folder / "x-ray.png")
    template = read_manifest(tiny_manifest).entries[0]
    image = dataclasses.replace(
        template, id="x-ray", kind="image", path="x-ray.png", shape=(20, 30), dtype="uint8", modality="XR",
        patient="patient10", spacing=None,
    )  # fmt: skip
    write_manifest(folder / "manifest.csv", [*read_manifest(folder / "manifest.csv").entries, image])
    return folder / "manifest.csv"


def test_a_volume_is_memory_mapped_as_it_lies_on_disk(tiny_manifest: Path) -> None:
    source = VolumeDataset(cfg=_config(), path=str(tiny_manifest), split="TRAIN", dataset_name="", data_source="")
    sample, success = source[2]
    assert success
    assert isinstance(sample.volume, np.memmap)
    assert len(source) == source.num_samples() == 8
    np.testing.assert_array_equal(sample.volume, np.load(tiny_manifest.parent / "volume2.npy"))


def test_a_volume_comes_with_its_spacing_name_and_what_its_views_are_drawn_from(tiny_manifest: Path) -> None:
    config = AttrDict({"SEED_VALUE": 9, **_config()})
    source = VolumeDataset(cfg=config, path=str(tiny_manifest), split="TRAIN", dataset_name="", data_source="")
    sample, _ = source[2]
    assert (sample.spacing, sample.name, sample.key) == ((2.0, 1.0, 1.0), "volume2", (9, 0, 2))
    source.set_train_phase_idx(4)
    assert source[3][0].key == (9, 4, 3)
    source.set_train_phase_idx(-1)  # an evaluation before any training
    assert source[3][0].key == (9, 0, 3)


def test_every_channel_of_a_volume_gives_its_slices(tmp_path: Path, tiny_manifest: Path) -> None:
    volume = (np.arange(3 * 2 * 4 * 4).reshape(3, 2, 4, 4) * 2).astype(np.uint8)
    np.save(tmp_path / "mri.npy", volume)
    template = read_manifest(tiny_manifest).entries[1]
    entry = dataclasses.replace(template, path="mri.npy", shape=volume.shape, dtype="uint8")
    write_manifest(tmp_path / "manifest.csv", [entry])
    source = SliceDataset(
        cfg=_config(), path=str(tmp_path / "manifest.csv"), split="TRAIN", dataset_name="", data_source=""
    )
    assert len(source) == 6
    assert source.get_labels() == [1] * 6
    for index, plane in enumerate(volume.reshape(6, 4, 4)):
        np.testing.assert_array_equal(np.asarray(source[index][0])[..., 0], plane)


def test_the_test_split_is_the_manifests(tiny_manifest: Path) -> None:
    source = VolumeDataset(cfg=_config(), path=str(tiny_manifest), split="TEST", dataset_name="", data_source="")
    assert [entry.id for entry in source.entries] == ["volume8", "volume9"]
    assert source.get_labels() == [0, 1]


def test_slices_of_all_volumes_and_images_share_one_index(mixed_manifest: Path) -> None:
    source = SliceDataset(cfg=_config(), path=str(mixed_manifest), split="TRAIN", dataset_name="", data_source="")
    volumes = [np.load(mixed_manifest.parent / f"volume{index}.npy") for index in range(8)]
    expected = np.concatenate([volume.reshape(-1, 32, 32) for volume in volumes])
    assert len(source) == len(expected) + 1
    for index in range(len(expected)):
        image, success = source[index]
        assert success
        assert image.mode == "RGB"
        grey = np.asarray(image)[..., 0]
        assert np.abs(grey / 255 - expected[index] / 65535).max() <= 0.5 / 255 + 1e-6
    assert np.asarray(source[len(expected)][0]).max() == 51


def test_a_slice_carries_the_label_of_its_volume(mixed_manifest: Path) -> None:
    source = SliceDataset(
        cfg=_config(LABEL_SOURCES=["torchvision_dataset"]), path=str(mixed_manifest), split="TRAIN", dataset_name="",
        data_source="",
    )  # fmt: skip
    labels = source.get_labels()
    assert len(labels) == len(source)
    entry, offset = source.locate(5)  # volume0 has 5 slices
    assert (source.entries[entry].id, offset) == ("volume1", 0)
    assert labels[4:6] == [0, 1]


def test_with_labels_only_labelled_entries_take_part(tiny_manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(tiny_manifest.parent, folder)
    entries = [
        dataclasses.replace(entry, label=None) if entry.id in ("volume0", "volume3") else entry
        for entry in read_manifest(tiny_manifest).entries
    ]
    write_manifest(folder / "manifest.csv", entries)
    path = str(folder / "manifest.csv")
    labelled = VolumeDataset(
        cfg=_config(LABEL_SOURCES=["torchvision_dataset"]), path=path, split="TRAIN", dataset_name="", data_source=""
    )
    assert len(labelled) == len(labelled.get_labels()) == 6
    assert len(VolumeDataset(cfg=_config(), path=path, split="TRAIN", dataset_name="", data_source="")) == 8


def test_an_empty_selection_is_an_error_with_the_key_to_change(tiny_manifest: Path) -> None:
    with pytest.raises(ManifestError, match=r"no volumes in the splits \['val'\]") as caught:
        VolumeDataset(
            cfg=_config(SPLITS=["val"]), path=str(tiny_manifest), split="TRAIN", dataset_name="", data_source=""
        )
    assert "config.DATA.TRAIN.SPLITS" in str(caught.value)


def test_a_volume_that_vanished_raises_instead_of_turning_grey(tiny_manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vanishing"
    shutil.copytree(tiny_manifest.parent, folder)
    source = VolumeDataset(
        cfg=_config(), path=str(folder / "manifest.csv"), split="TRAIN", dataset_name="", data_source=""
    )
    (folder / "volume1.npy").unlink()
    with pytest.raises(ManifestError, match=r"volume1\.npy"):
        source[1]
