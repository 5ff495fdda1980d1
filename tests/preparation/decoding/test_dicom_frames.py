from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from vissl_jointssl.preparation.decoding.dicom import read_dicom_file, read_dicom_series, series_faults
from vissl_jointssl.preparation.decoding.itk import itk_affine, itk_array
from vissl_jointssl.preparation.errors import ReadError

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def _item(**tags):
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def _groups(positions, rescaling=lambda k: None):
    """Per-frame and shared functional groups: place per frame, direction and pixel size for all."""
    own = []
    for k, z in enumerate(positions):
        group = _item(PlanePositionSequence=[_item(ImagePositionPatient=[-5, 7, z])])
        if rescaling(k) is not None:
            slope, intercept = rescaling(k)
            group.PixelValueTransformationSequence = [_item(RescaleSlope=slope, RescaleIntercept=intercept)]
        own.append(group)
    shared = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[_item(PixelSpacing=[0.5, 0.75], SliceThickness=5)],
        PixelValueTransformationSequence=[_item(RescaleSlope=2, RescaleIntercept=-1000)],
    )
    return {"PerFrameFunctionalGroupsSequence": own, "SharedFunctionalGroupsSequence": [shared]}


def _frames(count=4):
    return np.random.default_rng(0).integers(0, 2000, (count, 5, 6)).astype(np.uint16)


def test_frames_of_an_enhanced_file_lie_where_each_says_and_not_in_file_order(tmp_path, save_slice):
    frames, positions = _frames(), [10, 4, 7, 1]
    path = save_slice(tmp_path / "a.dcm", frames, SOPClassUID=ENHANCED_CT, **_groups(positions))
    decoded = read_dicom_file(path)
    by_place = frames[np.argsort(positions)].astype(np.int32) * 2 - 1000
    np.testing.assert_array_equal(decoded.array, by_place.transpose(2, 1, 0))
    expected = np.array([[-0.75, 0, 0, 5], [0, -0.5, 0, -7], [0, 0, 3, 1], [0, 0, 0, 1]])
    np.testing.assert_allclose(decoded.affine, expected)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, decoded.array)


def test_an_enhanced_file_reads_as_simpleitk_reads_it(tmp_path, save_slice):
    path = save_slice(
        tmp_path / "a.dcm",
        _frames(),
        SOPClassUID=ENHANCED_CT,
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        **_groups([1, 4, 7, 10]),
    )
    image = SimpleITK.ReadImage(str(path))
    decoded = read_dicom_file(path)
    np.testing.assert_allclose(decoded.affine, itk_affine(image), atol=1e-6)
    np.testing.assert_array_equal(decoded.array, itk_array(image))


def test_frames_are_rescaled_one_by_one(tmp_path, save_slice):
    frames = _frames()
    path = save_slice(
        tmp_path / "a.dcm", frames, SOPClassUID=ENHANCED_CT, **_groups([1, 2, 3, 4], lambda k: (0.25 * (k + 1), k))
    )
    array = read_dicom_file(path).array
    for k, frame in enumerate(frames):
        np.testing.assert_allclose(array[:, :, k].T, frame * 0.25 * (k + 1) + k)


def test_faults_between_frames_are_found_as_between_files(tmp_path, save_slice):
    path = save_slice(tmp_path / "a.dcm", _frames(), SOPClassUID=ENHANCED_CT, **_groups([1, 4, 10, 13]))
    assert series_faults(path, (path,)) == [
        ("missing_slices", "1 slices are missing: 1 between 4.0 and 10.0 mm (slice distances run from 3.00 to 6.00 mm)")
    ]
    with pytest.raises(ReadError, match="1 slices are missing"):
        read_dicom_file(path)


def test_more_or_fewer_frames_than_described_are_refused(tmp_path, save_slice):
    path = save_slice(tmp_path / "a.dcm", _frames(4), SOPClassUID=ENHANCED_CT, **_groups([1, 4, 7]))
    with pytest.raises(ReadError, match=r"a.dcm: claims 4 frames and describes 3. Next: copy it again"):
        read_dicom_file(path)
    path = save_slice(tmp_path / "b.dcm", _frames(4), NumberOfFrames=2**31 - 1)
    with pytest.raises(ReadError, match="claims 2147483647 frames") as caught:
        read_dicom_file(path)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(("step", "order"), [(4.0, [0, 1, 2, 3]), (-4.0, [3, 2, 1, 0])])
def test_nuclear_medicine_stacks_along_the_normal_by_the_sign_of_its_step(tmp_path, save_slice, step, order):
    frames = _frames()
    detector = _item(ImagePositionPatient=[0, 0, 100], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    path = save_slice(
        tmp_path / "a.dcm",
        frames,
        Modality="NM",
        SpacingBetweenSlices=step,
        PixelSpacing=[2, 2],
        DetectorInformationSequence=[detector],
    )
    decoded = read_dicom_file(path)
    np.testing.assert_array_equal(decoded.array, frames[order].transpose(2, 1, 0))
    assert decoded.affine[2, 3] == min(100, 100 + 3 * step)
    assert decoded.affine[2, 2] == 4


@pytest.mark.parametrize("first", [0.0, -30.0])
def test_dose_grids_are_placed_by_their_offsets_and_scaled(tmp_path, save_slice, first):
    frames = _frames().astype(np.uint32)
    path = save_slice(
        tmp_path / "a.dcm",
        frames,
        Modality="RTDOSE",
        ImagePositionPatient=[1, 2, -30],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[3, 3],
        GridFrameOffsetVector=[first, first + 5, first + 10, first + 15],
        DoseGridScaling=0.001,
    )
    decoded = read_dicom_file(path)
    np.testing.assert_allclose(decoded.array, frames.transpose(2, 1, 0) * 0.001, rtol=1e-6)
    np.testing.assert_allclose(decoded.affine[2, 2:], (5, -30))


def test_frames_without_places_and_segmentations_are_no_volumes(tmp_path, save_slice):
    path = save_slice(tmp_path / "a.dcm", _frames(), SOPClassUID=ENHANCED_CT, **_groups([1, 2, 3, 4]), Modality="SEG")
    with pytest.raises(ReadError, match=r"holds a DICOM segmentation: convert it to a label map"):
        read_dicom_file(path)
    save_slice(path, _frames(), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality=None, **_groups([1, 2]))
    with pytest.raises(ReadError, match=r"holds a DICOM segmentation"):
        read_dicom_file(path)
    path = save_slice(tmp_path / "b.dcm", _frames(), Modality="NM", PixelSpacing=[2, 2])
    with pytest.raises(ReadError, match="holds 4 frames without positions"):
        read_dicom_file(path)
