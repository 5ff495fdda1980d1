from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pieces import pieces_of
from vissl_jointssl.preparation.recipe import Options, Source


def test_a_whole_ct_is_windowed_and_nothing_else(tmp_path, save_nifti, make_volume):
    array = make_volume((6, 7, 8))
    save_nifti(tmp_path / "a.nii", array)
    (piece,) = pieces_of(Source("a", "a.nii", "p"), tmp_path, Options())
    assert (piece.suffix, piece.modality, piece.spacing, piece.labels) == ("", "CT", (1, 1, 1), None)
    hounsfield = piece.array / 65535 * 2000 - 1000
    np.testing.assert_allclose(hounsfield, array[::-1, ::-1].transpose(2, 1, 0), atol=0.02)


def test_scan_and_labels_are_resampled_to_one_grid_and_the_true_spacing_is_told(tmp_path, save_nifti, make_volume):
    array = make_volume((10, 12, 14))
    save_nifti(tmp_path / "a.nii", array)
    save_nifti(tmp_path / "l.nii", (array > -500).astype(np.uint8))
    source = Source("a", "a.nii", "p", label_path="l.nii")
    (piece,) = pieces_of(source, tmp_path, Options(spacing=(4.0, 2.0, 2.0)))
    assert piece.array.shape == piece.labels.shape == (4, 6, 5)  # 14 mm / 4 mm rounds to 4 slices of 3.5 mm
    assert piece.spacing == (3.5, 2.0, 2.0)


def test_regions_of_air_are_dropped_and_the_rest_get_the_class_of_their_largest_organ(tmp_path, save_nifti):
    array = np.full((8, 8, 16), -1000, np.int16)
    array[:, :, :8] = np.random.default_rng(0).integers(0, 80, (8, 8, 8))
    labels = np.zeros_like(array, np.uint8)
    labels[:, :, :4], labels[:, :2, 4:8] = 50, 60
    save_nifti(tmp_path / "a.nii", array)
    save_nifti(tmp_path / "l.nii", labels)
    options = Options(tile_size=(4, 8, 8), minimum_foreground=0.2, region_share=0.3)
    source = Source("a", "a.nii", "p", label_path="l.nii", label_groups={50: 1, 60: 2})
    pieces = list(pieces_of(source, tmp_path, options))
    assert [(piece.suffix, piece.label) for piece in pieces] == [("-r0000", 0), ("-r0001", None)]
    assert set(np.unique(pieces[1].labels)) == {0, 2}
    assert pieces[0].labels.dtype == np.uint8
    # a label map whose numbers are not listed is background throughout
    other = Source("a", "a.nii", "p", label_path="l.nii", label_groups={7: 1})
    assert all(piece.labels.max() == 0 for piece in pieces_of(other, tmp_path, options))


def test_the_percentile_window_of_a_region_is_that_of_its_scan(tmp_path, save_nifti):
    ramp = np.linspace(0, 500, 16)[None, None, :] * np.ones((8, 8, 16))
    save_nifti(tmp_path / "a.nii", ramp.astype(np.float32))
    source = Source("a", "a.nii", "p", modality="MR")
    first, second = pieces_of(source, tmp_path, Options(tile_size=(8, 8, 8)))
    assert first.array.max() < second.array.min()


def test_a_wrong_modality_shows(tmp_path, save_nifti, make_volume):
    bright = make_volume() + 9000
    save_nifti(tmp_path / "a.nii", bright)
    with pytest.raises(ReadError, match=r"falls on one side of the window \(-1000.0, 1000.0\) of CT.*Hounsfield"):
        list(pieces_of(Source("a", "a.nii", "p", modality="CT"), tmp_path, Options()))
    save_nifti(tmp_path / "b.nii", make_volume())
    with pytest.raises(ReadError, match="no region has 99% of voxels that are not air"):
        list(pieces_of(Source("b", "b.nii", "p"), tmp_path, Options(tile_size=(8, 8, 8), minimum_foreground=0.99)))


def test_a_scan_that_looks_like_a_label_map_is_pointed_out(tmp_path, save_nifti, make_volume, caplog):
    save_nifti(tmp_path / "a.nii", make_volume())
    list(pieces_of(Source("a", "a.nii", "p"), tmp_path, Options()))
    assert caplog.text == ""
    save_nifti(tmp_path / "l.nii", (make_volume() > 40).astype(np.uint8))
    list(pieces_of(Source("l", "l.nii", "p"), tmp_path, Options()))
    assert "l.nii: holds so few different values that it looks like a label map" in caplog.text


def test_negative_label_numbers_are_refused(tmp_path, save_nifti, make_volume):
    array = make_volume()
    save_nifti(tmp_path / "a.nii", array)
    save_nifti(tmp_path / "l.nii", np.full_like(array, -3))
    with pytest.raises(ReadError, match="holds label numbers from -3 to -3"):
        list(pieces_of(Source("a", "a.nii", "p", label_path="l.nii"), tmp_path, Options()))


def test_dark_grey_images_fill_their_range_and_colours_stay(tmp_path):
    grey = np.linspace(10, 60, 400).astype(np.uint8).reshape(20, 20)
    colour = np.stack([grey, grey // 2, grey // 3], axis=-1)
    Image.fromarray(grey).save(tmp_path / "g.png")
    Image.fromarray(colour).save(tmp_path / "c.png")
    (piece,) = pieces_of(Source("g", "g.png", "p", "image"), tmp_path, Options())
    assert (piece.array.min(), piece.array.max(), piece.array.dtype) == (0, 255, np.uint8)
    assert (piece.modality, piece.spacing) == ("OT", None)
    (piece,) = pieces_of(Source("c", "c.png", "p", "image", label=4), tmp_path, Options())
    np.testing.assert_array_equal(piece.array, colour)
    assert piece.label == 4
