from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.manifest import read_manifest
from vissl_jointssl.preparation import pipeline
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare, prepare_folder
from vissl_jointssl.preparation.recipe import Options, Recipe, Source


@pytest.fixture
def hospital(tmp_path, save_nifti, save_dicom, make_volume) -> Path:
    folder = tmp_path / "hospital"
    save_nifti(folder / "DOE_JANE" / "ct.nii.gz", make_volume((8, 9, 10), seed=1))
    save_nifti(folder / "smith.nii", make_volume((8, 9, 10), seed=2))
    save_dicom(folder / "muller" / "series", make_volume((5, 6, 7), seed=3))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "xray.png")
    return folder


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time of change and its content."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def arrays_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of volumes/ and images/ as what changes when it is written again: its inode and time."""
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for name in ("volumes", "images")
        for file in sorted((folder / name).glob("*"))
    }


def test_a_folder_of_scans_becomes_a_manifest_whose_files_are_sound(hospital, tmp_path):
    manifest = prepare_folder(hospital, tmp_path / "out")
    assert [(entry.kind, entry.modality, entry.dtype) for entry in manifest.entries] == [
        ("volume", "CT", "uint16"),
        ("volume", "CT", "uint16"),
        ("volume", "CT", "uint16"),
        ("image", "OT", "uint8"),
    ]
    read_manifest(tmp_path / "out").check_files()
    assert [entry.shape for entry in manifest.entries] == [(10, 9, 8), (5, 6, 7), (10, 9, 8), (8, 8)]


def test_no_name_of_a_file_or_a_header_is_in_the_manifest_or_in_a_file_name(hospital, tmp_path):
    prepare_folder(hospital, tmp_path / "out")
    text = (tmp_path / "out" / "manifest.csv").read_text()
    names = " ".join(file.name for file in (tmp_path / "out").rglob("*"))
    for secret in ("jane", "doe", "smith", "muller", "id-77"):
        assert secret not in text.lower()
        assert secret not in names.lower()


def test_a_second_run_changes_nothing_and_starts_no_reader(hospital, tmp_path, monkeypatch):
    first = prepare_folder(hospital, tmp_path / "out")
    before = state_of(tmp_path / "out")
    asked: list[int] = []
    monkeypatch.setattr(pipeline, "run_tasks", lambda function, tasks, *rest: iter_of(asked.append(len(tasks))))
    assert prepare_folder(hospital, tmp_path / "out").entries == first.entries
    assert state_of(tmp_path / "out") == before
    assert asked == [0]


def iter_of(_: None) -> Iterator[tuple[int, object]]:
    yield from ()


def test_a_touched_file_is_hashed_and_not_read_again(hospital, tmp_path):
    prepare_folder(hospital, tmp_path / "out")
    before = arrays_of(tmp_path / "out")
    os.utime(hospital / "smith.nii", ns=(1, 1))
    prepare_folder(hospital, tmp_path / "out")
    assert arrays_of(tmp_path / "out") == before
    records = state_of(tmp_path / "out")
    prepare_folder(hospital, tmp_path / "out")  # and its new time is known by now
    assert state_of(tmp_path / "out") == records


def test_only_a_changed_file_is_prepared_again_and_its_old_array_goes(hospital, tmp_path, save_nifti, make_volume):
    before = prepare_folder(hospital, tmp_path / "out")
    old = arrays_of(tmp_path / "out")
    save_nifti(hospital / "smith.nii", make_volume((8, 9, 10), seed=9))
    after = prepare_folder(hospital, tmp_path / "out")
    assert [old == new for old, new in zip(before.entries, after.entries, strict=True)] == [True, True, False, True]
    new = arrays_of(tmp_path / "out")
    assert set(old) - set(new) == set(before.entries[2].files)
    assert set(new) - set(old) == set(after.entries[2].files)
    assert all(old[name] == new[name] for name in set(old) & set(new))
    after.check_files()


def test_a_changed_option_prepares_what_it_touches_and_leaves_the_old_arrays_until_the_manifest_is_new(
    hospital, tmp_path, monkeypatch
):
    old = prepare_folder(hospital, tmp_path / "out")
    before = arrays_of(tmp_path / "out")
    original = pipeline.write_manifest

    def look_then_write(path, entries):
        old.check_files()
        return original(path, entries)

    monkeypatch.setattr(pipeline, "write_manifest", look_then_write)
    new = prepare_folder(hospital, tmp_path / "out", spacing=2.0)
    assert new.entries[0].shape == (5, 4, 4)
    assert not (tmp_path / "out" / old.entries[0].path).exists()
    after = arrays_of(tmp_path / "out")
    assert {name for name in before if after.get(name) == before[name]} == {old.entries[3].path}  # the X-ray


def test_a_run_that_is_stopped_goes_on_where_it_stopped(hospital, tmp_path):
    class Stopped(BaseException):
        pass

    def stop(done: int, total: int, path: str) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        prepare_folder(hospital, tmp_path / "out", progress=stop, jobs=1)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    done = arrays_of(tmp_path / "out")
    recorded = {file.stem for file in (tmp_path / "out" / ".records").iterdir()}
    assert 2 <= len(recorded) < 4
    manifest = prepare_folder(hospital, tmp_path / "out")
    assert manifest.entries == prepare_folder(hospital, tmp_path / "fresh").entries
    after = arrays_of(tmp_path / "out")
    kept = {file for entry in manifest.entries if entry.id in recorded for file in entry.files}
    assert all(after[file] == done[file] for file in kept)


def test_a_lost_or_shortened_array_is_made_again(hospital, tmp_path):
    manifest = prepare_folder(hospital, tmp_path / "out")
    (tmp_path / "out" / manifest.entries[0].path).unlink()
    (tmp_path / "out" / manifest.entries[1].path).write_bytes(b"short")
    (tmp_path / "out" / manifest.entries[2].grid_path).unlink()
    records = sorted((tmp_path / "out" / ".records").iterdir())
    records[0].write_text("{ cut short")
    records[1].write_text('{"version": 2}')
    again = prepare_folder(hospital, tmp_path / "out")
    again.check_files()
    assert again.entries == manifest.entries


def test_every_unreadable_file_is_named_at_once_and_the_sound_ones_are_kept(hospital, tmp_path):
    (hospital / "empty.nii.gz").touch()
    (hospital / "half.png").write_bytes((hospital / "xray.png").read_bytes()[:40])
    with pytest.raises(PreparationError, match="2 files cannot be prepared and no manifest was written") as error:
        prepare_folder(hospital, tmp_path / "out")
    assert [failure.path.name for failure in error.value.failures] == ["empty.nii.gz", "half.png"]
    assert "empty.nii.gz: is empty (0 bytes)" in str(error.value)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    (hospital / "empty.nii.gz").unlink()
    (hospital / "half.png").unlink()
    done = arrays_of(tmp_path / "out")
    assert len(prepare_folder(hospital, tmp_path / "out")) == 4
    assert arrays_of(tmp_path / "out") == done


def test_keep_going_leaves_faulty_files_out_and_says_so(hospital, tmp_path, caplog):
    (hospital / "empty.nii.gz").touch()
    assert len(prepare_folder(hospital, tmp_path / "out", keep_going=True)) == 4
    assert "left out" in caplog.text
    assert "empty.nii.gz: is empty" in caplog.text
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.nii").touch()
    with pytest.raises(PreparationError, match="nothing could be prepared"):
        prepare_folder(tmp_path / "bad", tmp_path / "out2", keep_going=True)


def test_an_unreadable_file_leaves_the_manifest_of_the_last_run_valid(hospital, tmp_path):
    prepare_folder(hospital, tmp_path / "out")
    (hospital / "smith.nii").write_bytes(b"damaged")
    with pytest.raises(PreparationError, match=r"smith.nii: .*Next: "):
        prepare_folder(hospital, tmp_path / "out")
    read_manifest(tmp_path / "out").check_files()


def test_patients_keep_their_split_when_others_join(tmp_path, save_nifti, make_volume):
    for number in range(12):
        save_nifti(tmp_path / "in" / f"patient{number}" / "a.nii", make_volume((4, 4, 4), number))
        save_nifti(tmp_path / "in" / f"patient{number}" / "b.nii", make_volume((4, 4, 4), 100 + number))
    before = {
        entry.patient: entry.split
        for entry in prepare_folder(tmp_path / "in", tmp_path / "out", test_share=0.4).entries
    }
    assert set(before.values()) == {"train", "test"}
    save_nifti(tmp_path / "in" / "another" / "a.nii", make_volume((4, 4, 4), 77))
    after = {
        entry.patient: entry.split
        for entry in prepare_folder(tmp_path / "in", tmp_path / "out", test_share=0.4).entries
    }
    assert len(after) == 13
    assert before.items() <= after.items()


def test_a_folder_that_counts_as_one_patient_cannot_be_split(tmp_path, save_nifti, make_volume):
    for number in range(3):
        save_nifti(tmp_path / "in" / "jane" / f"{number}.nii", make_volume((4, 4, 4), number))
    with pytest.raises(PreparationError, match="all 3 scans count as one patient"):
        prepare_folder(tmp_path / "in", tmp_path / "out", validation_share=0.5)
    assert len(prepare_folder(tmp_path / "in" / "jane", tmp_path / "out", validation_share=0.5)) == 3


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(PreparationError, match="is not a folder"):
        prepare_folder(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(PreparationError, match=r"holds no scan. Next: give a folder with .nii"):
        prepare_folder(tmp_path, tmp_path / "out")


def test_a_target_that_cannot_be_written_to_is_one_clear_error(hospital, tmp_path):
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(PreparationError, match=r"out: cannot be written to .*free space"):
        prepare_folder(hospital, tmp_path / "out")


def test_fixed_splits_labels_and_regions_reach_the_manifest(tmp_path, save_nifti, make_volume, caplog):
    caplog.set_level("INFO")
    array = make_volume((16, 16, 8))
    save_nifti(tmp_path / "a.nii", array)
    save_nifti(tmp_path / "l.nii", (array > -500).astype(np.uint8))
    sources = (
        Source("labelled", "a.nii", "p", split="test", label_path="l.nii"),
        Source("plain", "a.nii", "q", split="train", label=1),
    )
    recipe = Recipe("set", tmp_path, sources, Options(tile_size=(4, 8, 8)), ("body", "other"))
    calls: list[tuple[int, int, str]] = []
    manifest = prepare(recipe, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls == [(0, 2, ""), (1, 2, "a.nii"), (2, 2, "a.nii")]
    assert [(entry.split, entry.label) for entry in manifest.entries] == [("test", 0)] * 8 + [("train", 1)] * 8
    assert manifest.open_label(manifest.entries[0]).shape == (4, 8, 8)
    assert "class 0 (body) has 8 in test" in caplog.text


TRAPS = """
import os, time

class Crash(dict):
    def get(self, *_):
        os.abort()

class Hang(dict):
    def get(self, *_):
        time.sleep(60)
"""


def test_a_reader_that_crashes_or_hangs_costs_one_source(tmp_path, save_nifti, make_volume, monkeypatch, caplog):
    (tmp_path / "reader_traps.py").write_text(TRAPS)  # label groups are asked within the worker
    monkeypatch.syspath_prepend(tmp_path)
    traps = importlib.import_module("reader_traps")
    save_nifti(tmp_path / "a.nii", make_volume())
    save_nifti(tmp_path / "l.nii", (make_volume() > -500).astype(np.uint8))
    os.mkfifo(tmp_path / "pipe.nii")  # whoever opens it waits
    sources = (
        Source("crash", "a.nii", "p", label_path="l.nii", label_groups=traps.Crash({1: 1})),
        Source("hang", "a.nii", "q", label_path="l.nii", label_groups=traps.Hang({1: 1})),
        Source("pipe", "pipe.nii", "r"),
        Source("fine", "a.nii", "s"),
    )
    recipe = Recipe("set", tmp_path, sources)
    manifest = prepare(recipe, tmp_path / "out", keep_going=True, timeout=2.0)
    assert [entry.id for entry in manifest.entries] == ["fine"]
    left_out = json.loads((tmp_path / "out" / "report.json").read_text())["left_out"]
    assert [(one["id"], one["code"]) for one in left_out] == [
        ("crash", "crashed"),
        ("hang", "timeout"),
        ("pipe", "missing"),
    ]
    assert "SIGABRT" in left_out[0]["reason"]
    assert "did not end within 2 s" in left_out[1]["reason"]
    assert "left out (hang, timeout): " in caplog.text
    with pytest.raises(PreparationError, match="3 files cannot be prepared") as error:
        prepare(recipe, tmp_path / "out", timeout=2.0)
    assert [failure.code for failure in error.value.failures] == ["crashed", "timeout", "missing"]
