from __future__ import annotations

import os
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


def count_reads(monkeypatch) -> list[str]:
    """Paths of the sources that are read from now on."""
    read: list[str] = []
    original = pipeline.pieces_of

    def counting(source, root, options):
        read.append(source.path)
        return original(source, root, options)

    monkeypatch.setattr(pipeline, "pieces_of", counting)
    return read


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


def test_a_second_run_changes_nothing_and_reads_no_scan(hospital, tmp_path, monkeypatch):
    first = prepare_folder(hospital, tmp_path / "out")
    before = state_of(tmp_path / "out")
    read = count_reads(monkeypatch)
    assert prepare_folder(hospital, tmp_path / "out").entries == first.entries
    assert state_of(tmp_path / "out") == before
    assert read == []


def test_a_touched_file_is_hashed_and_not_read_again(hospital, tmp_path, monkeypatch):
    prepare_folder(hospital, tmp_path / "out")
    os.utime(hospital / "smith.nii", ns=(1, 1))
    read = count_reads(monkeypatch)
    prepare_folder(hospital, tmp_path / "out")
    assert read == []


def test_only_a_changed_file_is_prepared_again_and_its_old_array_goes(
    hospital, tmp_path, monkeypatch, save_nifti, make_volume
):
    before = prepare_folder(hospital, tmp_path / "out")
    save_nifti(hospital / "smith.nii", make_volume((8, 9, 10), seed=9))
    read = count_reads(monkeypatch)
    after = prepare_folder(hospital, tmp_path / "out")
    assert read == ["smith.nii"]
    assert [old == new for old, new in zip(before.entries, after.entries, strict=True)] == [True, True, False, True]
    assert len(list((tmp_path / "out" / "volumes").iterdir())) == 3
    after.check_files()


def test_a_changed_option_prepares_again_and_leaves_the_old_arrays_until_the_manifest_is_new(
    hospital, tmp_path, monkeypatch
):
    old = prepare_folder(hospital, tmp_path / "out")
    read = count_reads(monkeypatch)
    original = pipeline.write_manifest

    def look_then_write(path, entries):
        old.check_files()
        return original(path, entries)

    monkeypatch.setattr(pipeline, "write_manifest", look_then_write)
    new = prepare_folder(hospital, tmp_path / "out", spacing=2.0)
    assert len(read) == 4
    assert new.entries[0].shape == (5, 4, 4)
    assert not (tmp_path / "out" / old.entries[0].path).exists()


def test_a_killed_run_goes_on_where_it_stopped(hospital, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(done: int, total: int, path: str) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        prepare_folder(hospital, tmp_path / "out", progress=kill)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    read = count_reads(monkeypatch)
    manifest = prepare_folder(hospital, tmp_path / "out")
    assert read == ["smith.nii", "xray.png"]
    monkeypatch.undo()
    assert manifest.entries == prepare_folder(hospital, tmp_path / "fresh").entries


def test_a_lost_or_shortened_array_is_made_again(hospital, tmp_path):
    manifest = prepare_folder(hospital, tmp_path / "out")
    (tmp_path / "out" / manifest.entries[0].path).unlink()
    (tmp_path / "out" / manifest.entries[1].path).write_bytes(b"short")
    for record in list((tmp_path / "out" / ".records").iterdir())[:1]:
        record.write_text("{ cut short")
    prepare_folder(hospital, tmp_path / "out").check_files()


def test_every_unreadable_file_is_named_at_once_and_the_sound_ones_are_kept(hospital, tmp_path, monkeypatch):
    (hospital / "empty.nii.gz").touch()
    (hospital / "half.png").write_bytes((hospital / "xray.png").read_bytes()[:40])
    with pytest.raises(PreparationError, match="2 files cannot be prepared and no manifest was written") as error:
        prepare_folder(hospital, tmp_path / "out")
    assert [failure.path.name for failure in error.value.failures] == ["empty.nii.gz", "half.png"]
    assert "empty.nii.gz: is empty (0 bytes)" in str(error.value)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    (hospital / "empty.nii.gz").unlink()
    (hospital / "half.png").unlink()
    read = count_reads(monkeypatch)
    assert len(prepare_folder(hospital, tmp_path / "out")) == 4
    assert read == []


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
    with pytest.raises(PreparationError, match=r"smith.nii: cannot be read as NIfTI"):
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
        save_nifti(tmp_path / "in" / "imagesTr" / f"{number}.nii", make_volume((4, 4, 4), number))
    with pytest.raises(PreparationError, match="all 3 scans count as one patient"):
        prepare_folder(tmp_path / "in", tmp_path / "out", validation_share=0.5)
    assert len(prepare_folder(tmp_path / "in" / "imagesTr", tmp_path / "out", validation_share=0.5)) == 3


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
    assert calls == [(0, 2, "a.nii"), (1, 2, "a.nii"), (2, 2, "")]
    assert [(entry.split, entry.label) for entry in manifest.entries] == [("test", 0)] * 8 + [("train", 1)] * 8
    assert manifest.open_label(manifest.entries[0]).shape == (4, 8, 8)
    assert "class 0 (body) has 8 in test" in caplog.text
