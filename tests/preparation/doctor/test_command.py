from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.cli import main
from vissl_jointssl.manifest import write_manifest
from vissl_jointssl.preparation.cache.folder_lock import only_run_in
from vissl_jointssl.preparation.doctor import checkup, preview
from vissl_jointssl.preparation.doctor.diagnosis import CODES, SEVERITIES, Diagnosis
from vissl_jointssl.preparation.errors import CODES as READING_CODES
from vissl_jointssl.preparation.workers import Lost


@pytest.fixture
def raw(tmp_path, save_nifti, make_mr):
    for number in range(3):
        save_nifti(tmp_path / "raw" / f"patient{number}" / "t1.nii.gz", make_mr(seed=number))
    return tmp_path / "raw"


@pytest.fixture
def prepared(tmp_path, make_row):
    write_manifest(tmp_path / "manifest.csv", [make_row("a"), make_row("b"), make_row("c", split="test")])
    return tmp_path


def says(capsys) -> str:
    return capsys.readouterr().out


def test_sound_raw_scans_may_be_trained_on_and_the_exit_code_says_so(raw, capsys):
    assert main(["doctor", str(raw), "--jobs", "1"]) == 0
    assert says(capsys).splitlines() == [
        f"{raw}: raw, 3 volumes; 3 MR",
        "",
        "Training may start, once `jointssl prepare` has prepared these.",
    ]


def test_a_faulty_raw_scan_stops_training_and_is_named_with_what_to_do(raw, capsys):
    (raw / "patient1" / "t2.nii").write_bytes(b"")
    assert main(["doctor", str(raw), "--jobs", "1"]) == 1
    text = says(capsys)
    assert (
        "ERRORS\n  empty (1): 0 bytes, or no voxel at all\n    patient1/t2.nii: is empty (0 bytes)\n    Next: " in text
    )
    assert text.splitlines()[-1].startswith("Training may not start: 1 error in 1 of 4 sources. Next: mend or remove")


def test_raw_scans_are_compared_with_one_another(raw, in_this_process, capsys):
    (raw / "patient1" / "copy.nii.gz").write_bytes((raw / "patient0" / "t1.nii.gz").read_bytes())
    assert main(["doctor", str(raw)]) == 0
    words = "patient1/copy.nii.gz: has the same voxels as patient0/t1.nii.gz, which counts as another patient"
    assert words in says(capsys)


def test_a_modality_that_is_given_decides_what_is_looked_for(raw, in_this_process, capsys):
    assert main(["doctor", str(raw), "--modality", "ct"]) == 0
    assert "a CT without air" in says(capsys)


def test_a_sound_prepared_folder_exits_with_0_and_a_faulty_one_with_1(prepared, in_this_process, capsys):
    assert main(["doctor", str(prepared)]) == 0
    assert says(capsys).splitlines()[0] == f"{prepared}: prepared, 3 volumes; 3 MR; 2 train, 1 test"
    (prepared / "volumes" / "b.npy").unlink()
    assert main(["doctor", str(prepared)]) == 1
    assert "1 error in 1 of 3 rows" in says(capsys)


def test_quarantine_makes_training_start(prepared, in_this_process, capsys):
    (prepared / "volumes" / "b.npy").unlink()
    assert main(["doctor", str(prepared), "--quarantine"]) == 0
    assert says(capsys).splitlines()[-3:] == [
        "quarantine.csv: 1 added, 0 removed, 0 kept.",
        "In quarantine, and not read by training: 1 row (1 missing).",
        "Training may start.",
    ]


def test_a_changed_array_is_found_by_its_hash_unless_that_is_spared(prepared, in_this_process, capsys):
    path = prepared / "volumes" / "a.npy"
    np.save(path, np.load(path)[::-1])
    assert main(["doctor", str(prepared)]) == 1
    assert "changed (1)" in says(capsys)
    assert main(["doctor", str(prepared), "--no-hash"]) == 0


def test_the_json_has_the_keys_that_are_documented(prepared, in_this_process, capsys, tmp_path):
    (prepared / "volumes" / "b.npy").write_bytes(b"")
    assert main(["doctor", str(prepared), "--json", str(tmp_path / "report.out")]) == 1
    report = json.loads((tmp_path / "report.out").read_text())
    assert list(report) == [
        "version",
        "folder",
        "form",
        "training_may_start",
        "verdict",
        "counts",
        "quarantined",
        "diagnoses",
    ]
    assert (report["version"], report["form"], report["training_may_start"]) == (1, "prepared", False)
    assert report["counts"] == {
        "subjects": 3,
        "errors": 1,
        "warnings": 0,
        "by_kind": {"volume": 2},
        "by_modality": {"MR": 2},
        "by_split": {"test": 1, "train": 1},
        "by_code": {"unreadable": 1},
    }
    (found,) = report["diagnoses"]
    assert list(found) == ["id", "path", "code", "severity", "reason", "next_step", "quarantined"]
    assert (found["id"], found["path"], found["quarantined"]) == ("b", "volumes/b.npy", False)
    assert says(capsys).splitlines()[-1] == report["verdict"]


def test_json_on_stdout_stands_alone(prepared, in_this_process, capsys):
    assert main(["doctor", str(prepared), "--json", "-"]) == 0
    assert json.loads(says(capsys))["training_may_start"] is True


def test_five_examples_are_shown_of_many(tmp_path, make_row, in_this_process, capsys):
    write_manifest(
        tmp_path / "manifest.csv", [make_row("sound"), *(make_row(f"bad{n}", sha256="0" * 64) for n in range(8))]
    )
    assert main(["doctor", str(tmp_path)]) == 1
    text = says(capsys)
    assert "changed (8): not the file that its row was written for" in text
    assert sum("bad" in line for line in text.splitlines()) == 5
    assert "and 3 more (--json lists all)" in text


@pytest.mark.parametrize(("code", "reason"), [("crashed", "ended its process (signal SIGSEGV)"), ("timeout", "no end")])
def test_a_reader_that_crashes_or_hangs_costs_one_file(raw, monkeypatch, capsys, code, reason):
    def run(function, tasks, jobs, timeout):
        yield 1, Lost(code, reason)
        yield from ((number, function(tasks[number])) for number in (2, 0))

    monkeypatch.setattr(checkup, "run_tasks", run)
    assert main(["doctor", str(raw)]) == 1
    text = says(capsys)
    assert f"{code} (1): {READING_CODES[code]}\n    patient1/t1.nii.gz: {reason}\n" in text
    assert "2 volumes" in text


def test_the_preview_is_a_page_of_pixels(raw, capsys, tmp_path):
    (raw / "patient1" / "t2.nii").write_bytes(b"")
    assert main(["doctor", str(raw), "--jobs", "1", "--preview", str(tmp_path / "page.png")]) == 1
    with Image.open(tmp_path / "page.png") as page:
        assert page.size == (4 * 200 + 8, 200 + 45 + 8)
        assert page.info == {}


def test_the_page_of_a_prepared_folder_names_rows_by_their_ids(prepared, in_this_process, monkeypatch, tmp_path):
    monkeypatch.setattr(preview, "run_tasks", checkup.run_tasks)
    drawn = []
    monkeypatch.setattr(preview, "contact_sheet", lambda tiles: drawn.extend(tiles) or b"")
    (prepared / "volumes" / "b.npy").unlink()
    assert main(["doctor", str(prepared), "--preview", str(tmp_path / "page.png")]) == 1
    assert [(tile.name, tile.facts, tile.fault, tile.faulty) for tile in drawn] == [
        ("a", "MR 10x20x24, 3x1x1 mm", "", False),
        ("b", "cannot be read", "missing", True),
        ("c", "MR 10x20x24, 3x1x1 mm", "", False),
    ]
    assert [tile.thumbnail is None for tile in drawn] == [False, True, False]


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda folder: None, [], "is not a folder. Next: give a prepared folder"),
        (lambda folder: folder.mkdir(), [], "holds no scan, and no manifest.csv"),
        (lambda folder: (folder / ".records").mkdir(parents=True), [], "did not come to its end"),
        (lambda folder: folder.mkdir(), ["--quarantine"], "only rows of a prepared folder can be in quarantine"),
        (
            lambda folder: folder.mkdir(),
            ["--recipe", "luna2061"],
            "no data set is called 'luna2061'; did you mean luna",
        ),
        (lambda folder: folder.mkdir(), ["--jobs", "-1"], "--jobs -1"),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_line(tmp_path, capsys, make, options, words):
    make(tmp_path / "folder")
    assert main(["doctor", str(tmp_path / "folder"), *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1


@pytest.mark.parametrize("option", ["--json", "--preview"])
def test_a_report_that_cannot_be_written_is_said_after_the_table(prepared, in_this_process, tmp_path, capsys, option):
    (tmp_path / "folder").mkdir()
    assert main(["doctor", str(prepared), "--jobs", "1", option, str(tmp_path / "folder")]) == 1
    captured = capsys.readouterr()
    assert "Training may start." in captured.out
    assert "folder: cannot be written (Is a directory). Next: " in captured.err


def test_the_list_is_not_touched_while_a_preparation_runs(prepared, in_this_process, capsys):
    (prepared / "volumes" / "b.npy").unlink()
    with only_run_in(prepared):
        assert main(["doctor", str(prepared), "--quarantine"]) == 1
        assert "another run is preparing into it" in capsys.readouterr().err
        assert main(["doctor", str(prepared)]) == 1  # to look is allowed
    assert not (prepared / "quarantine.csv").exists()


def test_a_list_that_cannot_be_written_is_said_in_one_line(prepared, in_this_process, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkup, "update_quarantine", refuse)
    assert main(["doctor", str(prepared), "--quarantine"]) == 1
    assert "quarantine.csv cannot be written (Permission denied). Next: " in capsys.readouterr().err


def test_a_data_set_is_looked_at_by_its_name(tmp_path, save_nifti, make_mr, capsys):
    for number in range(3):
        save_nifti(tmp_path / "task" / "imagesTr" / f"la_{number:03d}.nii.gz", make_mr(seed=number))
        labels = (make_mr(seed=number) > 300).astype(np.uint8) * (5 if number == 2 else 1)
        save_nifti(tmp_path / "task" / "labelsTr" / f"la_{number:03d}.nii.gz", labels)
    cases = [{"image": f"./imagesTr/la_{n:03d}.nii.gz", "label": f"./labelsTr/la_{n:03d}.nii.gz"} for n in range(3)]
    about = {
        "name": "Heart",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "left atrium"},
        "numTraining": 3,
    }
    (tmp_path / "task" / "dataset.json").write_text(json.dumps({**about, "training": cases, "test": [], "numTest": 0}))
    assert main(["doctor", str(tmp_path / "task"), "--recipe", "msd", "--jobs", "1"]) == 0
    text = says(capsys)
    assert "raw, 3 volumes; 3 MR; 3 with label maps" in text
    assert "labelsTr/la_002.nii.gz: its label map has number 5, and there are names for 1 to 1" in text


def test_names_of_any_kind_stay_in_one_line(tmp_path, save_nifti, make_mr, capsys):
    folder = tmp_path / "raw"
    save_nifti(folder / "a b\nc é.nii", make_mr((24, 20, 6)))
    assert main(["doctor", str(folder), "--jobs", "1"]) == 0
    assert "    a b\\nc é.nii: has 6 slices of 20 x 24\n" in says(capsys)


def test_every_code_of_the_readers_has_its_words_and_no_other_is_said():
    assert CODES.items() >= READING_CODES.items()
    with pytest.raises(ValueError, match="'spaceing' and severity 'error'"):
        Diagnosis("a", "a", "spaceing", "error", "", "")
    with pytest.raises(ValueError, match="severity 'fatal'"):
        Diagnosis("a", "a", "spacing", "fatal", "", "")
    assert SEVERITIES == ("error", "warning")
