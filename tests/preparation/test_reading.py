from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.reading import read_labels, read_scan


def test_one_volume_reads_the_same_from_every_format(tmp_path, make_volume, save_nifti):
    array = make_volume((6, 7, 8))
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (11, 22, 33)
    nifti = save_nifti(tmp_path / "a.nii.gz", array, affine)
    image = SimpleITK.ReadImage(str(nifti))
    scans = [read_scan(nifti)]
    for suffix in ("mha", "nrrd"):
        SimpleITK.WriteImage(image, str(tmp_path / f"a.{suffix}"))
        scans.append(read_scan(tmp_path / f"a.{suffix}"))
    for scan in scans:
        assert scan.array.shape == (8, 7, 6)
        assert scan.spacing == pytest.approx((4, 3, 2))
        np.testing.assert_array_equal(scan.array, scans[0].array)
        np.testing.assert_allclose(scan.affine, scans[0].affine, atol=1e-4)


def test_scale_and_offset_of_the_header_are_applied(tmp_path, make_volume):
    image = nibabel.Nifti1Image(make_volume(), np.eye(4))
    image.header.set_slope_inter(0.5, -1000)  # what a reader applies; nibabel writes the array as it is
    nibabel.save(image, tmp_path / "a.nii")
    assert read_scan(tmp_path / "a.nii").array.min() == -1000 * 0.5 - 1000


def test_dicom_slices_are_ordered_by_position_and_rescaled(tmp_path, save_dicom):
    planes = np.arange(6 * 5 * 4).reshape(6, 5, 4) + 100
    scan = read_scan(save_dicom(tmp_path / "series", planes, spacing=(1.5, 0.5, 3.0)))
    assert scan.modality == "CT"
    assert scan.spacing == pytest.approx((3.0, 0.5, 1.5))
    # DICOM columns run to the patient's left and rows to the back, as a view from the feet shows them.
    np.testing.assert_array_equal(scan.array, planes)
    stored = pydicom.dcmread(tmp_path / "series" / "000-5.dcm").pixel_array
    np.testing.assert_array_equal(stored, planes[0] + 1024)


def test_missing_doubled_and_mixed_slices_are_refused(tmp_path, save_dicom):
    planes = np.arange(5 * 4 * 4).reshape(5, 4, 4)
    with pytest.raises(ReadError, match=r"slice distances run from 2.00 to 6.00 mm.*missing or doubled slices"):
        read_scan(save_dicom(tmp_path / "gap", planes, positions=[0, 2, 4, 10, 12]))
    with pytest.raises(ReadError, match=r"slice distances run from 0.00 to 2.00 mm"):
        read_scan(save_dicom(tmp_path / "double", planes, positions=[0, 2, 2, 4, 6]))
    save_dicom(tmp_path / "two", planes)
    save_dicom(tmp_path / "two", planes, series="1.2.3.4.6")
    with pytest.raises(ReadError, match=r"holds 2 DICOM series.*move each series to a folder of its own"):
        read_scan(tmp_path / "two")
    with pytest.raises(ReadError, match="holds one slice, not a 3D volume"):
        read_scan(save_dicom(tmp_path / "one", planes[:1]))
    (tmp_path / "none").mkdir()
    with pytest.raises(ReadError, match="holds no DICOM series"):
        read_scan(tmp_path / "none")


def test_a_truncated_dicom_slice_is_refused(tmp_path, save_dicom):
    folder = save_dicom(tmp_path / "series", np.arange(5 * 40 * 40).reshape(5, 40, 40))
    victim = sorted(folder.iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:-900])
    with pytest.raises(ReadError, match=r"series: .*Next:"):
        read_scan(folder)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
def test_truncated_files_are_refused(tmp_path, make_volume, save_nifti, name, share):
    path = save_nifti(tmp_path / "whole.nii.gz", make_volume((20, 20, 20)))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / name))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ReadError, match=r"cannot be read.*Next: copy it again"):
        read_scan(tmp_path / name)


def test_empty_absent_foreign_and_mislabelled_files_are_refused(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(ReadError, match=r"a.nii.gz: is empty \(0 bytes\)"):
        read_scan(tmp_path / "a.nii.gz")
    with pytest.raises(ReadError, match="does not exist"):
        read_scan(tmp_path / "b.nii")
    (tmp_path / "c.pdf").write_text("hello")
    with pytest.raises(ReadError, match=r"is of an unknown kind. Next: convert it to one of .nii, .nii.gz, .mha"):
        read_scan(tmp_path / "c.pdf")
    (tmp_path / "d.nii.gz").write_bytes(gzip.compress(b"not a volume" * 100))
    with pytest.raises(ReadError, match="cannot be read as NIfTI"):
        read_scan(tmp_path / "d.nii.gz")


def test_volumes_that_teach_nothing_are_refused(tmp_path, save_nifti, make_volume):
    spoilt = make_volume().astype(np.float32)
    spoilt[2, 2, 2:4] = np.nan, np.inf
    with pytest.raises(ReadError, match=r"holds 2 NaN or infinite voxels"):
        read_scan(save_nifti(tmp_path / "nan.nii", spoilt))
    with pytest.raises(ReadError, match="every voxel is 7"):
        read_scan(save_nifti(tmp_path / "flat.nii", np.full((4, 4, 4), 7, np.int16)))


def test_what_is_not_one_volume_is_refused_but_an_axis_of_length_one_is_not(tmp_path, save_nifti, make_volume):
    array = make_volume()
    with pytest.raises(ReadError, match=r"is not a 3D volume: it has shape \(10, 9, 8, 2\)"):
        read_scan(save_nifti(tmp_path / "series.nii", np.stack([array, array], axis=-1)))
    with pytest.raises(ReadError, match="is not a 3D volume"):
        read_scan(save_nifti(tmp_path / "plane.nii", array[:, :, :1]))
    assert read_scan(save_nifti(tmp_path / "trailing.nii", array[..., None])).array.shape == (8, 9, 10)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((4, 5, 6, 3)), isVector=True), str(tmp_path / "c.mha"))
    with pytest.raises(ReadError, match="is not one 3D volume"):
        read_scan(tmp_path / "c.mha")


def test_an_affine_without_size_is_refused(tmp_path, save_nifti, make_volume):
    path = save_nifti(tmp_path / "a.nii", make_volume())
    image = nibabel.Nifti1Image(make_volume(), None)
    image.header.set_sform(np.zeros((4, 4)), code=1)
    image.header.set_qform(None, code=0)
    path.write_bytes(image.to_bytes())
    with pytest.raises(ReadError, match="says nothing usable about voxel size and position"):
        read_scan(path)


def test_labels_come_on_the_grid_of_their_scan_whatever_their_orientation(tmp_path, save_nifti, make_volume):
    array = make_volume((6, 7, 8))
    labels = (array > 40).astype(np.uint8) * 3
    scan = read_scan(save_nifti(tmp_path / "scan.nii.gz", array))
    turned = np.diag([-1.0, 1, 1, 1])
    turned[0, 3] = 5  # the same place, stored from the other side
    path = save_nifti(tmp_path / "labels.nii.gz", labels[::-1].copy(), turned)
    np.testing.assert_array_equal(read_labels(path, scan) > 0, scan.array > 40)


def test_labels_off_the_grid_are_refused(tmp_path, save_nifti, make_volume):
    scan = read_scan(save_nifti(tmp_path / "scan.nii.gz", make_volume((6, 7, 8))))
    with pytest.raises(ReadError, match=r"has \(8, 7, 5\) voxels, its scan \(8, 7, 6\)"):
        read_labels(save_nifti(tmp_path / "a.nii", np.ones((5, 7, 8), np.uint8)), scan)
    moved = np.eye(4)
    moved[2, 3] = 3
    with pytest.raises(ReadError, match=r"lies 3.0 mm away from its scan"):
        read_labels(save_nifti(tmp_path / "b.nii", np.ones((6, 7, 8), np.uint8), moved), scan)
    with pytest.raises(ReadError, match="holds values that are not integers"):
        read_labels(save_nifti(tmp_path / "c.nii", np.full((6, 7, 8), 0.5, np.float32)), scan)
