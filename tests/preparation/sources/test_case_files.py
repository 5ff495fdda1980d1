from __future__ import annotations

import re
from pathlib import Path

import pytest

from vissl_jointssl.preparation.data_set import WrongFolder
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.sources.case_files import by_case, check_pairs, find_any, look_for, refuse


def test_files_of_all_patterns_are_found_once_and_hidden_ones_never(tmp_path):
    for name in ("b/x.nii", "a/x.nii", "a/._x.nii", "x.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert look_for(tmp_path, ["*/*.nii", "a/*.nii", "*.nii"]) == [
        tmp_path / name for name in ("a/x.nii", "b/x.nii", "x.nii")
    ]
    assert look_for(tmp_path, ["*.mhd"]) == []


def test_nothing_found_names_every_pattern_and_what_is_there(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(WrongFolder, match=r"not found below it: a/\*\.nii, b/\*\.nii\. Found there: holiday\.jpg"):
        find_any(tmp_path, ["a/*.nii", "b/*.nii"])


def test_the_case_is_the_group_of_a_whole_name():
    paths = [Path("a/volume-1.nii"), Path("a/volume-10.nii.gz")]
    assert by_case(paths, r"volume-(\d+)\.nii(?:\.gz)?") == {"1": paths[0], "10": paths[1]}
    with pytest.raises(PreparationError, match=r"a/test-volume-1\.nii: the name is none that the data set has"):
        by_case([Path("a/test-volume-1.nii")], r"volume-(\d+)\.nii")
    with pytest.raises(PreparationError, match=r"volume-1\.nii\.part: the name"):
        by_case([Path("volume-1.nii.part")], r"volume-(\d+)\.nii")


def test_a_case_that_is_there_twice_is_refused_with_both_paths():
    with pytest.raises(PreparationError, match=r"b/volume-1\.nii\.gz: the same case as a/volume-1\.nii$"):
        by_case([Path("a/volume-1.nii"), Path("b/volume-1.nii.gz")], r"volume-(\d+)\.nii(?:\.gz)?")


def test_what_has_no_partner_is_named_on_both_sides():
    images, labels = {"1": Path("i1"), "2": Path("i2")}, {"2": Path("l2"), "3": Path("l3")}
    check_pairs({"2": images["2"]}, {"2": labels["2"]})
    with pytest.raises(PreparationError) as caught:
        check_pairs(images, labels)
    assert str(caught.value).splitlines()[1:] == ["  - i1: no label belongs to it", "  - l3: no image belongs to it"]


def test_many_faults_are_counted_and_a_strange_name_stays_in_its_line():
    with pytest.raises(PreparationError) as caught:
        by_case([Path(f"odd\n{number}") for number in range(30)], "(x)")
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 12 + 1
    assert lines[0].startswith("the folder is not as the data set's home ships it (30 found)")
    assert re.fullmatch(r"  - odd\\n0: the name is none .*", lines[1])
    assert lines[-1] == "  - and 18 more"
    refuse([], "nothing to do")
