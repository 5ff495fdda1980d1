from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.manifest import read_manifest
from vissl_jointssl.preparation.command import add_arguments, run
from vissl_jointssl.preparation.datasets import all_data_sets


def parse(*words: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_the_command_prepares_with_its_options(tmp_path, save_nifti, make_volume, caplog):
    caplog.set_level(logging.INFO)
    save_nifti(tmp_path / "in" / "a.nii", make_volume((8, 10, 12)))
    words = ("--out", str(tmp_path / "out"), "--spacing", "2", "--slice-axis", "sagittal", "--modality", "ct")
    assert run(parse(str(tmp_path / "in"), *words)) == 0
    (entry,) = read_manifest(tmp_path / "out").entries
    assert (entry.shape, entry.spacing, entry.modality) == ((4, 6, 5), (2.0, 2.0, 2.0), "CT")
    assert "1 rows from 1 of 1 sources in " in caplog.text


def test_the_command_fails_with_the_files_at_fault_unless_it_is_to_keep_going(
    tmp_path, save_nifti, make_volume, caplog
):
    save_nifti(tmp_path / "in" / "a.nii", make_volume())
    (tmp_path / "in" / "b.nii").touch()
    words = (str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert run(parse(*words)) == 1
    assert "b.nii: is empty" in caplog.text
    assert run(parse(*words, "--keep-going")) == 0


def test_an_unknown_slice_axis_is_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit):
        parse("in", "--out", "out", "--slice-axis", "oblique")
    assert "invalid choice: 'oblique'" in capsys.readouterr().err


def test_every_option_reaches_the_recipe_and_what_is_not_given_stays(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "in" / "a.nii", make_volume((8, 10, 12)))

    def options_of(*words: str) -> dict:
        assert run(parse(tmp_path / "in", "--out", tmp_path / "out", *words)) == 0
        return json.loads((tmp_path / "out" / "report.json").read_text())

    plain = options_of()
    given = {
        "slice_axis": ["coronal"],
        "spacing": ["2", "1.5", "1.5"],
        "stored_type": ["uint8"],
        "ct_window": ["-200", "300"],
        "percentiles": ["1", "99"],
        "crop_foreground": [],
        "fourth_axis": ["volumes"],
        "image_size": ["512"],
        "image_form": ["original"],
    }
    words = [word for name, values in given.items() for word in (f"--{name.replace('_', '-')}", *values)]
    chosen = options_of(*words, "--seed", "3", "--test-share", "0.1", "--validation-share", "0.2", "--jobs", "1")
    assert {name for name in chosen["options"] if chosen["options"][name] != plain["options"][name]} == set(given)
    assert chosen["options"]["spacing"] == [2.0, 1.5, 1.5]
    assert chosen["options"]["crop_foreground"] is True
    assert [chosen[name] for name in ("seed", "test_share", "validation_share")] == [3, 0.1, 0.2]
    assert [plain[name] for name in ("seed", "test_share", "validation_share")] == [0, 0.0, 0.0]
    (entry,) = read_manifest(tmp_path / "out").entries
    assert (entry.dtype, entry.spacing[0]) == ("uint8", 2.0)


def test_a_data_set_is_one_word_and_its_own_options_stay(tmp_path, save_nifti, caplog):
    rng = np.random.default_rng(0)
    for number in range(2):
        array = rng.integers(-500, 500, (8, 9, 10)).astype(np.int16)
        save_nifti(tmp_path / "lits" / f"volume-{number}.nii", array)
        save_nifti(tmp_path / "lits" / f"segmentation-{number}.nii", (array > 0).astype(np.uint8))
    assert run(parse("lits2017", tmp_path / "lits", "--out", tmp_path / "out", "--stored-type", "uint8")) == 0
    manifest = read_manifest(tmp_path / "out")
    assert [(entry.dtype, entry.modality, entry.label_path is None) for entry in manifest.entries] == [
        ("uint8", "CT", False)
    ] * 2
    assert run(parse("lits2017", "--out", tmp_path / "out")) == 1
    assert "lits2017 needs the folder where it lies" in caplog.text
    assert run(parse("lits2071", tmp_path / "lits", "--out", tmp_path / "out")) == 1
    assert "no data set is called 'lits2071'; did you mean lits2017?" in caplog.text


def test_a_folder_with_the_name_of_a_data_set_is_taken_and_said(tmp_path, save_nifti, make_volume, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    save_nifti(tmp_path / "msd" / "a.nii", make_volume())
    assert run(parse("msd", "--out", "out")) == 0
    assert "msd is a folder here and is taken" in caplog.text
    assert len(read_manifest(tmp_path / "out")) == 1
    assert run(parse("msd", tmp_path / "msd", "--out", "out2")) == 1  # with a folder it is the data set
    assert "msd: " in caplog.records[-1].getMessage()
    (tmp_path / "other").mkdir()
    assert run(parse("other", "msd", "--out", "out3")) == 1
    assert "'other' is no data set, but a file or folder here, and then msd is one path too many" in caplog.text


def test_a_table_and_a_medmnist_file_are_prepared_by_their_suffix(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "a.nii", make_volume())
    (tmp_path / "scans.csv").write_text("path,modality,split\na.nii,CT,val\n")
    assert run(parse(tmp_path / "scans.csv", "--out", tmp_path / "one")) == 0
    (entry,) = read_manifest(tmp_path / "one").entries
    assert (entry.split, entry.modality) == ("val", "CT")
    images = np.random.default_rng(0).integers(0, 255, (3, 6, 7)).astype(np.uint8)
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=np.array([[0], [1], [0]], np.uint8))
    assert run(parse(tmp_path / "m.npz", "--out", tmp_path / "two")) == 0
    assert [entry.label for entry in read_manifest(tmp_path / "two").entries] == [0, 1, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to prepare and where to"),
        (["in"], "say what to prepare and where to"),
        (["no/where", "--out", "out"], "no/where: does not exist. Next: check the path"),
        (["file.txt", "--out", "out"], "file.txt: is neither a folder, nor a .csv, nor a MedMNIST .npz"),
        (["in", "--out", "out", "--spacing", "1", "2"], "--spacing has 2 numbers, expected one, or three"),
        (["in", "--out", "out", "--spacing", "-1"], "expected millimetres above 0"),
        (["in", "--out", "out", "--jobs", "0"], "jobs is 0 and timeout 900.0 s, expected at least 1"),
        (["in", "--out", "in"], "in: prepared data cannot go where the scans lie"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(tmp_path, save_nifti, make_volume, monkeypatch, caplog, words, message):
    monkeypatch.chdir(tmp_path)
    save_nifti(tmp_path / "in" / "a.nii", make_volume())
    (tmp_path / "file.txt").touch()
    assert run(parse(*words)) == 1
    assert message in caplog.text


def test_the_list_has_a_line_for_every_data_set(capsys):
    assert run(parse("--list")) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "contents", "modality", "labels", "home"]
    assert [line.split()[0] for line in lines] == list(all_data_sets())
    for line, data_set in zip(lines, all_data_sets().values(), strict=True):
        assert line.endswith(data_set.home)
