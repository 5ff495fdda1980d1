from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.decoding.images import read_image, read_label_image
from vissl_jointssl.preparation.errors import ReadError

GREY = np.random.default_rng(0).integers(0, 200, (6, 9)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 300
COLOUR = np.random.default_rng(1).integers(0, 255, (6, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_deep_and_colour_images_keep_their_values(tmp_path, suffix):
    for array in (GREY, DEEP, COLOUR):
        if suffix == "bmp" and array is DEEP:
            continue  # no such thing
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(array).save(path)
        read = read_image(path)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_packed_tiff_files_keep_16_bits(tmp_path, compression):
    Image.fromarray(DEEP).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), DEEP)


@pytest.mark.parametrize("array", [GREY, DEEP])
def test_tiff_files_in_which_0_is_white_are_turned_round(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "a.tif", tiffinfo={262: 0})
    stored = Image.open(tmp_path / "a.tif")
    assert stored.tag_v2[262] == 0
    expected = 65535 - array if array is DEEP else np.array(stored)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


def test_big_endian_tiff_files_keep_their_values(tmp_path):
    pixels = DEEP.astype(">u2").tobytes()
    entries = [
        (256, 3, 9),
        (257, 3, 6),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (279, 4, 108),
    ]
    header = b"MM\0*\0\0\0\x08" + len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        data = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        header += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + data
    (tmp_path / "a.tif").write_bytes((header + bytes(4)).ljust(200, b"\0") + pixels)
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, DEEP)
    assert read.dtype.isnative


def test_palettes_and_alpha_channels_become_plain_pixels(tmp_path):
    alpha = np.dstack([COLOUR, GREY])
    Image.fromarray(alpha, "RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), COLOUR)
    Image.fromarray(COLOUR).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (6, 9, 3)
    Image.fromarray(GREY).convert("P").save(tmp_path / "grey.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.gif"), GREY)


def test_grey_stored_as_three_equal_channels_is_grey(tmp_path):
    Image.fromarray(np.dstack([GREY] * 3)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_as_it_is_meant_to_be_seen(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    turned = {  # PS: the tag says where row 0 and column 0 of the file are, EXIF 2.32 4.6.4
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY, -1),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY),
    }
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned[orientation])


def test_several_pages_or_frames_are_no_image(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for name in ("a.tif", "a.gif", "a.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(ReadError, match=r"holds several pages or frames.*Next: save each one as a file") as caught:
            read_image(tmp_path / name)
        assert caught.value.code == "dimensions"


@pytest.mark.parametrize(
    ("array", "code", "words"),
    [
        (np.array([[0.5, 1], [2, 3]], np.float32), "unsupported", "holds values from 0.5 to 3, not whole numbers"),
        (np.array([[-3, 1], [2, 3]], np.int32), "unsupported", "holds values from -3 to 3"),
        (np.array([[np.nan, 1], [2, 3]], np.float32), "not_finite", "NaN or infinite"),
        (np.full((4, 4), 9, np.uint8), "constant", "every pixel is 9"),
    ],
)
def test_values_that_fit_no_picture_are_refused(tmp_path, array, code, words):
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(ReadError, match=words) as caught:
        read_image(tmp_path / "a.tif")
    assert caught.value.code == code


def test_whole_numbers_of_32_bits_that_fit_16_are_kept(tmp_path):
    for kind in (np.float32, np.int32):
        Image.fromarray(DEEP.astype(kind)).save(tmp_path / "a.tif")
        read = read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(read, DEEP)
        assert read.dtype == np.uint16


def test_label_numbers_are_indices_and_not_colours(tmp_path):
    labels = np.array([[0, 1, 2], [3, 3, 0]], np.uint8)
    palette = Image.fromarray(labels, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    for name in ("a.png", "a.gif", "a.bmp", "a.tif"):
        palette.save(tmp_path / name)
        np.testing.assert_array_equal(read_label_image(tmp_path / name), labels)
    Image.fromarray(labels > 0).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "b.png"), labels > 0)
    Image.fromarray(DEEP).save(tmp_path / "c.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "c.png"), DEEP)
    Image.fromarray(np.dstack([labels] * 3 + [labels * 0 + 255]), "RGBA").save(tmp_path / "d.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "d.png"), labels)
    Image.fromarray(labels * 0).save(tmp_path / "e.png")
    assert read_label_image(tmp_path / "e.png").max() == 0


def test_colours_and_lossy_files_are_no_label_maps(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(ReadError, match="shows colours, not label numbers") as caught:
        read_label_image(tmp_path / "a.png")
    assert caught.value.code == "label_values"
    Image.fromarray(GREY).save(tmp_path / "a.jpg")
    with pytest.raises(ReadError, match="is a JPEG, which does not keep label numbers exactly") as caught:
        read_label_image(tmp_path / "a.jpg")
    assert caught.value.code == "label_values"


def test_reading_leaves_pillows_own_limit_as_it_was(tmp_path):
    limit = Image.MAX_IMAGE_PIXELS
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue()[:50])
    with pytest.raises(ReadError):
        read_image(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS
