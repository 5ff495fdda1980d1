"""`jointssl speed loader` on tiny scans: the numbers are there, follow from the times, and of the same voxels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from vissl_jointssl.cli import main
from vissl_jointssl.speed import crop_readers, loader
from vissl_jointssl.speed.loader import measure_loader
from vissl_jointssl.speed.loader_table import loader_table
from vissl_jointssl.speed.synthetic_ct import write_synthetic_ct
from vissl_jointssl.speed.timing import Timing

WAYS = {"cache", "nibabel_whole", "nibabel_sliced", "torchio"}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three small CT-like scans, one in a folder of its own."""
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "deep/c")):
        write_synthetic_ct(tmp_path / "scans" / f"{name}.nii.gz", (40, 36, 12), seed=number)
    return tmp_path / "scans"


@pytest.fixture(autouse=True)
def without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "WORKERS", (0,))


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in _numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def test_json_holds_positive_numbers_under_the_names_that_docs_give(
    scans: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speed", "loader", str(scans), "--volumes", "2", "--crops", "3", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["what"] == "loader"
    assert measured["scans"] == {"origin": "given", "count": 2, "shapes": [[12, 36, 40]]}
    assert measured["crop"] == {"size": [64, 128, 128], "count": 3}
    assert set(measured["seconds_per_crop"]) == WAYS
    numbers = _numbers({key: value for key, value in measured.items() if key != "machine"})
    assert len(numbers) > 15
    assert min(numbers) > 0
    documented = (root / "docs" / "speed.md").read_text()
    assert all(f"`{key}`" in documented for key in measured)


def test_ratios_are_of_medians_and_nibabels_is_the_faster_way(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medians = {"cache": 0.5, "nibabel_whole": 3.0, "nibabel_sliced": 2.0, "torchio": 4.0, "slices": 7.0}

    def pretend(contestants: dict[str, Any], cases: Any, check: Any) -> dict[str, Timing]:
        return {name: Timing((0.1, medians[name], 90.0)) for name in contestants}

    monkeypatch.setattr(loader, "time_by_turns", pretend)
    measured = measure_loader(scans, 1, 1, crop_size=(4, 8, 8))
    assert measured["times_as_fast"] == {"nibabel": 4.0, "torchio": 8.0}
    table = loader_table(measured)
    assert "4.0 times as fast as nibabel's faster way, 8.0 times as fast as TorchIO" in table
    assert "our cache                         500 ms" in table


def test_the_table_names_machine_versions_and_every_way(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "loader", str(scans), "--volumes", "3", "--crops", "1"]) == 0
    table = capsys.readouterr().out
    assert "1 random crops of 64 x 128 x 128 from 3 scans (given) of 12 x 36 x 40" in table
    for word in (
        f"nibabel {nibabel.__version__}",
        f"numpy {np.__version__}",
        "page cache: warm",
        "torchio ",
        "commit ",
    ):
        assert word in table
    assert [line.split("  ")[0] for line in table.splitlines() if " ms " in line] == [
        "our cache", "nibabel, the scan, then cut", "nibabel, dataobj[box]", "TorchIO, Subject, then cut",
        "our cache, whole slices",
    ]  # fmt: skip
    assert str(scans) not in table


def test_without_a_folder_scans_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    measured = measure_loader(None, 2, 2, crop_size=(4, 8, 8), synthetic_shape=(32, 24, 9))
    assert measured["scans"] == {"origin": "made by the program", "count": 2, "shapes": [(9, 24, 32)]}
    assert list(tmp_path.iterdir()) == []  # and taken away again


def test_a_contestant_that_reads_another_box_ends_the_measure(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: dict[str, Callable[..., np.ndarray]] = dict(crop_readers.CONTESTANTS)
    wrong["torchio"] = lambda crop: crop_readers.from_torchio(crop)[::-1].copy()
    monkeypatch.setattr(loader, "CONTESTANTS", wrong)
    with pytest.raises(ValueError, match="torchio gave other grey values than the cache: they differ by up to"):
        measure_loader(scans, 1, 1, crop_size=(4, 8, 8))


def test_workers_bring_every_crop(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "WORKERS", (0, 1))
    measured = measure_loader(scans, 1, 1, crop_size=(4, 8, 8))
    assert set(measured["reading"]["volumes_per_second_per_core"]) == {"0", "1"}
    assert "reading, 1 workers: " in loader_table(measured)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lodaer"], "no measure is called 'lodaer'; did you mean loader?"),
        (["loader", "--volumes", "0"], "volumes is 0; expected at least 1"),
        (["loader", "--crops", "-1"], "crops is -1; expected at least 1"),
        (["loader", "nowhere"], "nowhere: is not a folder; give one with .nii.gz files, or none, and scans are made"),
        (["loader", "."], "holds no .nii.gz file; give a folder that does, or none, and scans are made"),
    ],
)
def test_wrong_words_and_folders_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["speed", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_without_torchio_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["speed", "loader"]) == 1
    assert "torchio is not installed, and it is what we are measured against; pip install torchio" in (
        capsys.readouterr().err
    )


def test_a_made_scan_looks_like_a_ct_and_packs_like_one(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    write_synthetic_ct(path, (96, 80, 10), seed=1)
    image: Any = nibabel.load(path)
    values = np.asanyarray(image.dataobj)
    assert (values.shape, values.dtype) == ((96, 80, 10), np.int16)
    assert values.min() >= -1024
    shares = [
        float(((values > low) & (values < high)).mean()) for low, high in ((-1100, -700), (-200, 300), (500, 900))
    ]
    assert shares[0] > 0.3
    assert shares[1] > 0.2
    assert 0.001 < shares[2] < 0.1
    assert 0.4 < path.stat().st_size / values.nbytes < 0.8  # real CT: about a half
