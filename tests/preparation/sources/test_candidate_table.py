from __future__ import annotations

import pytest

from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.recipe import Patch
from vissl_jointssl.preparation.sources.candidate_table import read_candidates

HEADER = "seriesuid,coordX,coordY,coordZ,class\n"


def test_left_and_back_become_right_and_front_and_lines_keep_their_order(tmp_path):
    path = tmp_path / "candidates_V2.csv"
    path.write_text(HEADER + "1.2,10.5,-20,30,1\n1.3,0,0,-7.25,0\n1.2,-1,2,3,0\n")
    assert read_candidates(path) == {
        "1.2": (Patch((-10.5, 20.0, 30.0), 1), Patch((1.0, -2.0, 3.0), 0)),
        "1.3": (Patch((0.0, 0.0, -7.25), 0),),
    }


@pytest.mark.parametrize("text", ["", "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,1,2,3,4\n", "\x00\xff"])
def test_another_table_is_refused_with_the_columns(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(PreparationError, match=r"t\.csv: the columns are not seriesuid, coordX.*Next: get the file"):
        read_candidates(path)


@pytest.mark.parametrize("line", ["1.2,1,2", "1.2,1,two,3,0", "1.2,1,2,3,2", "1.2,1,2,3,0,5"])
def test_a_broken_line_is_refused_with_its_number_and_without_its_text(tmp_path, line):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "1.2,1,2,3,0\n" + line + "\n")
    with pytest.raises(PreparationError, match=r"t\.csv: line 3 is not a scan, three coordinates") as caught:
        read_candidates(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_full_table_is_read_in_seconds(tmp_path):
    import time

    path = tmp_path / "t.csv"
    path.write_text(HEADER + "1.3.6.1.4.1.14519.5.2.1,1.5,2.5,-3.5,0\n" * 50_000)
    start = time.perf_counter()
    (patches,) = read_candidates(path).values()
    assert len(patches) == 50_000
    assert time.perf_counter() - start < 2  # 755,000 lines in half a minute on a slow machine, 2 s on most
