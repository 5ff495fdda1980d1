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
    with pytest.raises(ReadError, match=r"(cannot be read|is cut short).*Next: copy it again") as caught:
        read_scan(tmp_path / name)
    assert caught.value.code == "unreadable"


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
    for name, spoilt in (("plane", array[:, :, :1]), ("flat", array[:, :, 0]), ("five", array.reshape(5, 2, 3, 3, 8))):
        with pytest.raises(ReadError, match="is not a 3D volume: it has shape") as caught:
            read_scan(save_nifti(tmp_path / f"{name}.nii", spoilt))
        assert caught.value.code == "dimensions"
    assert read_scan(save_nifti(tmp_path / "trailing.nii", array[..., None])).array.shape == (8, 9, 10)
    assert read_scan(save_nifti(tmp_path / "vector.nii", array[..., None, None])).array.shape == (8, 9, 10)


@pytest.mark.parametrize("slice_axis", ["axial", "coronal", "sagittal"])
def test_each_volume_of_a_fourth_axis_reads_as_its_own_file_would(tmp_path, make_volume, save_nifti, slice_axis):
    arrays = [make_volume((6, 7, 8), seed) for seed in range(3)]
    affine = np.array([[0, 0, -3.0, 5], [1.0, 0, 0, 6], [0, 2.0, 0, 7], [0, 0, 0, 1]])
    alone = [read_scan(save_nifti(tmp_path / f"{n}.nii", array, affine), slice_axis) for n, array in enumerate(arrays)]
    series = save_nifti(tmp_path / "time.nii.gz", np.stack(arrays, -1), affine)
    vectors = save_nifti(tmp_path / "vector.nii", np.stack(arrays, -1)[:, :, :, None], affine)
    image = SimpleITK.Compose([SimpleITK.ReadImage(str(tmp_path / f"{n}.nii")) for n in range(3)])
    files = [series, vectors]
    for suffix in ("mha", "nrrd"):
        SimpleITK.WriteImage(image, str(tmp_path / f"channels.{suffix}"))
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(series)), str(tmp_path / f"time.{suffix}"))
        files += [tmp_path / f"channels.{suffix}", tmp_path / f"time.{suffix}"]
    np.savez(tmp_path / "a.npz", image=np.stack(arrays), affine=affine)
    files.append(tmp_path / "a.npz")
    for file in files:
        scan = read_scan(file, slice_axis)
        np.testing.assert_array_equal(scan.array, np.stack([one.array for one in alone]), err_msg=file.name)
        np.testing.assert_allclose(scan.affine, alone[0].affine, atol=1e-4, err_msg=file.name)
        assert scan.source_shape == (6, 7, 8)
    joined = read_scan(tmp_path / "0.nii", slice_axis, channel_paths=[tmp_path / "1.nii", tmp_path / "2.nii"])
    np.testing.assert_array_equal(joined.array, scan.array)


def test_channels_off_the_grid_of_the_first_are_refused_with_both_names(tmp_path, make_volume, save_nifti):
    first = save_nifti(tmp_path / "t1.nii", make_volume((6, 7, 8)))
    moved = np.eye(4)
    moved[0, 3] = 4
    cases = (
        (make_volume((6, 7, 9)), np.eye(4), "dimensions", r"t2.nii: has \(9, 7, 6\) voxels, .*t1.nii, \(8, 7, 6\)"),
        (make_volume((6, 7, 8)), moved, "geometry", r"t2.nii: lies 4.0 mm away from the first channel, t1.nii"),
        (np.stack([make_volume((6, 7, 8))] * 2, -1), np.eye(4), "dimensions", "t2.nii: is one file of several chan"),
        (np.zeros((6, 7, 8)), np.eye(4), "constant", r"t2.nii: every voxel is 0.0"),
    )
    for array, affine, code, words in cases:
        second = save_nifti(tmp_path / "t2.nii", array, affine)
        with pytest.raises(ReadError, match=words) as caught:
            read_scan(first, channel_paths=[second])
        assert caught.value.code == code
    with pytest.raises(ReadError, match=r"gone.nii: does not exist"):
        read_scan(first, channel_paths=[tmp_path / "gone.nii"])


def test_one_empty_or_spoilt_channel_of_several_is_named(tmp_path, make_volume, save_nifti):
    array = np.stack([make_volume(), make_volume(seed=1)], -1).astype(np.float32)
    array[..., 1] = 5
    with pytest.raises(ReadError, match=r"in channel 1 every voxel is 5.0"):
        read_scan(save_nifti(tmp_path / "a.nii", array))
    array[0, 0, 0, 1] = np.nan
    with pytest.raises(ReadError, match=r"holds 1 NaN or infinite voxels in channel 1"):
        read_scan(save_nifti(tmp_path / "b.nii", array))


def test_values_beyond_single_precision_are_refused(tmp_path, make_volume, save_nifti):
    array = make_volume().astype(np.float64)
    array[3, 3, 3] = -1e200
    with pytest.raises(ReadError, match=r"holds values from -1.0e\+200 to ") as caught:
        read_scan(save_nifti(tmp_path / "a.nii", array))
    assert caught.value.code == "intensity"


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
    with pytest.raises(ReadError, match="holds values that are not integers"):
        read_labels(save_nifti(tmp_path / "d.nii", np.full((6, 7, 8), np.inf, np.float32)), scan)
    with pytest.raises(ReadError, match=r"holds label numbers from 0.0 to 10000000000.0") as caught:
        read_labels(save_nifti(tmp_path / "e.nii", np.arange(336.0).reshape(6, 7, 8) // 335 * 1e10), scan)
    assert caught.value.code == "label_values"


def test_labels_need_not_be_exact_integers_after_scaling(tmp_path, save_nifti, make_volume):
    scan = read_scan(save_nifti(tmp_path / "scan.nii", make_volume((6, 7, 8))))
    numbers = np.arange(336).reshape(6, 7, 8) % 5
    labels = read_labels(save_nifti(tmp_path / "a.nii", (numbers + 1e-5).astype(np.float32)), scan)
    np.testing.assert_array_equal(labels, read_labels(save_nifti(tmp_path / "b.nii", numbers.astype(np.uint8)), scan))
    assert labels.dtype == np.int32


def test_labels_of_a_scan_with_channels_lie_on_one_of_them(tmp_path, save_nifti, make_volume):
    array = make_volume((6, 7, 8))
    scan = read_scan(save_nifti(tmp_path / "scan.nii", np.stack([array, array], -1)), "sagittal")
    labels = read_labels(save_nifti(tmp_path / "a.nii", (array > 40).astype(np.uint8)), scan, "sagittal")
    np.testing.assert_array_equal(labels, scan.array[0] > 40)
    with pytest.raises(ReadError, match=r"a.nii: has \(2, 8, 7, 6\) voxels") as caught:
        read_labels(save_nifti(tmp_path / "a.nii", np.stack([array, array], -1)), scan)
    assert caught.value.code == "label_grid"


def test_labels_and_scan_say_equally_much_of_their_place(tmp_path, save_nifti, make_volume):
    array = make_volume((6, 7, 8))
    labels = (array > 40).astype(np.uint8)
    placed = read_scan(save_nifti(tmp_path / "scan.nii", array))
    np.save(tmp_path / "scan.npy", array)
    np.save(tmp_path / "labels.npy", labels)
    np.savez(tmp_path / "labels.npz", labels=labels, affine=np.eye(4))
    bare = read_scan(tmp_path / "scan.npy")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.npy", bare), array > 40)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.npz", placed), placed.array > 40)
    np.save(tmp_path / "turned.npy", labels.transpose(2, 1, 0))
    with pytest.raises(ReadError, match="says no spacing or place, its scan where its voxels lie") as caught:
        read_labels(tmp_path / "turned.npy", placed)
    assert caught.value.code == "label_grid"


def test_a_dicom_series_may_have_labels_in_another_format(tmp_path, save_dicom):
    planes = np.arange(6 * 5 * 4).reshape(6, 5, 4) + 100
    series = save_dicom(tmp_path / "series", planes, spacing=(1.5, 0.5, 3.0))
    scan = read_scan(series)
    image = SimpleITK.GetImageFromArray((planes > 150).astype(np.uint8))
    image.SetSpacing((1.5, 0.5, 3.0))
    SimpleITK.WriteImage(image, str(tmp_path / "labels.nrrd"))
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nrrd", scan), planes > 150)
    np.testing.assert_array_equal(read_labels(series, scan), planes)


def test_voxels_come_in_the_byte_order_of_the_machine(tmp_path, make_volume):
    array = make_volume().astype(">i2")
    np.save(tmp_path / "a.npy", array.transpose())
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]), header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    for name in ("a.npy", "a.nii"):
        scan = read_scan(tmp_path / name)
        assert scan.array.dtype.isnative
        np.testing.assert_array_equal(scan.array, array.transpose())


def test_a_file_called_dcm_without_the_magic_word_is_not_called_unknown(tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(400))
    with pytest.raises(ReadError, match="is not DICOM, or a part of it without the preamble"):
        read_scan(tmp_path / "a.dcm")
