"""One manifest, two data sources: volumes for stages 2 and 3, slices and images for stage 1."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_jointssl.manifest import ManifestError, read_manifest, write_manifest
from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset
from vissl_jointssl.plugin.volume_views import GREY_DEVIATION, GREY_MEAN, VolumeCentreView, VolumeViews

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
    volume, success = source[2]
    assert success
    assert isinstance(volume, np.memmap)
    assert len(source) == source.num_samples() == 8
    np.testing.assert_array_equal(volume, np.load(tiny_manifest.parent / "volume2.npy"))


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


def test_views_have_the_recipes_shape_and_missing_slices_are_nan() -> None:
    volume = np.random.default_rng(0).integers(0, 65535, (5, 40, 40)).astype(np.uint16)
    views = VolumeViews(total_num_crops=3, size=[16, 24], num_slices=8)(volume)
    assert [view.shape for view in views] == [(8, 1, 16, 24)] * 3
    for view in views:
        assert torch.isnan(view[5:]).all()
        assert not torch.isnan(view[:5]).any()
    assert not torch.equal(views[0][:5], views[1][:5])


def test_views_follow_torchs_seed() -> None:
    volume = np.random.default_rng(0).integers(0, 65535, (5, 40, 40)).astype(np.uint16)
    transform = VolumeViews(size=[16, 16], num_slices=5)
    torch.manual_seed(3)
    first = transform(volume)
    torch.manual_seed(3)
    again = transform(volume)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_centre_view_is_the_volume_itself_normalised() -> None:
    volume = np.random.default_rng(0).integers(0, 65535, (6, 16, 16)).astype(np.uint16)
    view = VolumeCentreView(size=[16, 16], num_slices=4)(volume)
    expected = (torch.from_numpy(volume[1:5] / np.float32(65535)) - GREY_MEAN) / GREY_DEVIATION
    torch.testing.assert_close(view[:, 0], expected, atol=1e-5, rtol=0)


def test_an_unknown_view_option_answers_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'num_slice' is read by nothing; did you mean num_slices\?"):
        VolumeViews(num_slice=3)
