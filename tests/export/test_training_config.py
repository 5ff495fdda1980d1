from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from vissl_jointssl.checkpoints import Checkpoint, StageRecord, sha256
from vissl_jointssl.export.intensity import KEYS, REPORT_FILE, intensity_recipe
from vissl_jointssl.export.training_config import TrainingConfig, normalisation, read_training_config
from vissl_jointssl.manifest import Entry, read_manifest, write_manifest

RUN = {
    "MODEL": {"TRUNK": {"NAME": "resnet", "RESNETS": {"DEPTH": 50, "LAYER4_STRIDE": 2}}},
    "DATA": {
        "TRAIN": {
            "DATA_PATHS": ["data/manifest.csv"],
            "TRANSFORMS": [{"name": "ToTensor"}, {"name": "Normalize", "mean": [0.4], "std": [0.2]}],
        }
    },
}


@pytest.mark.parametrize("content", [RUN, {"config": RUN, "engine_name": "train"}])
def test_facts_are_read_from_vissls_own_file_and_from_one_with_config_on_top(content: dict, tmp_path: Path) -> None:
    (tmp_path / "train_config.yaml").write_text(yaml.safe_dump(content))
    assert read_training_config(tmp_path / "model.torch") == TrainingConfig(
        depth=50,
        last_stride=2,
        mean=(0.4,),
        std=(0.2,),
        transforms=("ToTensor", "Normalize"),
        manifests=("data/manifest.csv",),
    )


def test_the_views_of_volumes_normalise_inside(tmp_path: Path) -> None:
    views = {"DATA": {"TRAIN": {"TRANSFORMS": [{"name": "volume_views", "size": [32, 32]}]}}}
    (tmp_path / "train_config.yaml").write_text(yaml.safe_dump(views))
    config = read_training_config(tmp_path / "model.torch")
    assert (config.mean, config.std) == ((0.449,) * 3, (0.226,) * 3)


def test_what_nobody_knows_stays_unknown(tmp_path: Path) -> None:
    def checkpoint(record: StageRecord | None) -> Checkpoint:
        return Checkpoint(tmp_path / "m.torch", {}, {}, record, None, None, False)

    nothing, plain = TrainingConfig(), TrainingConfig(transforms=("ToTensor",))
    stock, ours = checkpoint(None), checkpoint(StageRecord(1, "swav"))
    assert normalisation(stock, nothing)[:2] == (None, None)
    assert normalisation(ours, nothing)[:2] == ((0.449,) * 3, (0.226,) * 3)
    assert normalisation(ours, plain)[:2] == (None, None)  # known: nothing was subtracted


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A prepared folder as `jointssl prepare` leaves it: one volume, its manifest, its report."""
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros((2, 4, 4), np.uint16))
    entry = Entry(
        id="a",
        kind="volume",
        path="a.npy",
        label_path=None,
        label=None,
        split="train",
        patient="p",
        modality="CT",
        spacing=(1.0, 1.0, 1.0),
        shape=(2, 4, 4),
        dtype="uint16",
        sha256=sha256(folder / "a.npy"),
    )
    write_manifest(folder / "manifest.csv", [entry])
    report = {"recipe": "lungs", "options": {"ct_window": [-1000, 400], "slice_axis": "axial", "region_share": 0.1}}
    (folder / REPORT_FILE).write_text(json.dumps(report))
    return folder / "manifest.csv"


def test_the_intensity_recipe_is_that_of_the_data_trained_on(manifest: Path) -> None:
    fingerprint = read_manifest(manifest).fingerprint()
    (found,) = intensity_recipe([str(manifest)], fingerprint) or [{}]
    assert found.keys() == {"recipe", *KEYS}
    assert (found["recipe"], found["ct_window"], found["slice_axis"]) == ("lungs", [-1000, 400], "axial")
    both = intensity_recipe([str(manifest)] * 2, f"{fingerprint}+{fingerprint}")
    assert both == [found, found]


def test_data_that_is_gone_or_another_now_says_nothing(manifest: Path) -> None:
    fingerprint = read_manifest(manifest).fingerprint()
    assert intensity_recipe([str(manifest)], "ab" * 32) is None
    assert intensity_recipe([str(manifest)], None) is None
    assert intensity_recipe([], fingerprint) is None
    assert intensity_recipe([str(manifest.with_name("other.csv"))], fingerprint) is None
    (manifest.parent / REPORT_FILE).write_text("[]")
    assert intensity_recipe([str(manifest)], fingerprint) is None
    (manifest.parent / REPORT_FILE).unlink()
    assert intensity_recipe([str(manifest)], fingerprint) is None


def test_preparation_writes_the_report_that_is_read_here() -> None:
    from dataclasses import fields

    from vissl_jointssl.preparation.cache.report import REPORT_FILE as WRITTEN
    from vissl_jointssl.preparation.recipe import Options

    assert WRITTEN == REPORT_FILE
    assert set(KEYS) <= {field.name for field in fields(Options)}
