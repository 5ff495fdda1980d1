from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.decoding.images import read_image
from vissl_jointssl.preparation.errors import ReadError


def test_grey_deep_and_colour_images_keep_their_values(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    deep = (np.arange(12) * 5000).astype(np.uint16).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    for name, array in (("grey", grey), ("deep", deep), ("colour", colour)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        read = read_image(tmp_path / f"{name}.png")
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_palettes_and_alpha_channels_become_plain_pixels(tmp_path):
    colour = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    Image.fromarray(colour, "RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), colour[..., :3])
    Image.fromarray(colour[..., :3]).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (3, 4, 3)


def test_damaged_and_empty_images_are_refused(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (b"", whole[:30], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ReadError, match=r"x.png: cannot be read as an image .*Next: copy it again"):
            read_image(path)
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(path)
    with pytest.raises(ReadError, match="every pixel is 9"):
        read_image(path)


def test_an_image_that_would_fill_memory_is_refused(tmp_path, monkeypatch):
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(ReadError, match="decompression bomb"):
        read_image(tmp_path / "x.png")
