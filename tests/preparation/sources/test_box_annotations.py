from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.sources.box_annotations import read_box_annotations, read_coco, read_voc

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: object) -> Path:
        content = {
            "info": {"year": 2026},
            "images": [
                {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
                {"id": 3, "file_name": "sub/b.png", "width": 64, "height": 48},
            ],
            "categories": [{"id": 9, "name": "mass"}, {"id": 2, "name": "nodule"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 2, 10, 20.5], "iscrowd": 0},
                {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 4, 4]},
            ],
        }
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps(content | changes))
        return path

    return write


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., Path]:
    def write(image: str, *objects: str, head: str = "", file: str | None = None) -> Path:
        folder = tmp_path / "voc"
        folder.mkdir(exist_ok=True)
        path = folder / (file or f"{Path(image).stem}.xml")
        path.write_text(f"{head}<annotation><filename>{image}</filename>{''.join(objects)}</annotation>")
        return path

    return write


def test_coco_boxes_become_edges_and_classes_count_from_0_in_the_order_of_their_ids(coco) -> None:
    found = read_box_annotations(coco())
    assert found.label_names == ("nodule", "mass")
    assert found.boxes == {"a.png": (Box(1, 1, 2, 11, 22.5), Box(0, 0, 0, 4, 4)), "sub/b.png": ()}


def test_coco_agrees_with_pycocotools(coco) -> None:
    from pycocotools.coco import COCO

    path = coco()
    theirs = COCO(str(path))
    found = read_coco(path)
    for image in theirs.loadImgs(theirs.getImgIds()):
        expected = {
            (theirs.loadCats(row["category_id"])[0]["name"], *map(float, row["bbox"]))
            for row in theirs.loadAnns(theirs.getAnnIds(image["id"]))
        }
        ours = {
            (found.label_names[box.label], box.left, box.top, box.right - box.left, box.bottom - box.top)
            for box in found.boxes[image["file_name"]]
        }
        assert ours == expected


def test_every_fault_of_a_coco_file_is_named_with_its_row_at_once(coco) -> None:
    rows = [
        {"image_id": 99, "category_id": 9, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 0, 1]},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 1]},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 10**400]},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        {"image_id": "7", "category_id": [9], "bbox": [0, 0, 1, 1]},
    ]
    images = [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "c.png"}, {"id": 8, "file_name": "a.png"}, {}]
    with pytest.raises(PreparationError, match=r"boxes.json: boxes cannot be read \(11 faults\)") as error:
        read_coco(coco(annotations=rows, images=images))
    for fault in (
        "annotations[0]: image_id 99 does not exist",
        "annotations[1]: category_id 5 does not exist",
        "annotations[2]: bbox is [0, 0, 0, 1], expected left, top, and a width and height above 0",
        "annotations[3]: bbox is [0, 0, 1]",
        "annotations[4]: bbox is [0, 0, 1, 10000",
        "annotations[5]: is a region of many objects (iscrowd)",
        "annotations[6]: image_id '7' does not exist",
        "annotations[6]: category_id [9] does not exist",
        "images[1]: the id 7 occurs twice",
        "images: two have the file_name 'a.png'",
        "images[3]: has no whole number as id, or no file_name",
    ):
        assert fault in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"images": [], "categories": [], "annotations": NaN}', "is no JSON .it holds NaN"),
        ("[1]", "is no COCO file"),
        ('{"images": [], "categories": []}', "is no COCO file"),
        ('{"images": [1], "categories": [], "annotations": []}', "is no COCO file"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(PreparationError, match=said):
        read_coco(tmp_path / "x.json")


def test_voc_pixels_count_from_1_and_both_ends_belong_to_the_box(voc) -> None:
    voc("b.png", OBJECT.format("nodule", 1, 1, 64, 48), OBJECT.format("mass", 5, 6, 5, 6))
    path = voc("a.png")
    found = read_box_annotations(path.parent)
    assert found.label_names == ("mass", "nodule")
    assert found.boxes == {"a.png": (), "b.png": (Box(1, 0, 0, 64, 48), Box(0, 4, 5, 5, 6))}


def test_voc_edges_that_count_from_0_and_given_classes_are_taken_as_they_are(voc) -> None:
    path = voc("b.png", OBJECT.format("nodule", 0, 0.5, 64, 48))
    assert read_voc([path], 0, ("x", "nodule")).boxes == {"b.png": (Box(1, 0, 0.5, 64, 48),)}
    assert read_box_annotations(path, first_pixel=0).label_names == ("nodule",)
    with pytest.raises(PreparationError, match="first_pixel is 2, expected 1, or 0"):
        read_voc([path], 2)


def test_every_fault_of_every_voc_file_is_named_at_once(voc, tmp_path: Path) -> None:
    voc(
        "a.png",
        OBJECT.format("mas", 1, 1, 2, 2),
        OBJECT.format("mass", 3, 3, 2, 2),
        OBJECT.format("mass", "x", 1, 2, 2),
    )
    voc("a.png", file="again.xml")
    (tmp_path / "voc" / "torn.xml").write_text("<annotation><filename>")
    (tmp_path / "voc" / "other.xml").write_text("<svg/>")
    with pytest.raises(PreparationError, match=r"\(6 faults\)") as error:
        read_voc(sorted((tmp_path / "voc").iterdir()), label_names=("mass",))
    for fault in (
        "a.xml: object 1 has the class 'mas', which is not known; did you mean mass?",
        "a.xml: object 2 has a bndbox that is empty or no numbers",
        "a.xml: object 3 has a bndbox that is empty or no numbers",
        "again.xml: another file is of 'a.png' as well",
        "torn.xml: is no XML",
        "other.xml: is no VOC file",
    ):
        assert fault in str(error.value)


@pytest.mark.parametrize(
    "declared",
    [
        "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)),
        '<!ENTITY secret SYSTEM "file:///etc/hostname">',
        "",
    ],
)
def test_a_voc_file_that_declares_entities_is_refused_before_any_is_expanded(voc, declared: str) -> None:
    head = f'<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY l0 "lol">{declared}]>'
    path = voc("a.png", "<object><name>&l9;</name></object>", head=head)
    with pytest.raises(PreparationError, match="declares a document type"):
        read_voc([path])


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=r"boxes are read from .json \(COCO\) and .xml \(VOC\)"):
        read_box_annotations(tmp_path / "boxes.txt")
    with pytest.raises(PreparationError, match="is no file"):
        read_box_annotations(tmp_path / "boxes.json")
    with pytest.raises(PreparationError, match=r"holds no .xml"):
        read_box_annotations(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'"\xff"')
    with pytest.raises(PreparationError, match="is no JSON"):
        read_coco(tmp_path / "latin.json")
