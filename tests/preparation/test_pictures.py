from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pictures import read_mask, read_picture, shrink

GREY = np.random.default_rng(0).integers(0, 200, (6, 9)).astype(np.uint8)


def test_every_2d_format_gives_a_picture(tmp_path, save_slice):
    Image.fromarray(GREY).save(tmp_path / "a.PNG")
    np.save(tmp_path / "a.npy", GREY)
    save_slice(tmp_path / "a.dicom", GREY, Modality="DX")
    for name, modality in (("a.PNG", None), ("a.npy", None), ("a.dicom", "XR")):
        picture = read_picture(tmp_path / name)
        assert picture.modality == modality
        low, high = int(GREY.min()), int(GREY.max())
        expected = np.rint((GREY.astype(float) - low) / (high - low) * 65535) if modality else GREY
        np.testing.assert_array_equal(picture.array, expected)


def test_a_raw_x_ray_of_jsrt_is_known_by_its_size_and_turned_round(tmp_path):
    stored = np.zeros((2048, 2048), ">u2")
    stored[0, :3] = 0, 4095, 1
    (tmp_path / "JPCLN001.IMG").write_bytes(stored.tobytes())
    picture = read_picture(tmp_path / "JPCLN001.IMG")
    assert (picture.modality, picture.array.dtype) == ("XR", np.uint16)
    assert picture.array[0, :3].tolist() == [65535, 0, 65535 * 4094 // 4095]
    stored[5, 5] = 4096
    (tmp_path / "b.img").write_bytes(stored.tobytes())
    with pytest.raises(ReadError, match="has the size of a JSRT X-ray, and values to 4096") as caught:
        read_picture(tmp_path / "b.img")
    assert caught.value.code == "unsupported"
    (tmp_path / "c.img").write_bytes(stored.tobytes()[:-2])
    with pytest.raises(ReadError, match=r"is of an unknown kind. Next: convert it to one of .png, .jpg"):
        read_picture(tmp_path / "c.img")


def test_arrays_keep_8_and_16_bits_and_others_are_stretched_and_said(tmp_path):
    for array in (GREY, GREY.astype(np.uint16) * 300, np.dstack([GREY, GREY, 255 - GREY])):
        np.save(tmp_path / "a.npy", array)
        picture = read_picture(tmp_path / "a.npy")
        assert picture.array.dtype == array.dtype
        np.testing.assert_array_equal(picture.array, array)
        assert picture.notes == ()
    np.save(tmp_path / "a.npy", GREY.astype(np.int64) * 300)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.npy").array, GREY.astype(np.uint16) * 300)
    np.save(tmp_path / "a.npy", np.array([[-1.0, 0.0], [1.0, 3.0]]))
    picture = read_picture(tmp_path / "a.npy")
    assert picture.array.tolist() == [[0, 16384], [32768, 65535]]
    assert picture.notes == ("values from -1 to 3 are stretched to uint16",)


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((3, 4, 5)), "dimensions"),
        (np.zeros(7), "dimensions"),
        (np.full((3, 4), 5), "constant"),
        (np.array([[1.0, np.inf]]), "not_finite"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(tmp_path, array, code):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ReadError) as caught:
        read_picture(tmp_path / "a.npy")
    assert caught.value.code == code


def test_a_mask_of_half_the_size_is_doubled_pixel_by_pixel(tmp_path):
    mask = np.random.default_rng(0).integers(0, 4, (5, 8)).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "a.gif")
    read = read_mask(tmp_path / "a.gif", (10, 16))
    assert read.dtype == np.int32
    for row in range(10):
        for column in range(16):
            assert read[row, column] == mask[row // 2, column // 2]
    np.testing.assert_array_equal(read_mask(tmp_path / "a.gif", (5, 8)), mask)


def test_a_mask_of_another_shape_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(ReadError, match=r"a.png: has 6 x 9 pixels, its image 9 x 6") as caught:
        read_mask(tmp_path / "a.png", (9, 6))
    assert caught.value.code == "label_grid"


def test_masks_come_from_arrays_and_dicom_too_and_must_be_whole_numbers(tmp_path, save_slice):
    labels = GREY % 5
    np.save(tmp_path / "a.npy", labels.astype(float))
    save_slice(tmp_path / "b", labels)
    for name in ("a.npy", "b"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, (6, 9)), labels)
    for wrong in (labels * 0.3, labels - 1.0, labels + 70000.0):
        np.save(tmp_path / "a.npy", wrong)
        with pytest.raises(ReadError, match=r"not whole numbers from 0 to 65535") as caught:
            read_mask(tmp_path / "a.npy", (6, 9))
        assert caught.value.code == "label_values"
    np.save(tmp_path / "a.npy", np.zeros((2, 6, 9), np.uint8))
    with pytest.raises(ReadError, match=r"is not one 2D map: it has shape \(2, 6, 9\)"):
        read_mask(tmp_path / "a.npy", (6, 9))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_by_a_whole_number_takes_means_of_blocks_in_all_bits(dtype):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (12, 20)).astype(dtype)
    small = shrink(array, 5)
    assert (small.shape, small.dtype) == ((3, 5), dtype)
    means = array.reshape(3, 4, 5, 4).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5 + 1e-3
    colour = np.dstack([array, array[::-1], array[:, ::-1]])
    np.testing.assert_array_equal(shrink(colour, 5)[..., 0], small)


def test_shrinking_keeps_the_ratio_the_mean_and_small_images():
    array = np.random.default_rng(0).integers(0, 65535, (301, 97)).astype(np.uint16)
    small = shrink(array, 100)
    assert small.shape == (100, 32)
    assert small.mean() == pytest.approx(array.mean(), rel=2e-3)
    assert shrink(array, 301) is array
    assert shrink(np.zeros((1000, 1), np.uint8), 10).shape == (10, 1)
    with pytest.raises(ValueError, match="longest_side is 0, expected pixels from 1"):
        shrink(array, 0)


def test_shrinking_labels_makes_no_new_numbers_and_keeps_their_places():
    labels = np.kron(np.array([[0, 7], [300, 2]]), np.ones((30, 30), int)).astype(np.int32)
    small = shrink(labels, 20, labels=True)
    np.testing.assert_array_equal(small, np.kron(np.array([[0, 7], [300, 2]]), np.ones((10, 10), int)))
    assert small.dtype == labels.dtype
