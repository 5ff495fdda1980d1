from __future__ import annotations

import re
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.doctor import loading
from vissl_jointssl.preparation.doctor.duplicates import duplicate_diagnoses
from vissl_jointssl.preparation.errors import CODES as READING_CODES
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.recipe import Options, Patch


@pytest.fixture
def ct(tmp_path, save_nifti, make_ct):
    save_nifti(tmp_path / "ct.nii.gz", make_ct(), np.diag([1.0, 1, 3, 1]))
    return make_ct()


def test_a_sound_ct_has_no_fault_and_its_facts_are_the_files(ct, examined, source):
    look = examined(source("ct.nii.gz"))
    assert look.diagnoses == ()
    (facts,) = look.facts
    assert facts.modality == "CT"
    assert facts.shape == (12, 20, 24)
    assert facts.spacing == pytest.approx((3, 1, 1))
    assert (facts.values.low, facts.values.high) == (ct.min(), ct.max())
    assert facts.label_numbers is None


def test_a_sound_mr_with_labels_has_no_fault(tmp_path, save_nifti, make_mr, examined, source):
    save_nifti(tmp_path / "mr.nii", make_mr())
    labels = (make_mr() > 300).astype(np.uint8) * 2
    save_nifti(tmp_path / "labels.nii", labels)
    look = examined(source("mr.nii", label_path="labels.nii"), classes=2)
    assert look.diagnoses == ()
    assert look.facts[0].label_numbers == (2,)


def test_label_groups_are_applied_before_labels_are_judged(tmp_path, save_nifti, make_mr, examined, source, codes):
    save_nifti(tmp_path / "mr.nii", make_mr())
    save_nifti(tmp_path / "labels.nii", (make_mr() > 300).astype(np.uint8) * 90)
    known = source("mr.nii", label_path="labels.nii", label_groups={90: 1})
    assert examined(known, classes=2).facts[0].label_numbers == (1,)
    unknown = source("mr.nii", label_path="labels.nii", label_groups={5: 1})
    assert codes(examined(unknown, classes=2).diagnoses) == [("label_empty", "warning")]


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"rubbish" * 100), "unreadable"),
    ],
)
def test_what_the_reader_refuses_is_an_error_with_its_code(tmp_path, examined, source, codes, write, code):
    write(tmp_path / "a.nii")
    look = examined(source("a.nii"))
    assert codes(look.diagnoses) == [(code, "error")]
    assert look.diagnoses[0].path == "a.nii"
    assert look.facts == ()


def test_a_volume_of_nan_or_of_one_value_is_an_error(tmp_path, save_nifti, make_mr, examined, source, codes):
    array = make_mr().astype(np.float32)
    array[3, 3, 3] = np.nan
    save_nifti(tmp_path / "nan.nii", array)
    save_nifti(tmp_path / "flat.nii", np.full((20, 20, 20), 4, np.int16))
    assert codes(examined(source("nan.nii")).diagnoses) == [("not_finite", "error")]
    assert codes(examined(source("flat.nii")).diagnoses) == [("constant", "error")]


@pytest.mark.parametrize(
    ("zooms", "shape", "expected"),
    [
        ((1000, 1000, 3000), (24, 20, 12), [("spacing", "error")]),
        ((0.05, 0.05, 1), (24, 20, 12), [("spacing", "warning")]),
        ((1, 1, 3), (24, 20, 6), [("dimensions", "warning")]),
    ],
)
def test_a_strange_grid_is_found(tmp_path, save_nifti, make_mr, examined, source, codes, zooms, shape, expected):
    save_nifti(tmp_path / "mr.nii", make_mr(shape), np.diag([*zooms, 1.0]))
    assert codes(examined(source("mr.nii")).diagnoses) == expected


def test_a_ct_in_other_units_is_found_by_what_the_recipe_says(tmp_path, save_nifti, make_ct, examined, source, codes):
    save_nifti(tmp_path / "ct.nii", (make_ct((40, 40, 20)).clip(-1000) + 1024).astype(np.int16))
    assert codes(examined(source("ct.nii", modality="CT")).diagnoses) == [("intensity", "error")]
    assert codes(examined(source("ct.nii")).diagnoses) == [("intensity", "warning")]


def test_a_label_map_taken_for_a_scan_is_found(tmp_path, save_nifti, make_mr, examined, source, codes):
    save_nifti(tmp_path / "seg.nii", (make_mr() // 200).astype(np.uint8))
    assert codes(examined(source("seg.nii")).diagnoses) == [("few_values", "warning")]


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        (lambda labels: labels[:-1], "label_grid", "error"),
        (lambda labels: labels * 0, "label_empty", "warning"),
        (lambda labels: labels * 0.3, "label_values", "error"),
        (lambda labels: labels * 9, "label_values", "warning"),
    ],
)
def test_a_faulty_label_map_is_found_and_its_scan_is_known_all_the_same(
    tmp_path, save_nifti, make_mr, examined, source, codes, change, code, severity
):
    save_nifti(tmp_path / "mr.nii", make_mr())
    save_nifti(tmp_path / "labels.nii", change((make_mr() > 300).astype(np.float32)))
    look = examined(source("mr.nii", label_path="labels.nii"), classes=3)
    assert codes(look.diagnoses) == [(code, severity)]
    assert look.diagnoses[0].path == "labels.nii"
    assert len(look.facts) == 1


def test_a_series_of_volumes_says_what_is_taken_and_only_that_is_judged(
    tmp_path, save_nifti, make_mr, examined, source
):
    series = np.stack([make_mr(), np.where(make_mr() > 590, 1, 0)], axis=-1).astype(np.int16)
    save_nifti(tmp_path / "4d.nii", series)
    (found,) = examined(source("4d.nii")).diagnoses
    assert (found.code, found.severity) == ("dimensions", "warning")
    assert "a series of 2 volumes" in found.reason
    found = examined(source("4d.nii"), Options(fourth_axis="channels"))
    assert [one.reason.partition(":")[0] for one in found.diagnoses] == ["channel 1"]
    assert found.facts[0].channels == 2


def test_channels_in_files_of_their_own_are_all_judged(tmp_path, save_nifti, make_mr, examined, source):
    save_nifti(tmp_path / "t1.nii", make_mr())
    save_nifti(tmp_path / "t2.nii", np.where(make_mr() > 590, 1, 0).astype(np.int16))
    look = examined(source("t1.nii", channel_paths=("t2.nii",)))
    assert [one.reason.partition(":")[0] for one in look.diagnoses] == ["channel 1"]
    assert look.facts[0].channels == 2


def test_a_patch_outside_its_scan_is_found(ct, examined, source, codes):
    inside, outside = Patch((5.0, 5.0, 9.0), 0), Patch((5.0, 5.0, 900.0), 1)
    options = Options(patch_size=(4, 4, 4))
    assert examined(source("ct.nii.gz", patches=(inside,)), options).diagnoses == ()
    look = examined(source("ct.nii.gz", patches=(inside, outside)), options)
    assert codes(look.diagnoses) == [("geometry", "error")]
    assert "1 of its 2 patches" in look.diagnoses[0].reason


# --- DICOM


def slices(make_ct):
    return make_ct((20, 24, 12)).transpose(2, 1, 0)  # (k, j, i)


def test_a_sound_dicom_series_has_no_fault(tmp_path, save_dicom, make_ct, examined, source):
    save_dicom(tmp_path / "series", slices(make_ct))
    look = examined(source("series"))
    assert look.diagnoses == ()
    assert look.facts[0].modality == "CT"


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([2.0 * n for n in range(13) if n != 5], {"missing_slices"}),
        ([2.0 * n for n in range(11)] + [8.0], {"duplicate_slices"}),
        ([2.0 * n for n in range(13) if n not in (5, 12)] + [8.0], {"missing_slices", "duplicate_slices"}),
    ],
)
def test_every_fault_of_a_series_has_its_own_code(tmp_path, save_dicom, make_ct, examined, source, positions, expected):
    save_dicom(tmp_path / "series", slices(make_ct), positions=positions)
    found = examined(source("series")).diagnoses
    assert sorted(one.code for one in found) == sorted(expected)
    assert {one.severity for one in found} == {"error"}


def test_two_series_in_one_folder_are_found(tmp_path, save_dicom, make_ct, examined, source, codes):
    save_dicom(tmp_path / "series", slices(make_ct))
    save_dicom(tmp_path / "series", slices(make_ct), series="1.2.3.4.6")
    assert codes(examined(source("series")).diagnoses) == [("mixed_series", "error")]


def test_a_tilted_gantry_is_a_warning(tmp_path, save_dicom, make_ct, examined, source, codes):
    folder = save_dicom(tmp_path / "series", slices(make_ct))
    import pydicom

    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        height = float(header.ImagePositionPatient[2])
        header.ImagePositionPatient = [0, height * 0.3, height]
        header.save_as(path)
    look = examined(source("series"))
    assert codes(look.diagnoses) == [("gantry_tilt", "warning")]
    assert "16.7 degrees" in look.diagnoses[0].reason


def test_a_tilted_series_with_a_gap_is_refused_for_the_gap_alone(
    tmp_path, save_dicom, make_ct, examined, source, codes
):
    import pydicom

    heights = [2.0 * number for number in range(13) if number != 5]
    folder = save_dicom(tmp_path / "series", slices(make_ct), positions=heights)
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        height = float(header.ImagePositionPatient[2])
        header.ImagePositionPatient = [0, height * 0.3, height]
        header.save_as(path)
    assert codes(examined(source("series")).diagnoses) == [("missing_slices", "error")]


def test_no_header_text_gets_out(tmp_path, save_dicom, make_ct, examined, source):
    save_dicom(tmp_path / "series", slices(make_ct), positions=[0.0] * 12)
    text = repr(examined(source("series")))
    assert "duplicate_slices" in text
    assert not re.search("DOE|JANE|ID-77", text)


# --- images


@pytest.fixture
def save_png(tmp_path):
    def save(name: str, array: np.ndarray) -> None:
        Image.fromarray(array).save(tmp_path / name)

    return save


def test_a_sound_image_with_mask_and_boxes_has_no_fault(save_png, make_picture, examined, source):
    save_png("a.png", make_picture())
    save_png("mask.png", (make_picture() > 100).astype(np.uint8))
    boxes = (Box(0, 0, 0, 40, 32), Box(1, 3, 4, 9, 8))
    look = examined(source("a.png", kind="image", label_path="mask.png", boxes=boxes))
    assert look.diagnoses == ()
    assert look.facts[0].label_numbers == (1,)


def test_a_dark_image_is_a_warning(save_png, make_picture, examined, source, codes):
    save_png("a.png", make_picture() // 9)
    assert codes(examined(source("a.png", kind="image")).diagnoses) == [("intensity", "warning")]


def test_boxes_that_are_empty_or_outside_are_errors_and_a_pixel_of_rounding_is_not(
    save_png, make_picture, examined, source, codes
):
    save_png("a.png", make_picture())
    assert examined(source("a.png", kind="image", boxes=(Box(0, -1, 0, 41, 32),))).diagnoses == ()
    boxes = (Box(0, 3, 3, 3, 9), Box(0, 5, 5, 90, 9), Box(0, 1, 1, 2, 2))
    look = examined(source("a.png", kind="image", boxes=boxes))
    assert codes(look.diagnoses) == [("boxes", "error"), ("boxes", "error")]
    assert [one.reason.partition(" boxes")[0] for one in look.diagnoses] == ["1 of its 3", "1 of its 3"]


# --- samples of a .npz


def test_samples_of_medmnist_are_looked_at_one_by_one(tmp_path, examined, source):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28)).astype(np.uint8)
    images[2] = 9
    np.savez_compressed(tmp_path / "set.npz", train_images=images, train_labels=np.array([[0], [1], [0], [1]]))
    npz = source("set.npz", kind="image", split="train", array_names=("train_images", "train_labels"))
    look = examined(npz)
    assert [one.label for one in look.facts] == [0, 1, 0, 1]
    assert len({one.patient for one in look.facts}) == 4
    (found,) = look.diagnoses
    assert (found.id, found.path, found.code, found.severity) == (
        "set-i00002",
        "set.npz [train_images] 2",
        "constant",
        "error",
    )


# --- together


def test_one_scan_in_two_formats_and_orientations_is_a_duplicate(tmp_path, make_ct, examined, source):
    array = make_ct()
    affine = np.diag([1.0, 1, 3, 1])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    turned = np.flip(array, 0).astype(np.float32)
    flipped = affine @ np.array([[-1.0, 0, 0, len(array) - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(turned, flipped), tmp_path / "b.nii")
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing((1.0, 1.0, 3.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS in ITK's LPS
    SimpleITK.WriteImage(image, str(tmp_path / "c.nrrd"))
    facts = [facts for name in ("a.nii.gz", "b.nii", "c.nrrd") for facts in examined(source(name)).facts]
    assert [one.path for one in duplicate_diagnoses(facts)] == ["b.nii", "c.nrrd"]


@pytest.mark.parametrize("code", READING_CODES)
def test_every_code_of_a_reader_comes_through(tmp_path, monkeypatch, examined, source, codes, code):
    def refuse(path, *_, **__):
        raise ReadError(path, "is at fault", "mend it", code)

    monkeypatch.setattr(loading, "read_scan", refuse)
    look = examined(source("folder/a.nii"))
    assert codes(look.diagnoses) == [(code, "error")]
    assert (look.diagnoses[0].path, look.diagnoses[0].next_step) == ("folder/a.nii", "mend it")


def test_what_a_reader_notes_is_a_warning(tmp_path, monkeypatch, save_nifti, make_mr, examined, source, codes):
    save_nifti(tmp_path / "mr.nii", make_mr())
    read = loading.read_scan

    def with_note(*args, **parts):
        return replace(read(*args, **parts), notes=("does not say which way it lies",))

    monkeypatch.setattr(loading, "read_scan", with_note)
    look = examined(source("mr.nii"))
    assert codes(look.diagnoses) == [("note", "warning")]
    assert look.diagnoses[0].reason == "does not say which way it lies"
