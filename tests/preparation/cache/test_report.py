from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl.preparation.cache.report import without_names
from vissl_jointssl.preparation.recipe import Source


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lies 3 mm away from its scan", "lies 3 mm away from its scan"),
        ("DOE_JANE/ct.nii is not ct.nii", "(file) is not (file)"),
        ("see /data/DOE_JANE/ct.nii, of DOE_JANE", "see (file), of (file)"),
        ("not on the grid of DOE_JANE/t2.nii", "not on the grid of (file)"),
        ("a label of seg.nii: (3, 4)", "a label of (file): (3, 4)"),
        ("direct.nii stays, act.nii too", "direct.nii stays, act.nii too"),
    ],
)
def test_words_of_a_report_name_no_file(text, wanted):
    source = Source("a", "DOE_JANE/ct.nii", "p", channel_paths=("DOE_JANE/t2.nii",), label_path="DOE_JANE/seg.nii")
    assert without_names(text, source, Path("/data")) == wanted


def test_slices_of_a_folder_are_not_named_either(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "DOE\nJANE 1.dcm").touch()
    source = Source("a", "series", "p")
    assert without_names(r"DOE\nJANE 1.dcm has no position", source, tmp_path) == "(file) has no position"
