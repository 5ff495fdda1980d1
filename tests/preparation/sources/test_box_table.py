from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.sources.box_table import read_box_table

LABELS = {"cardiomegaly": 0, "ild": 1}
READERS = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
AGREED = "image_id,class_name,x_min,y_min,x_max,y_max"


@pytest.fixture
def table(tmp_path):
    def write(*lines: str) -> Path:
        (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "boxes.csv"

    return write


def test_boxes_of_several_readers_are_averaged_and_those_agreed_upon_stay(table):
    rows = ["a,{}Cardiomegaly,0,0,30,30", "a,{}Cardiomegaly,10,0,40,30", "a,{}ILD,0,0,30,30", "b,{}ILD,1.5,2,3,4"]
    path = table(READERS, *(row.format(f"R{number},") for number, row in enumerate(rows)))
    assert read_box_table(path, LABELS) == {
        "a": (Box(0, 5, 0, 35, 30), Box(1, 0, 0, 30, 30)),
        "b": (Box(1, 1.5, 2, 3, 4),),
    }
    path = table(AGREED, *(row.format("") for row in rows))
    assert read_box_table(path, LABELS)["a"] == (Box(0, 0, 0, 30, 30), Box(0, 10, 0, 40, 30), Box(1, 0, 0, 30, 30))


def test_an_image_where_nobody_found_anything_is_there_without_boxes(table):
    path = table(READERS, "a,R1,No finding,,,,", "a,R2,No finding,,,,", "b,R1,No finding,,,,", "b,R2,ILD,0,0,3,4")
    assert read_box_table(path, LABELS) == {"a": (), "b": (Box(1, 0, 0, 3, 4),)}


def test_columns_may_stand_in_any_order_behind_a_byte_order_mark(table):
    path = table("\ufeffimage_id,y_max,class_id,x_max,y_min,x_min,class_name", "a,4,5,3,2,1,ILD")
    assert read_box_table(path, LABELS) == {"a": (Box(1, 1, 2, 3, 4),)}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a,Fracture,0,0,3,4", "line 3 names no image, or a class that is not known"),
        (",ILD,0,0,3,4", "line 3 names no image"),
        ("a,ILD,3,0,3,4", "line 3 has a box that is empty or no number"),
        ("a,ILD,0,5,3,4", "line 3 has a box that is empty"),
        ("a,ILD,,,,", "line 3 has a box that is empty or no number"),
        ("a,ILD,0,0,nan,4", "line 3 has a box that is empty or no number"),
        ("a,ILD,0,0,inf,4", "line 3 has a box that is empty or no number"),
        ("a,ILD,0,0", "line 3 has a box that is empty or no number"),
    ],
)
def test_a_line_that_is_no_box_is_told_by_its_number(table, line, fault):
    path = table(AGREED, "a,ILD,0,0,3,4", line)
    with pytest.raises(PreparationError, match=fault):
        read_box_table(path, LABELS)


def test_every_faulty_line_is_told(table):
    path = table(AGREED, *["a,ILD,3,0,3,4"] * 20)
    with pytest.raises(PreparationError, match=r"(?s)20 found.*line 2 .*line 13 .*and 8 more"):
        read_box_table(path, LABELS)


def test_missing_columns_are_named(table):
    with pytest.raises(PreparationError, match=r"boxes.csv: has no column x_min, y_max"):
        read_box_table(table("image_id,class_name,y_min,x_max", "a,ILD,1,2"), LABELS)
    with pytest.raises(PreparationError, match=r"has no column image_id, class_name"):
        read_box_table(table(""), LABELS)
