from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK

from vissl_jointssl.preparation.decoding.dicom import read_dicom_file, read_dicom_series, series_faults
from vissl_jointssl.preparation.decoding.itk import itk_affine, itk_array
from vissl_jointssl.preparation.errors import ReadError


@pytest.fixture
def save_series(save_slice):
    """Slices (k, H, W) at `positions`, named against their order; `each` gives further tags by number."""

    def save(folder, planes, positions, axes=(1, 0, 0, 0, 1, 0), spacing=(0.5, 0.75), each=lambda k: {}, **tags):
        for k, (plane, position) in enumerate(zip(planes, positions, strict=True)):
            save_slice(
                folder / f"{len(planes) - k:03d}.dcm",
                plane,
                **{
                    "ImagePositionPatient": [f"{value:.6f}" for value in position],
                    "ImageOrientationPatient": [f"{value:.6f}" for value in axes],
                    "PixelSpacing": list(spacing),
                    "InstanceNumber": (k * 3) % 7,
                    "SliceThickness": 9,
                    **tags,
                    **each(k),
                },
            )
        return folder

    return save


def _planes(count=5, shape=(4, 6), dtype=np.int16):
    return np.random.default_rng(0).integers(0, 3000, (count, *shape)).astype(dtype)


def _upwards(count, step=2.0):
    return [(-10.0, -20.0, 5.0 + k * step) for k in range(count)]


def test_voxels_and_affine_of_an_oblique_series_are_those_of_simpleitk(tmp_path, save_series):
    turn = math.radians(25)
    axes = (math.cos(turn), math.sin(turn), 0, 0, 0, -1)  # rows to the left and back, columns to the feet
    normal = np.cross(axes[:3], axes[3:])
    positions = [tuple(np.array([10, 20, 30]) + 3.5 * k * normal) for k in range(5)]
    folder = save_series(tmp_path, _planes(), positions, axes)
    decoded = read_dicom_series(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in sorted(folder.iterdir(), reverse=True)])
    image = reader.Execute()
    np.testing.assert_array_equal(decoded.array, itk_array(image))
    np.testing.assert_allclose(decoded.affine, itk_affine(image), atol=1e-5)


def test_every_slice_is_rescaled_by_its_own_slope(tmp_path, save_series):
    planes = _planes(dtype=np.uint16)
    folder = save_series(
        tmp_path,
        planes,
        _upwards(5),
        Modality="PT",
        each=lambda k: {"RescaleSlope": 0.5 + k, "RescaleIntercept": 2 * k},
    )
    decoded = read_dicom_series(folder)
    assert decoded.array.dtype == np.float32
    assert decoded.modality == "PT"
    for k, plane in enumerate(planes):
        np.testing.assert_allclose(decoded.array[:, :, k].T, plane * (0.5 + k) + 2 * k, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "intercept", "expected"),
    [
        (np.int16, -1024, np.int16),
        (np.uint16, -1024, np.int16),
        (np.uint16, 0, np.uint16),
        (np.int16, -70000, np.int32),
    ],
)
def test_whole_slopes_give_the_smallest_whole_type_without_overflow(tmp_path, save_series, dtype, intercept, expected):
    planes = _planes(dtype=dtype)
    planes[0, 0, :2] = 0, 30000 if expected is np.int16 else np.iinfo(dtype).max
    folder = save_series(tmp_path, planes, _upwards(5), RescaleSlope=1, RescaleIntercept=intercept)
    array = read_dicom_series(folder).array
    assert array.dtype == expected
    np.testing.assert_array_equal(array, planes.astype(np.int64).transpose(2, 1, 0) + intercept)


def test_bits_above_those_stored_are_no_part_of_a_value(tmp_path, save_series):
    planes = _planes(dtype=np.int16) % 2048 - 1024
    with_overlay = (planes & 0x0FFF) | 0x7000  # 12 bits of the value, the others set by an overlay
    folder = save_series(tmp_path, with_overlay.astype(np.int16), _upwards(5), BitsStored=12)
    np.testing.assert_array_equal(read_dicom_series(folder).array, planes.transpose(2, 1, 0))


def test_a_tilted_gantry_is_kept_as_shear_and_said(tmp_path, save_series):
    tilt = math.radians(12)
    positions = [(-10, -20 + 5 * k * math.tan(tilt), 5.0 * k) for k in range(5)]
    decoded = read_dicom_series(save_series(tmp_path, _planes(), positions))
    assert decoded.notes == ("the gantry was tilted by 12.0 degrees, slices are sheared",)
    np.testing.assert_allclose(decoded.affine[:3, 2], (0, -5 * math.tan(tilt), 5), atol=1e-4)
    assert series_faults(tmp_path) == [("gantry_tilt", decoded.notes[0])]


def test_one_error_names_every_fault_of_the_geometry(tmp_path, save_series, save_slice):
    positions = [(0, 0, z) for z in (0, 2, 4, 4, 10, 12)]
    save_series(tmp_path, _planes(6), positions)
    save_series(tmp_path / "scout", _planes(1), [(0, 0, 0)], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    files = [*tmp_path.glob("*.dcm"), *(tmp_path / "scout").iterdir()]
    expected = (
        r"1 of 7 slices is part of a localizer; 1 slices lie where another one does, at 4.0 mm .*; "
        r"2 slices are missing: 2 between 4.0 and 10.0 mm .*Next: look for missing or doubled slices"
    )
    with pytest.raises(ReadError, match=expected) as caught:
        read_dicom_series(tmp_path, files)
    assert caught.value.code == "mixed_series"
    assert [code for code, _ in series_faults(tmp_path, files)] == [
        "mixed_series",
        "duplicate_slices",
        "missing_slices",
    ]


def test_files_pick_one_series_of_a_folder_that_holds_two(tmp_path, save_series):
    save_series(tmp_path / "a", _planes(), _upwards(5))
    save_series(tmp_path / "b", _planes() + 1, _upwards(5), SeriesInstanceUID="1.2.3.5")
    together = tmp_path / "together"
    together.mkdir()
    for folder in ("a", "b"):
        for file in (tmp_path / folder).iterdir():
            file.rename(together / f"{folder}{file.name}")
    with pytest.raises(
        ReadError, match=r"together: holds 2 DICOM series \(of 5, 5 slices\).*folder of its own"
    ) as caught:
        read_dicom_series(together)
    assert caught.value.code == "mixed_series"
    np.testing.assert_array_equal(
        read_dicom_series(together, sorted(together.glob("b*"))).array, (_planes() + 1).transpose(2, 1, 0)
    )


def test_other_objects_of_the_folder_are_noted_and_broken_slices_refused(tmp_path, save_series, save_slice):
    folder = save_series(tmp_path / "series", _planes(), _upwards(5))
    save_slice(folder / "report.dcm", _planes()[0], Modality="SR", Rows=None, Columns=None, SeriesInstanceUID="1.9")
    assert read_dicom_series(folder).notes == ("1 DICOM files of its folder are no slices of it",)
    (folder / "readme.txt").write_text("hello")
    assert len(read_dicom_series(folder).notes) == 1
    (folder / "005.dcm").write_bytes(b"")  # at the end of the stack, where no gap would show
    with pytest.raises(ReadError, match=r"series: 005.dcm is empty \(0 bytes\). Next: copy it again") as caught:
        read_dicom_series(folder)
    assert (caught.value.path, caught.value.code) == (folder, "empty")


def test_slices_without_a_suffix_that_broke_are_refused_too(tmp_path, save_series):
    folder = save_series(tmp_path, _planes(), _upwards(5))
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"IM.{number:04d}")
    assert read_dicom_series(folder).array.shape == (6, 4, 5)
    (folder / "IM.0004").write_bytes(b"garbage" * 100)
    with pytest.raises(ReadError, match=r"IM.0004 is not DICOM"):
        read_dicom_series(folder)


@pytest.mark.parametrize(
    ("tags", "code", "words"),
    [
        ({"RescaleSlope": 0}, "unreadable", "has a rescale slope or intercept that is no usable number"),
        ({"ImagePositionPatient": None}, "geometry", "1 of 5 slices is without usable position"),
        ({"PixelSpacing": [0, 0]}, "mixed_series", "of another pixel size"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, "mixed_series", "1 of 5 slices is of another orientation"),
    ],
)
def test_a_slice_that_does_not_fit_is_named_by_its_fault(tmp_path, save_series, tags, code, words):
    save_series(tmp_path, _planes(), _upwards(5), each=lambda k: tags if k == 2 else {})
    with pytest.raises(ReadError, match=words) as caught:
        read_dicom_series(tmp_path)
    assert caught.value.code == code


def test_what_is_no_grey_volume_is_refused(tmp_path, save_series, save_slice):
    save_series(
        tmp_path / "colour", np.random.default_rng(0).integers(0, 255, (3, 4, 6, 3)).astype(np.uint8), _upwards(3)
    )
    with pytest.raises(ReadError, match=r"is not a grey 3D series.*colour") as caught:
        read_dicom_series(tmp_path / "colour")
    assert caught.value.code == "unsupported"
    film = save_slice(tmp_path / "film.dcm", _planes(), Modality="US")
    with pytest.raises(ReadError, match=r"film.dcm: holds 5 frames without positions, such as a film") as caught:
        read_dicom_file(film)
    assert caught.value.code == "unsupported"
    save_slice(tmp_path / "chest" / "a.dcm", _planes()[0], Modality="DX")
    with pytest.raises(ReadError, match="holds 1 DICOM images without places, not a 3D volume"):
        read_dicom_series(tmp_path / "chest")
    with pytest.raises(ReadError, match=r"b.dcm: does not exist") as caught:
        read_dicom_file(tmp_path / "b.dcm")
    assert caught.value.code == "missing"
