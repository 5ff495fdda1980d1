from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.doctor.contact_sheet import Tile, choose, contact_sheet
from vissl_jointssl.preparation.doctor.thumbnails import SIDE, Thumbnail, row_thumbnail, source_thumbnail
from vissl_jointssl.preparation.recipe import Options

RED = (255, 92, 80)


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.info == {}
        return np.array(image)


def reds(page: np.ndarray) -> int:
    return int((page == RED).all(axis=2).sum())


def test_a_small_set_is_shown_whole():
    assert choose(5, [2]) == [0, 1, 2, 3, 4]


def test_a_large_set_is_drawn_evenly_and_the_same_every_time():
    shown = choose(4800, [])
    assert len(shown) == 48
    assert shown == choose(4800, []) != choose(4800, [], seed=1)
    assert [number // 100 for number in shown] == list(range(48))


def test_faulty_scans_get_a_third_of_the_page_at_most():
    assert {7, 1000} <= set(choose(4800, [7, 1000]))
    shown = choose(4800, range(1000, 3000))
    assert len(set(shown)) == 48
    assert sum(1000 <= number < 3000 for number in shown) >= 16
    assert any(number < 1000 for number in shown)
    assert any(number >= 3000 for number in shown)


def test_only_faulty_tiles_are_framed_red():
    thumbnail = Thumbnail(np.zeros((SIDE, SIDE), np.uint8), None, 3)
    sound = contact_sheet([Tile(thumbnail, "a", "MR", "", False)])
    warned = contact_sheet([Tile(thumbnail, "a", "MR", "spacing", False)])
    faulty = contact_sheet([Tile(thumbnail, "a", "MR", "", True)])
    assert reds(opened(sound)) == reds(opened(warned)) == 0
    assert reds(opened(faulty)) >= 4 * 3 * SIDE


def test_a_scan_that_cannot_be_read_has_its_place_and_its_name():
    page = opened(contact_sheet([Tile(None, "a very long name " * 9, "cannot be read", "unreadable", True)]))
    assert page.shape[1] == SIDE + 16
    assert (page.max(axis=2) > 200).any()


def test_labels_are_drawn_as_borders_and_leave_the_inside_as_it_is():
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[50:90, 60:100] = 1
    page = opened(contact_sheet([Tile(Thumbnail(np.full((SIDE, SIDE), 9, np.uint8), labels, 0), "", "", "", False)]))
    coloured = (page[8 : 8 + SIDE, 8 : 8 + SIDE] != 9).any(axis=2)
    expected = np.zeros_like(coloured)
    expected[50:90, 60:100] = True
    expected[51:89, 61:99] = False
    assert np.array_equal(coloured, expected)


def test_a_page_of_48_has_six_rows_of_eight():
    tile = Tile(Thumbnail(np.zeros((9, 9), np.uint8), None, 0), "", "", "", False)
    page = opened(contact_sheet([tile] * 48))
    assert page.shape[1] == 8 * (SIDE + 8) + 8
    assert page.shape[0] == 6 * (SIDE + 8 + 45) + 8


def test_pixels_are_square_in_millimetres(make_row, tmp_path):
    thumbnail = row_thumbnail(make_row("a", spacing=(3.0, 2.0, 0.5)), tmp_path)
    assert thumbnail.pixels.shape == (SIDE, round(SIDE * 24 * 0.5 / (20 * 2.0)))


def test_the_slice_with_most_labels_is_shown_and_the_middle_one_without(make_row, tmp_path):
    labels = np.zeros((10, 20, 24), np.uint8)
    labels[2, :2], labels[7, 5:15] = 1, 1
    assert row_thumbnail(make_row("a", labels=labels), tmp_path).slice == 7
    assert row_thumbnail(make_row("b"), tmp_path).slice == 5
    assert row_thumbnail(make_row("c", labels=labels * 0), tmp_path).slice == 5


def test_a_row_that_cannot_be_read_has_no_thumbnail(make_row, tmp_path):
    row = make_row("a")
    (tmp_path / row.path).unlink()
    assert row_thumbnail(row, tmp_path) is None


def test_a_ct_is_shown_in_its_window_and_an_mr_by_its_percentiles(make_ct, make_mr, save_nifti, source, tmp_path):
    save_nifti(tmp_path / "ct.nii.gz", make_ct())
    save_nifti(tmp_path / "mr.nii.gz", make_mr(scale=20))
    options = Options(ct_window=(-1000.0, 1000.0))
    ct = source_thumbnail(source("ct.nii.gz", modality="CT"), tmp_path, options).pixels
    assert ct[5, SIDE // 2] < 10  # air at the border
    assert 90 < np.median(ct) < 170  # soft tissue in the middle of the window
    mr = source_thumbnail(source("mr.nii.gz", modality="MR"), tmp_path, options).pixels
    assert mr.max() == 255
    assert 60 < np.median(mr) < 220  # not clipped at the top of the CT window


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_pictures_are_shown_grey_or_in_colour(shape, source, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    thumbnail = source_thumbnail(source("a.png", kind="image"), tmp_path, Options())
    assert thumbnail.pixels.shape[:2] == (round(SIDE * 0.75), SIDE)
    assert thumbnail.pixels.ndim == len(shape)


def test_a_source_that_cannot_be_read_has_no_thumbnail(source, tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no scan")
    assert source_thumbnail(source("a.nii"), tmp_path, Options()) is None
