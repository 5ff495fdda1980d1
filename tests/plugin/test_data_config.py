"""Several manifests of one run are one data set with one index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.manifest import ManifestError, read_manifest, write_manifest
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.data_config import read_data
from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable
from vissl.data import build_dataset  # isort: skip

ConfigOf = Callable[..., AttrDict]


@pytest.fixture
def second_manifest(tmp_path: Path, tiny_manifest: Path) -> Path:
    """Two volumes, of which the first has an id that the tiny manifest has as well, and an image."""
    folder = tmp_path / "second"
    folder.mkdir()
    template = read_manifest(tiny_manifest).entries[0]
    entries = []
    for index in range(2):
        np.save(folder / f"{index}.npy", np.full((4, 32, 32), 1000 * (index + 1), dtype=np.uint16))
        changes = {"id": f"volume{index}", "path": f"{index}.npy", "shape": (4, 32, 32), "patient": f"other{index}"}
        entries.append(dataclasses.replace(template, split="train", **changes))
    Image.fromarray(np.full((20, 30), 51, dtype=np.uint8)).save(folder / "x-ray.png")
    image = {"id": "x-ray", "kind": "image", "path": "x-ray.png", "shape": (20, 30), "dtype": "uint8", "spacing": None}
    entries.append(dataclasses.replace(template, patient="third", modality="XR", split="train", **image))
    write_manifest(folder / "manifest.csv", entries)
    return folder / "manifest.csv"


def on_both(tiny_manifest: Path, second_manifest: Path) -> str:
    return f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}','{second_manifest}']"


def test_volumes_of_two_manifests_share_no_index(tiny_manifest: Path, second_manifest: Path) -> None:
    cfg = AttrDict({"DATA": {"TRAIN": {}}})
    parts = [VolumeDataset(cfg, str(path), "TRAIN", "", "") for path in (tiny_manifest, second_manifest)]
    whole = VolumeDataset(cfg, [str(tiny_manifest), str(second_manifest)], "TRAIN", "", "")
    assert (len(parts[0]), len(parts[1]), len(whole)) == (8, 2, 10)
    assert [row.open().shape for row in whole.rows] == [row.open().shape for part in parts for row in part.rows]
    np.testing.assert_array_equal(whole.rows[9].open(), 2000)


def test_slices_and_images_of_two_manifests_share_no_index(tiny_manifest: Path, second_manifest: Path) -> None:
    cfg = AttrDict({"DATA": {"TRAIN": {}}})
    parts = [SliceDataset(cfg, str(path), "TRAIN", "", "") for path in (tiny_manifest, second_manifest)]
    whole = SliceDataset(cfg, [str(tiny_manifest), str(second_manifest)], "TRAIN", "", "")
    assert len(whole) == len(parts[0]) + 9
    shown = [np.asarray(whole[index][0]) for index in range(len(whole))]
    expected = [np.asarray(part[index][0]) for part in parts for index in range(len(part))]
    assert all(np.array_equal(one, other) for one, other in zip(shown, expected, strict=True))


@pytest.mark.parametrize(("name", "samples"), [("stage1_swav", 47 + 9), ("stage2_swav", 10)])
def test_a_run_on_two_manifests_is_one_data_set_to_vissl(
    config_of: ConfigOf, stage1_checkpoint: Path, tiny_manifest: Path, second_manifest: Path, name: str, samples: int
) -> None:
    config = prepare(config_of(name, on_both(tiny_manifest, second_manifest), parent=stage1_checkpoint))
    dataset = build_dataset(config, "TRAIN")
    assert len(dataset) == samples
    item = dataset[samples - 1]
    assert set(item["data_idx"]) == {samples - 1}
    prints = [read_manifest(path).fingerprint() for path in (tiny_manifest, second_manifest)]
    assert StageRecord.from_dict(config.JOINT_SSL.RECORD).manifest == "+".join(prints)


def test_two_sources_that_vissl_would_zip_are_refused(
    config_of: ConfigOf, tiny_manifest: Path, second_manifest: Path
) -> None:
    zipped = ["config.DATA.TRAIN.DATA_SOURCES=[slice_dataset,slice_dataset]", "config.DATA.TRAIN.DATASET_NAMES=[a,b]"]
    with pytest.raises(ConfigError, match=r"would zip them .* name slice_dataset once and list every manifest in "):
        prepare(config_of("stage1_swav", on_both(tiny_manifest, second_manifest), *zipped))


def test_the_same_rows_twice_are_refused(config_of: ConfigOf, tiny_manifest: Path) -> None:
    with pytest.raises(ConfigError, match=r"manifest\.csv hold the same rows; name one"):
        prepare(config_of("stage1_swav", on_both(tiny_manifest, tiny_manifest)))


def test_every_manifest_must_have_something_to_show(
    config_of: ConfigOf, tiny_manifest: Path, second_manifest: Path
) -> None:
    splits = "config.DATA.TRAIN.SPLITS=[test]"
    with pytest.raises(ConfigError, match=r"second/manifest\.csv: 1 fault\n  - no volumes and images in the splits"):
        prepare(config_of("stage1_swav", on_both(tiny_manifest, second_manifest), splits))
    with pytest.raises(ManifestError, match="no volumes"):
        VolumeDataset(
            AttrDict({"DATA": {"TRAIN": {"SPLITS": ["val"]}}}),
            [str(tiny_manifest), str(second_manifest)],
            "TRAIN",
            "",
            "",
        )


def test_the_faults_of_all_manifests_are_reported_at_once(config_of: ConfigOf, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(config_of("stage1_swav", on_both(tmp_path / "one.csv", tmp_path / "two.csv")))
    assert "one.csv: 1 fault" in str(caught.value)
    assert "two.csv: 1 fault" in str(caught.value)


def test_volumes_of_one_and_of_several_channels_are_no_batch_of_all_channels(
    config_of: ConfigOf, stage1_checkpoint: Path, tiny_manifest: Path, second_manifest: Path
) -> None:
    manifest = read_manifest(second_manifest)
    np.save(second_manifest.parent / "0.npy", np.full((3, 4, 32, 32), 1000, dtype=np.uint16))
    entries = [dataclasses.replace(manifest.entries[0], shape=(3, 4, 32, 32)), *manifest.entries[1:]]
    write_manifest(second_manifest, entries)

    def faults_of(channels: str | int) -> str:
        cfg = config_of("stage2_swav", on_both(tiny_manifest, second_manifest))
        cfg.DATA.TRAIN.TRANSFORMS[0]["channels"] = channels
        cfg.MODEL.WEIGHTS_INIT.PARAMS_FILE = str(stage1_checkpoint)
        return "\n".join(read_data(cfg)[1])

    assert "channels is all, but volumes have different numbers of them: 1 ('volume0' for one), 3" in faults_of("all")
    assert "channels is 2, counted from 0, but volume 'volume0' has 1 of them" in faults_of(2)
    assert faults_of("choose") == ""
    assert faults_of(0) == ""
