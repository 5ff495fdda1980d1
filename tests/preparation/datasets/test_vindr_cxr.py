from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.data_set import WrongFolder
from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.vindr_cxr import LABEL_NAMES, vindr_cxr, vindr_cxr_official
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

# Image ids are 32 hex digits.
HEART, TWO, NOTHING, TEST = (f"{number:032x}" for number in (0x50A418, 0x21A102, 0x9A5094, 0x3CD4))
TRAIN_ROWS = [  # image, reader, class, box
    (HEART, "R10", "Cardiomegaly", (100, 200, 200, 300)),
    (HEART, "R8", "Cardiomegaly", (120, 200, 220, 300)),
    (HEART, "R9", "No finding", None),
    (TWO, "R8", "Nodule/Mass", (10.5, 20, 30, 40)),
    (TWO, "R8", "Rib fracture", (10, 20, 30, 40)),
    (TWO, "R9", "Nodule/Mass", (300, 20, 330, 40)),
    (TWO, "R10", "Other lesion", (50, 60, 70, 80)),
    *((NOTHING, reader, "No finding", None) for reader in ("R1", "R2", "R3")),
]
TEST_ROWS = [(TEST, "Cardiomegaly", (100, 200, 200, 300)), (TEST, "Cardiomegaly", (120, 200, 220, 300))]


def numbers(box: tuple[float, ...] | None) -> str:
    return ",,," if box is None else ",".join(map(str, box))


def fake_physionet(root: Path, draw: Callable[[Path], object]) -> Path:
    """The credentialed release: tables below `annotations/`, test boxes agreed upon and thus without readers."""
    (root / "annotations").mkdir(parents=True)
    train = [f"{image},{reader},{name},{numbers(box)}" for image, reader, name, box in TRAIN_ROWS]
    test = [f"{image},{name},{numbers(box)}" for image, name, box in TEST_ROWS]
    columns = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    (root / "annotations/annotations_train.csv").write_text("\n".join([columns, *train]))
    (root / "annotations/annotations_test.csv").write_text("\n".join([columns.replace("rad_id,", ""), *test]))
    (root / "annotations/image_labels_train.csv").write_text("image_id,rad_id,Aortic enlargement\n")
    return fake_images(root, draw)


def fake_kaggle(root: Path, draw: Callable[[Path], object]) -> Path:
    """The competition: `train.csv` with numbers of classes, and 14 of them, so that a fracture is another lesion."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for image, reader, name, box in TRAIN_ROWS:
        lines.append(f"{image},{name.replace('Rib fracture', 'Other lesion')},0,{reader},{numbers(box)}")
    (root / "train.csv").write_text("\n".join(lines))
    (root / "sample_submission.csv").write_text("image_id,PredictionString\n")
    return fake_images(root, draw)


def fake_images(root: Path, draw: Callable[[Path], object]) -> Path:
    for image in (HEART, TWO, NOTHING):
        (root / "train").mkdir(exist_ok=True)
        draw(root / f"train/{image}.dicom")
    (root / "test").mkdir()
    draw(root / f"test/{TEST}.dicom")
    return root


def draw_x_ray(path: Path) -> None:
    """1024 x 768 pixels of MONOCHROME1, bright (so stored low) where the heart of `TRAIN_ROWS` is on average."""
    values = np.full((1024, 768), 3000, np.uint16)
    values[200:300, 110:210] = 500
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = meta.MediaStorageSOPClassUID, "1.2.3.4", "DX"
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 1024, 768, 1, "MONOCHROME1"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = values.tobytes()
    file.save_as(path, enforce_file_format=True)


def test_the_classes_are_those_of_the_paper_in_its_order():
    assert ", ".join(LABEL_NAMES) == (
        "aortic enlargement, atelectasis, calcification, cardiomegaly, consolidation, ILD, infiltration, lung opacity, "
        "nodule/mass, pleural effusion, pleural thickening, pneumothorax, pulmonary fibrosis, other lesion"
    )


@pytest.mark.parametrize("release", [fake_physionet, fake_kaggle])
def test_the_papers_images_are_those_with_a_finding_and_their_boxes_are_averaged(tmp_path, release):
    recipe = vindr_cxr(release(tmp_path / "raw", Path.touch))
    recipe.check()
    heart, lesion, nodule = (LABEL_NAMES.index(name) for name in ("cardiomegaly", "other lesion", "nodule/mass"))
    assert {source.path: source.boxes for source in recipe.sources} == {
        f"train/{HEART}.dicom": (Box(heart, 110, 200, 210, 300),),
        f"train/{TWO}.dicom": (
            Box(nodule, 10.5, 20, 30, 40),
            Box(nodule, 300, 20, 330, 40),
            Box(lesion, 10, 20, 30, 40),
            Box(lesion, 50, 60, 70, 80),
        ),
    }
    assert {(source.kind, source.modality, source.split) for source in recipe.sources} == {("image", "XR", None)}
    assert (recipe.validation_share * 4394, recipe.test_share * 4394) == pytest.approx((440, 879))
    assert recipe.options.image_size == 512


def test_the_official_split_has_every_image_and_leaves_boxes_alone_that_were_agreed_upon(tmp_path, caplog):
    fake_physionet(tmp_path, Path.touch)
    recipe = data_set_recipe("vindr_cxr_official", tmp_path)
    recipe.check()
    assert "4 of the 18000 sources" in caplog.text
    assert {source.id: (source.split, len(source.boxes)) for source in recipe.sources} == {
        HEART: ("train", 1),
        TWO: ("train", 4),
        NOTHING: ("train", 0),
        TEST: ("test", 2),
    }


def test_the_folder_above_is_understood(tmp_path):
    fake_physionet(tmp_path / "wget/physionet.org/files/vindr-cxr/1.0.0", Path.touch)
    fake_kaggle(tmp_path / "up/vinbigdata", Path.touch)
    for above in ("wget", "up"):
        recipe = vindr_cxr(tmp_path / above)
        assert len(recipe.sources) == 2
        assert all((recipe.root / source.path).is_file() for source in recipe.sources)


def test_images_and_rows_without_one_another_are_named(tmp_path):
    fake_physionet(tmp_path, Path.touch)
    (tmp_path / f"train/{HEART}.dicom").rename(tmp_path / "train/another.dicom")
    with pytest.raises(PreparationError, match=r"2 found") as error:
        vindr_cxr(tmp_path)
    assert f"annotations_train.csv: names {HEART}, which is not there" in str(error.value)
    assert "another.dicom: annotations_train.csv lacks it" in str(error.value)


def test_two_tables_are_refused_for_they_may_differ(tmp_path):
    fake_physionet(tmp_path, Path.touch)
    (tmp_path / "train.csv").write_text("image_id\n")
    with pytest.raises(PreparationError, match=r"train.csv: the same case as"):
        vindr_cxr(tmp_path)


def test_a_wrong_folder_is_refused_with_what_was_looked_for_and_found(tmp_path):
    fake_kaggle(tmp_path, Path.touch)
    with pytest.raises(PreparationError, match=r"(?s)annotations_train.csv.*Found there: .*train.csv"):
        data_set_recipe("vindr_cxr_official", tmp_path)
    with pytest.raises(WrongFolder, match=r"annotations/annotations_train.csv, train.csv"):
        vindr_cxr(tmp_path / "train")


@pytest.mark.parametrize(("word", "count"), [(vindr_cxr, 2), (vindr_cxr_official, 4)])
def test_a_tiny_copy_is_prepared_and_boxes_shrink_with_their_images(tmp_path, word, count):
    recipe = word(fake_physionet(tmp_path / "raw", draw_x_ray))
    manifest = prepare(recipe, tmp_path / "out")
    assert len(manifest.entries) == count
    assert {entry.shape for entry in manifest.entries} == {(512, 384)}
    (entry,) = (entry for entry in manifest.entries if entry.id == HEART)
    (box,) = manifest.open_boxes(entry)
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((55, 100, 105, 150))
    image = np.asarray(manifest.open(entry)).astype(float)
    inside = np.zeros(image.shape, bool)
    inside[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
    assert image[inside].min() > image[~inside].max()  # the heart is bright, and the box is where it is
