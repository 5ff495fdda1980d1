from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from vissl_jointssl.preparation.sources.pairing import Candidate, Pairing, pair

IMAGES = (".png", ".jpg", ".tif")


def paired(*names: str) -> Pairing:
    """Pair files by their names; those of pictures are images, all others volumes."""
    return pair(
        Candidate(PurePosixPath(name), "image" if PurePosixPath(name).suffix in IMAGES else "volume") for name in names
    )


def label_of(found: Pairing) -> dict[str, str | None]:
    return {str(case.path): None if case.label_path is None else str(case.label_path) for case in found.cases}


def strings(paths: tuple[PurePosixPath, ...]) -> list[str]:
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("imagesTr/la_003.nii.gz", "labelsTr/la_003.nii.gz"),
        ("set/imagesTs/a_001_0000.nii.gz", "set/labelsTs/a_001.nii.gz"),
        ("images/x.png", "labels/x.png"),
        ("images/x.jpg", "masks/x.png"),
        ("Images/x.png", "Masks/x_mask.png"),
        ("image/x_image.png", "label/x_label.png"),
        ("train/images/x.tif", "train/labels/x.tif"),
        ("images/train/a/x.nrrd", "segmentations/train/a/x.nrrd"),
        ("scans/x.mha", "labels/x.nii.gz"),
        ("p1/x.nii.gz", "p1/segmentations/x.nii.gz"),
        ("totalseg_ct.nii.gz", "totalseg_ct_seg.nii.gz"),
        ("a/x.nii.gz", "a/x-seg.nii.gz"),
        ("a/x.nii", "a/x_label.nii.gz"),
        ("a/x.nii", "a/x_labels.nii"),
        ("a/x.nii", "a/x_mask.nrrd"),
        ("scans/p1/images/x.nii", "scans/p1/labels/x.nii"),
        ("a/x.nrrd", "a/x.seg.nrrd"),
        ("a/x.nii", "a/x_Segmentation.nii"),
        ("brain1_image.nrrd", "brain1_label.nrrd"),
        ("case_0/imaging.nii.gz", "case_0/segmentation.nii.gz"),
        ("case_0/ct.nii.gz", "case_0/mask.nii.gz"),
    ],
)
def test_conventions_of_names_pair_label_maps_with_scans(scan, label):
    for names in ((scan, label), (label, scan, "else/y.nii.gz", "else/y.png")):
        found = paired(*names)
        assert label_of(found)[scan] == label
        assert (found.alone, found.unclear) == ((), ())


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("images/x.nii", "labels/y.nii"),
        ("imagesTr/x.nii", "labelsTs/x.nii"),
        ("images/x.nii", "labels/x.png"),
        ("a/images/x.nii", "b/labels/x.nii"),
        ("a/x.nii", "b/x_seg.nii"),
        ("Brats18_1/Brats18_1_t1.nii.gz", "Brats18_1/Brats18_1_seg.nii.gz"),
        ("s1/x.nii.gz", "s1/segmentations/liver.nii.gz"),
        ("x.png", "x_seg.nii"),
    ],
)
def test_label_maps_without_their_scan_are_left_alone_and_are_no_scans(scan, label):
    found = paired(scan, label)
    assert label_of(found) == {scan: None}
    assert strings(found.alone) == [label]


def test_names_that_follow_no_convention_are_scans():
    names = ["itk_t1.nii.gz", "itk_t1_kmeans.nii.gz", "mask_of_zorro.png", "segment.nii", "x_t1.nii.gz", "x_t2.nii.gz"]
    found = paired(*names)
    assert list(label_of(found)) == sorted(names)
    assert set(label_of(found).values()) == {None}


def test_brats_channels_stay_scans_of_their_own():
    names = [f"HGG/b1/b1_{channel}.nii.gz" for channel in ("flair", "t1", "t1ce", "t2")]
    found = paired(*names, "HGG/b1/b1_seg.nii.gz")
    assert list(label_of(found)) == names
    assert strings(found.alone) == ["HGG/b1/b1_seg.nii.gz"]


def test_two_label_maps_of_one_scan_are_both_left_out_as_unclear():
    found = paired("x.nii.gz", "x_seg.nii.gz", "x_mask.nii.gz", "y.nii", "y_seg.nii")
    assert label_of(found) == {"x.nii.gz": None, "y.nii": "y_seg.nii"}
    assert strings(found.unclear) == ["x_mask.nii.gz", "x_seg.nii.gz"]


def test_a_label_map_of_a_scan_in_two_formats_goes_to_its_own_or_to_neither():
    assert label_of(paired("x.nii", "x.nrrd", "x_seg.nrrd")) == {"x.nii": None, "x.nrrd": "x_seg.nrrd"}
    found = paired("x.nii", "x.nrrd", "x_seg.mha")
    assert set(label_of(found).values()) == {None}
    assert strings(found.unclear) == ["x_seg.mha"]


def test_a_bare_name_belongs_to_the_only_scan_beside_it():
    found = paired("p/ct.nii.gz", "p/mr.nii.gz", "p/seg.nii.gz")
    assert strings(found.unclear) == ["p/seg.nii.gz"]
    assert strings(paired("p/seg.nii.gz").alone) == ["p/seg.nii.gz"]


def test_channels_of_nnunet_are_one_volume():
    names = [f"imagesTr/{case}_{number:04d}.nii.gz" for case in ("br_1", "br_2") for number in range(4)]
    found = paired(*names, "labelsTr/br_2.nii.gz")
    first, second = found.cases
    assert (str(first.path), first.name, first.label_path) == (names[0], "br_1", None)
    assert strings(first.channel_paths) == names[1:4]
    assert strings(second.channel_paths) == names[5:]
    assert str(second.label_path) == "labelsTr/br_2.nii.gz"


def test_a_label_map_tells_channels_from_cases_in_any_folder_of_images():
    names = [f"images/liver_{number:04d}.nii.gz" for number in range(3)]
    assert [len(case.channel_paths) for case in paired(*names, "labels/liver.nii.gz").cases] == [2]
    names = [f"imagesTr/{case}_{number:04d}.nii.gz" for case in "ab" for number in range(2)]
    own = [name.replace("images", "labels") for name in names]
    cases = paired(*names, *own, "labelsTr/a.nii.gz").cases
    assert [str(case.label_path) for case in cases] == own


@pytest.mark.parametrize(
    "names",
    [
        [f"imagesTr/liver_{number:04d}.nii.gz" for number in range(8)],
        [f"imagesTr/liver_{number:04d}.nii.gz" for number in range(1, 9)],
        [*(f"imagesTr/a_{number:04d}.nii" for number in range(2)), "imagesTr/b_0000.nii"],
        [f"images/{case}_{number:04d}.nii" for case in "ab" for number in range(2)],
        [f"imagesTr/{case}_{number:04d}.nii" for case in "ab" for number in range(11)],
        [f"imagesTr/{case}_{number:04d}.nii" for case in "ab" for number in (1, 2)],
        ["imagesTr/a_0000.nii", "imagesTr/b_0000.nii", "imagesTr/c.nii"],
        [f"imagesTr/{case}_{number:04d}.png" for case in "ab" for number in range(2)],
    ],
)
def test_numbers_that_count_cases_are_no_channels(names):
    assert [str(case.path) for case in paired(*names).cases] == sorted(names)


def test_the_same_channel_in_two_formats_is_not_taken_for_two_channels():
    found = paired("imagesTr/a_0000.nii", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    assert all(case.channel_paths == () for case in found.cases)
    assert len(found.cases) == 2
