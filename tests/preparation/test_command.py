from __future__ import annotations

import argparse
import logging

import pytest

from vissl_jointssl.manifest import read_manifest
from vissl_jointssl.preparation.command import add_arguments, run


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_prepares_with_its_options(tmp_path, save_nifti, make_volume, caplog):
    caplog.set_level(logging.INFO)
    save_nifti(tmp_path / "in" / "a.nii", make_volume((8, 10, 12)))
    words = ("--out", str(tmp_path / "out"), "--spacing", "2", "--slice-axis", "sagittal", "--modality", "ct")
    assert run(parse(str(tmp_path / "in"), *words)) == 0
    (entry,) = read_manifest(tmp_path / "out").entries
    assert (entry.shape, entry.spacing, entry.modality) == ((4, 6, 5), (2.0, 2.0, 2.0), "CT")
    assert "1 rows in" in caplog.text


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
