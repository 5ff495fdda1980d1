from __future__ import annotations

import numpy as np
import pytest

from vissl_jointssl.preparation.decoding.dicom import SeriesGroup, group_series

PLANE = np.arange(24, dtype=np.uint16).reshape(4, 6)
PLACED = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}


def test_a_folder_of_everything_is_sorted_into_volumes_images_and_the_rest(tmp_path, save_slice):
    for k in range(3):
        for series, name in (("1.1", "a"), ("1.2", "b")):
            save_slice(
                tmp_path / f"{k}{name}", PLANE, SeriesInstanceUID=series, ImagePositionPatient=[0, 0, k], **PLACED
            )
    save_slice(tmp_path / "chest1", PLANE, Modality="DX", SeriesInstanceUID="1.3")
    save_slice(tmp_path / "chest2", PLANE, Modality="DX", SeriesInstanceUID="1.3")
    save_slice(tmp_path / "film", np.stack([PLANE] * 5), Modality="XA")
    save_slice(
        tmp_path / "dose",
        np.stack([PLANE] * 5),
        Modality="RTDOSE",
        ImagePositionPatient=[0, 0, 0],
        GridFrameOffsetVector=[0, 1, 2, 3, 4],
        **PLACED,
    )
    save_slice(tmp_path / "photo", np.stack([PLANE] * 3, axis=-1).astype(np.uint8), Modality="OT")
    save_slice(
        tmp_path / "report", PLANE, Modality="SR", Rows=None, Columns=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"
    )
    save_slice(tmp_path / "mosaic", PLANE, Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    save_slice(tmp_path / "DICOMDIR", PLANE)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "half.dcm").write_bytes((tmp_path / "0a").read_bytes()[:100])
    files = list(tmp_path.iterdir())
    groups = group_series(files)

    def found(form):
        return {tuple(file.name for file in group.files): group.modality for group in groups if group.form == form}

    assert found("volume") == {("0a", "1a", "2a"): "CT", ("0b", "1b", "2b"): "CT", ("dose",): "RTDOSE"}
    assert found("image") == {("chest1",): "DX", ("chest2",): "DX", ("photo",): "OT"}
    reasons = {group.files[0].name: (group.reason, group.damaged) for group in groups if group.form == "other"}
    assert reasons == {
        "film": ("5 frames without positions, such as a film", False),
        "report": ("Basic Text SR Storage without an image", False),
        "mosaic": ("a mosaic of slices in one picture: convert it to NIfTI with dcm2niix", False),
        "DICOMDIR": ("a DICOMDIR, which is not followed", False),
        "notes.txt": ("is not DICOM, or a part of it without the preamble: byte 128 is not followed by DICM", False),
        "half.dcm": ("is not DICOM, or a part of it without the preamble: byte 128 is not followed by DICM", True),
    }
    assert sorted(file for group in groups for file in group.files) == sorted(files)


def test_groups_do_not_depend_on_the_order_of_files_and_tell_no_uid(tmp_path, save_slice):
    for k in range(6):
        tags = {"SeriesInstanceUID": f"1.2.777.{k % 2}", "ImagePositionPatient": [0, 0, k]}
        save_slice(tmp_path / f"{k}", PLANE, **tags, **PLACED)
    files = sorted(tmp_path.iterdir())
    assert group_series(files) == group_series(files[::-1])
    assert "777" not in repr(group_series(files))
    assert group_series(files)[0] == SeriesGroup((files[0], files[2], files[4]), "CT", "volume")
    assert group_series([]) == []


@pytest.mark.parametrize("places", [[True, False, True], [True, True, False]])
def test_a_slice_that_lost_its_place_stays_with_its_series(tmp_path, save_slice, places):
    for k, placed in enumerate(places):
        save_slice(tmp_path / f"{k}", PLANE, ImagePositionPatient=[0, 0, k] if placed else None, **PLACED)
    assert [len(group.files) for group in group_series(tmp_path.iterdir())] == [3]


def test_pictures_of_a_series_without_places_are_images_each(tmp_path, save_slice):
    for k in range(3):
        save_slice(tmp_path / f"{k}", PLANE, Modality="OT")
    assert [(len(group.files), group.form) for group in group_series(tmp_path.iterdir())] == [(1, "image")] * 3
