from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.sources.csv_recipe import csv_recipe
from vissl_jointssl.preparation.splitting import hash_patient


@pytest.fixture
def data(tmp_path) -> Path:
    """Two volumes, two images, label maps and a series' folder, with a file outside of them."""
    for name in ("a.nii.gz", "jane/b.nii.gz", "b_seg.nii.gz", "c1.nii", "c2.nii", "x.png", "y.png", "notes.txt"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "data" / "series").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.nii").touch()
    return tmp_path / "data"


@pytest.fixture
def table(data) -> Callable[..., Path]:
    def write(*lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
        (data / "scans.csv").write_bytes(end.join([*lines, ""]).encode(encoding))
        return data / "scans.csv"

    return write


def test_every_column_reaches_its_source(table, data):
    recipe = csv_recipe(
        table(
            "id,path,patient,kind,modality,split,label_path,label,channel_paths",
            "first,a.nii.gz,Jane Doe,volume,ct,test,b_seg.nii.gz,sick,c1.nii; c2.nii",
            ",jane/b.nii.gz,Joe,,,,,,",
            ",x.png,Jane Doe,,XR,test,,well,",
        )
    )
    recipe.check()
    first, second, third = recipe.sources
    assert (recipe.root, recipe.name, recipe.label_names) == (data, "scans", ("sick", "well"))
    assert (first.id, first.path, first.kind, first.modality, first.split) == (
        "first",
        "a.nii.gz",
        "volume",
        "CT",
        "test",
    )
    assert (first.label_path, first.label, first.channel_paths) == ("b_seg.nii.gz", 0, ("c1.nii", "c2.nii"))
    assert (second.kind, second.modality, second.split, second.label) == ("volume", None, None, None)
    assert (second.label_path, second.channel_paths) == (None, ())
    assert (third.kind, third.modality, third.label) == ("image", "XR", 1)
    assert [source.patient for source in recipe.sources] == [
        hash_patient(name) for name in ("Jane Doe", "Joe", "Jane Doe")
    ]
    assert second.id == hash_patient("jane/b.nii.gz")


def test_a_column_of_paths_is_enough(table):
    recipe = csv_recipe(table("path", "a.nii.gz", "jane/b.nii.gz", "x.png", "series"))
    recipe.check()
    assert [source.kind for source in recipe.sources] == ["volume", "volume", "image", "volume"]
    assert [source.patient for source in recipe.sources] == [
        hash_patient(name) for name in ("a", "jane", "x", "series")
    ]
    assert recipe.label_names == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(table, delimiter, encoding, end):
    rows = [
        ["Path ", "Patient", "label"],
        ["a.nii.gz", '"Doe, Jane; ""J"""', "é"],
        ["", "", ""],
        [" x.png", "Joe", "e"],
    ]
    text = [delimiter.join(row) for row in rows]
    recipe = csv_recipe(table(*text[:2], "", *text[2:], encoding=encoding, end=end))
    assert [source.path for source in recipe.sources] == ["a.nii.gz", "x.png"]
    assert recipe.sources[0].patient == hash_patient('Doe, Jane; "J"')
    assert recipe.label_names == ("e", "é")


@pytest.mark.parametrize(
    ("cells", "labels", "names"),
    [
        (("2", "0"), [2, 0], ("0", "1", "2")),
        (("1.0", ""), [1, None], ("0", "1")),
        (("b", "a"), [1, 0], ("a", "b")),
        (("1", "unsure"), [0, 1], ("1", "unsure")),
    ],
)
def test_labels_are_numbers_where_all_are_and_names_else(table, cells, labels, names):
    recipe = csv_recipe(table("path,label", f"a.nii.gz,{cells[0]}", f"x.png,{cells[1]}"))
    assert [source.label for source in recipe.sources] == labels
    assert recipe.label_names == names


def test_numbers_of_classes_by_name_are_said(table, caplog):
    caplog.set_level(logging.INFO)
    csv_recipe(table("path,label,Hospital", "a.nii.gz,sick,A", "x.png,fit,B"))
    assert "classes: 0 fit, 1 sick" in caplog.text
    assert "columns that are not used: hospital" in caplog.text


def test_paths_may_be_absolute_or_lead_out_of_the_folder_where_patients_are_given(table, data):
    outside = data.parent / "elsewhere" / "z.nii"
    recipe = csv_recipe(table("path,patient,label_path", f"{outside},p,../data/b_seg.nii.gz", f"{data}/a.nii.gz,q,"))
    recipe.check()
    assert recipe.root == data.parent
    assert [source.path for source in recipe.sources] == ["elsewhere/z.nii", "data/a.nii.gz"]
    assert recipe.sources[0].label_path == "data/b_seg.nii.gz"
    assert all((recipe.root / source.path).is_file() for source in recipe.sources)
    (alone,) = csv_recipe(table("path,patient", "a.nii.gz,q")).sources
    assert alone.id == recipe.sources[1].id
    with pytest.raises(PreparationError, match=r"row 2: the scan lies outside the CSV's folder.* add a column patient"):
        csv_recipe(table("path", "../elsewhere/z.nii"))


def test_every_fault_comes_at_once_with_its_row(table):
    path = table(
        "path,kind,split,label,modality,id,channel_paths",
        "none.nii,,,,,,",
        "",
        "a.nii.gz,imag,tran,-1,M R,../up,c9.nii",
        "x.png,,valid,0,,same,",
        "y.png,,,1,,same,",
        "notes.txt,,,,,,",
        ",,,1,,,",
        "a.nii.gz,volume",
        "x.png,,,,,other,c1.nii",
    )
    with pytest.raises(PreparationError) as error:
        csv_recipe(path)
    assert str(error.value).splitlines() == [
        f"{path} cannot be prepared:",
        "  - row 9 has 2 cells, the header has 7",
        "  - row 4: label is -1, expected a class from 0 to 65535",
        "  - row 2: path 'none.nii' does not exist",
        "  - row 4: channel_paths 'c9.nii' does not exist",
        "  - row 4: kind is 'imag', expected one of volume, image; did you mean image?",
        "  - row 4: split is 'tran', expected one of train, val, test; did you mean train?",
        "  - row 4: modality is 'M R', expected a word such as CT, MR or XR",
        "  - row 4: id '../up' cannot name a file: use letters, digits, - and _",
        "  - row 5: split is 'valid', expected one of train, val, test; did you mean val?",
        "  - row 7: path 'notes.txt' is of an unknown kind; a column kind may say volume or image",
        "  - row 8: path is empty",
        "  - row 10: channel_paths is given for an image, only volumes have further channels",
        "  - rows 5, 6 have the same id",
    ]


def test_one_patient_in_two_splits_is_refused_without_a_name(table):
    path = table("path,patient,split", "a.nii.gz,Jane Doe,train", "x.png,Jane Doe,test", "y.png,Jane Doe,")
    with pytest.raises(PreparationError, match="rows 2 and 3: one patient in the splits train and test") as error:
        csv_recipe(path)
    assert "rows 2 and 4: one patient in the splits train and none" in str(error.value)
    assert "Jane" not in str(error.value)


def test_a_path_given_twice_needs_ids(table):
    with pytest.raises(PreparationError, match="rows 2, 3 have the same path; give each an id of its own"):
        csv_recipe(table("path,id", "a.nii.gz,", "./a.nii.gz,b"))
    assert len(csv_recipe(table("path,id", "a.nii.gz,a", "./a.nii.gz,b")).sources) == 2


def test_a_patient_is_said_in_every_row_or_in_none(table):
    with pytest.raises(PreparationError, match="row 3: patient is empty"):
        csv_recipe(table("path,patient", "a.nii.gz,p", "x.png,"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,label", "column 'path' is missing.*the columns are path, id, patient"),
        ("paths,label", "column 'path' is missing; did you mean paths"),
        ("path,lable", "column 'lable' is not known; did you mean label"),
        ("path,patient_id", "column 'patient_id' is not known; did you mean patient"),
        ("path,label,label", "column 'label' occurs 2 times"),
        ("path,label", "there is no row below the header"),
        ("", "holds no header"),
        ('path,"label', "is no CSV"),
    ],
)
def test_faults_of_the_header_name_the_nearest_column(table, header, message):
    with pytest.raises(PreparationError, match=message):
        csv_recipe(table(header))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no header"),
        (b"path\n\xff\xfe\xfa", "is not text in UTF-8"),
        (b"path\na\0b\n", "does not exist|no CSV"),
    ],
)
def test_what_is_no_table_is_refused(data, content, message):
    (data / "scans.csv").write_bytes(content)
    with pytest.raises(PreparationError, match=message):
        csv_recipe(data / "scans.csv")


def test_a_missing_table_and_a_folder_are_refused(data):
    with pytest.raises(PreparationError, match=r"none.csv: cannot be read \(No such file"):
        csv_recipe(data / "none.csv")
    with pytest.raises(PreparationError, match="cannot be read"):
        csv_recipe(data)


def test_headers_of_files_tell_their_kind(table, data):
    np.save(data / "flat.npy", np.zeros((4, 4), np.uint8))
    np.savez(data / "set.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    Image.new("L", (4, 4)).save(data / "x.tif")
    assert [source.kind for source in csv_recipe(table("path", "flat.npy", "x.tif")).sources] == ["image", "image"]
    with pytest.raises(PreparationError, match=r"path 'set\.npz' is a MedMNIST file, which is prepared by itself"):
        csv_recipe(table("path", "set.npz"))


def test_messages_keep_to_one_line_each_and_to_fifty(table, data):
    lines = [f'"no\n{number}.nii"' for number in range(60)]
    with pytest.raises(PreparationError, match="and 10 more") as error:
        csv_recipe(table("path", *lines))
    assert len(str(error.value).splitlines()) == 52
