from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.processing.pieces import pieces_of
from vissl_jointssl.preparation.recipe import Options, Patch, Source


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


def test_a_scan_that_looks_like_a_label_map_is_pointed_out(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "a.nii", make_volume())
    (piece,) = pieces_of(Source("a", "a.nii", "p"), tmp_path, Options())
    assert not any("label map" in note for note in piece.notes)
    save_nifti(tmp_path / "l.nii", (make_volume() > 40).astype(np.uint8))
    (piece,) = pieces_of(Source("l", "l.nii", "p"), tmp_path, Options())
    assert any("holds so few different values that it looks like a label map" in note for note in piece.notes)


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


def test_channels_are_windowed_one_by_one_and_share_labels_and_grid(tmp_path, save_nifti):
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 100, (6, 7, 8)), rng.uniform(5000, 9000, (6, 7, 8))
    save_nifti(tmp_path / "t1.nii", first.astype(np.float32))
    save_nifti(tmp_path / "t2.nii", second.astype(np.float32))
    save_nifti(tmp_path / "l.nii", (first > 50).astype(np.uint8))
    source = Source("a", "t1.nii", "p", modality="MR", channel_paths=("t2.nii",), label_path="l.nii")
    (piece,) = pieces_of(source, tmp_path, Options(spacing=(2.0, 1.0, 1.0)))
    assert piece.array.shape == (2, 4, 7, 6)
    assert piece.labels.shape == (4, 7, 6)
    for channel, name in zip(piece.array, ("t1.nii", "t2.nii"), strict=True):
        (alone,) = pieces_of(Source("b", name, "p", modality="MR"), tmp_path, Options(spacing=(2.0, 1.0, 1.0)))
        np.testing.assert_array_equal(channel, alone.array)
    np.testing.assert_allclose(piece.grid.affine, alone.grid.affine)
    tiled = list(pieces_of(source, tmp_path, Options(tile_size=(4, 4, 4))))
    assert {tile.array.shape for tile in tiled} == {(2, 4, 4, 4)}
    assert {tile.labels.shape for tile in tiled} == {(4, 4, 4)}


def test_a_file_of_four_axes_becomes_what_the_option_says(tmp_path, save_nifti, make_volume):
    series = np.stack([make_volume((6, 7, 8), seed) + 1000 for seed in range(3)], axis=-1)
    save_nifti(tmp_path / "a.nii", series)
    source = Source("a", "a.nii", "p", modality="MR")

    def made(fourth_axis: str) -> list:
        return list(pieces_of(source, tmp_path, Options(fourth_axis=fourth_axis)))

    (first,), (channels,), volumes = made("first"), made("channels"), made("volumes")
    assert any("holds 3 volumes; the first is taken (--fourth-axis" in note for note in first.notes)
    assert [piece.suffix for piece in volumes] == ["-t0000", "-t0001", "-t0002"]
    np.testing.assert_array_equal(channels.array, np.stack([piece.array for piece in volumes]))
    np.testing.assert_array_equal(first.array, volumes[0].array)
    assert not volumes[0].notes


def test_cropping_keeps_scan_labels_and_the_place_in_the_room_together(tmp_path, save_nifti):
    affine = np.array([[-0.7, 0.02, 0, 50], [0.02, 0.7, 0, 80], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
    array = np.full((40, 44, 20), -1000, np.int16)
    array[10:24, 12:30, 4:12] = 40
    array[17, 20, 8] = 900  # a landmark
    labels = (array == 900).astype(np.uint8)
    save_nifti(tmp_path / "a.nii", array, affine)
    save_nifti(tmp_path / "l.nii", labels, affine)
    source = Source("a", "a.nii", "p", label_path="l.nii", modality="CT")
    for options in (
        Options(crop_foreground=True),
        Options(crop_foreground=True, slice_axis="coronal"),
        Options(crop_foreground=True, spacing=(1.25, 0.5, 0.5)),
    ):
        (piece,) = pieces_of(source, tmp_path, options)
        assert np.prod(piece.array.shape) * np.prod(piece.spacing) < 0.5 * array.size * 0.7 * 0.7 * 2.5
        wanted = (affine @ [17, 20, 8, 1])[:3]
        for found in (np.argwhere(piece.labels == 1), np.argwhere(piece.array == piece.array.max())):
            middle = piece.grid.affine @ [*found.mean(axis=0), 1]
            np.testing.assert_allclose(middle[:3], wanted, atol=0.7)
        assert piece.grid.source_shape == (40, 44, 20)
        np.testing.assert_allclose(piece.grid.source_affine, affine, atol=1e-6)


def test_a_patch_shows_what_lies_at_its_centre_in_the_room(tmp_path, save_nifti):
    affine = np.array([[-0.8, 0, 0, 50], [0, -0.8, 0, 80], [0, 0, 2.0, -300], [0, 0, 0, 1.0]])
    array = np.full((30, 32, 12), -1000, np.int16)
    array[14:26, 4:14, 2:9] = 0  # the body; the second patch lies in the air around it, which is not cropped then
    array[20, 9, 5], array[0, 31, 11] = 1000, 600
    save_nifti(tmp_path / "a.nii", array, affine)
    centres = [tuple((affine @ [*index, 1])[:3]) for index in ((20, 9, 5), (0, 31, 11))]
    source = Source("a", "a.nii", "p", modality="CT", patches=(Patch(centres[0], 1), Patch(centres[1])))
    for spacing in (None, (1.0, 0.4, 0.4)):
        options = Options(patch_size=(4, 8, 6), spacing=spacing, stored_type="uint8", crop_foreground=True)
        first, second = pieces_of(source, tmp_path, options)
        assert [piece.suffix for piece in (first, second)] == ["-p00000", "-p00001"]
        assert [piece.label for piece in (first, second)] == [1, None]
        assert {(piece.array.shape, piece.array.dtype.name) for piece in (first, second)} == {((4, 8, 6), "uint8")}
        brightest = np.unravel_index(first.array.argmax(), first.array.shape)
        assert np.abs(np.array(brightest) - (2, 4, 3)).max() <= (0 if spacing is None else 1)
        assert (second.array == 0).any()  # beyond the border
    with pytest.raises(
        ReadError, match=r"1 of its 1 patches have their centre outside the scan: 0 at \(0.0, 0.0, 0.0\)"
    ):
        list(pieces_of(Source("a", "a.nii", "p", patches=(Patch((0.0, 0.0, 0.0)),)), tmp_path, options))


def test_planes_may_overlap(tmp_path, save_nifti, make_volume):
    array = make_volume((6, 7, 8))
    left, right = np.zeros_like(array, np.uint8), np.zeros_like(array, np.uint8)
    left[:4], right[3:] = 255, 1
    for name, content in (("a.nii", array), ("left.nii", left), ("right.nii", right)):
        save_nifti(tmp_path / name, content)
    source = Source("a", "a.nii", "p", plane_paths=("left.nii", "right.nii"))
    (piece,) = pieces_of(source, tmp_path, Options())
    assert (piece.labels.shape, piece.labels.dtype) == ((2, 8, 7, 6), np.uint8)
    wanted = np.stack([left == 255, right == 1])[:, ::-1, ::-1].transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(piece.labels, wanted)
    (small,) = pieces_of(source, tmp_path, Options(spacing=(2.0, 2.0, 2.0)))
    assert small.labels.shape == (2, *small.array.shape)
    tiles = list(pieces_of(source, tmp_path, Options(tile_size=(4, 4, 3))))
    assert {tile.labels.shape for tile in tiles} == {(2, 4, 4, 3)}
    left[0, 0, 0] = 3
    save_nifti(tmp_path / "left.nii", left)
    with pytest.raises(ReadError, match=r"left.nii: holds 2 label numbers and is to be the mask of one") as error:
        list(pieces_of(source, tmp_path, Options()))
    assert error.value.code == "label_values"


def test_a_scan_without_voxel_sizes_has_none_and_is_not_resampled(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32))
    (piece,) = pieces_of(Source("a", "a.npy", "p"), tmp_path, Options())
    assert (piece.spacing, piece.grid, piece.array.shape) == (None, None, (5, 6, 7))
    with pytest.raises(ReadError, match=r"does not say how large its voxels are. Next: .* leave spacing out") as error:
        list(pieces_of(Source("a", "a.npy", "p"), tmp_path, Options(spacing=(1.0, 1.0, 1.0))))
    assert error.value.code == "geometry"
    patch = Source("a", "a.npy", "p", patches=(Patch((1.0, 1.0, 1.0)),))
    with pytest.raises(ReadError, match=r"does not say where its voxels are. Next: .* leave patches out"):
        list(pieces_of(patch, tmp_path, Options(patch_size=(2, 2, 2))))


def save_picture(path, array) -> None:
    Image.fromarray(array).save(path)


def test_masks_planes_and_boxes_shrink_with_their_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (41, 80)).astype(np.uint8)
    labels = np.zeros((41, 80), np.uint8)
    labels[10:20, 40:60] = 3
    save_picture(tmp_path / "x.png", image)
    save_picture(tmp_path / "l.png", labels)
    box = Box(2, 40.0, 10.0, 60.0, 20.0)
    source = Source("x", "x.png", "p", "image", label_path="l.png", boxes=(box, Box(0, -0.5, 0.0, 80.9, 41.0)))
    (whole,) = pieces_of(source, tmp_path, Options())
    np.testing.assert_array_equal(whole.labels, labels)
    assert whole.boxes == (box, Box(0, 0.0, 0.0, 80.0, 41.0))
    (piece,) = pieces_of(source, tmp_path, Options(image_size=20))
    assert piece.array.shape == piece.labels.shape == (10, 20)
    small = 10 / 41  # the two sides do not shrink by quite the same
    assert piece.boxes == (Box(2, 10.0, 10.0 * small, 15.0, 20.0 * small), Box(0, 0.0, 0.0, 20.0, 41.0 * small))
    rows, columns = np.nonzero(piece.labels == 3)
    assert (columns.min(), columns.max()) == (10, 14)
    assert {3, 4} <= set(rows)
    (planes,) = pieces_of(
        Source("x", "x.png", "p", "image", plane_paths=("l.png", "l.png")), tmp_path, Options(image_size=20)
    )
    np.testing.assert_array_equal(planes.labels, np.stack([piece.labels == 3] * 2))
    (empty,) = pieces_of(Source("x", "x.png", "p", "image", boxes=()), tmp_path, Options())
    assert empty.boxes == ()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(0, 70.0, 0.0, 81.5, 10.0), r"its box 0, \(70.0, 0.0, 81.5, 10.0\), leaves the array of 40 x 80 pixels"),
        (Box(0, 5.0, 5.0, 5.0, 9.0), "is empty"),
        (Box(0, 80.5, 5.0, 80.9, 9.0), "is empty"),  # wholly outside, though by less than a pixel
    ],
)
def test_a_box_that_is_empty_or_leaves_its_image_is_a_fault(tmp_path, box, message):
    save_picture(tmp_path / "x.png", np.arange(3200, dtype=np.uint16).reshape(40, 80).astype(np.uint8))
    with pytest.raises(ReadError, match=message) as error:
        list(pieces_of(Source("x", "x.png", "p", "image", boxes=(box,)), tmp_path, Options()))
    assert error.value.code == "boxes"


def test_an_original_keeps_its_bytes_where_they_alone_decode_to_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(10, 60, (12, 14)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "g.jpg", comment=b"DOE^JANE")
    Image.fromarray(np.stack([grey] * 3, -1)).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    options = Options(image_form="original")
    (piece,) = pieces_of(Source("g", "g.jpg", "p", "image"), tmp_path, options)
    suffix, data = piece.original
    assert suffix == ".jpg"
    assert b"DOE" not in data
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.array(image), piece.array)
    for name in ("palette.png", "deep.png"):
        (piece,) = pieces_of(Source("g", name, "p", "image"), tmp_path, options)
        assert piece.original is None
    (piece,) = pieces_of(Source("g", "g.jpg", "p", "image"), tmp_path, Options(image_form="original", image_size=7))
    assert (piece.original, piece.array.shape) == (None, (6, 7))


def test_deep_images_are_stored_in_eight_bits_where_that_is_asked_for(tmp_path):
    deep = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    save_picture(tmp_path / "x.png", deep)
    (fine,) = pieces_of(Source("x", "x.png", "p", "image"), tmp_path, Options())
    (coarse,) = pieces_of(Source("x", "x.png", "p", "image"), tmp_path, Options(stored_type="uint8"))
    assert (fine.array.dtype, coarse.array.dtype) == (np.uint16, np.uint8)
    np.testing.assert_allclose(coarse.array / 255, fine.array / 65535, atol=0.5 / 255 + 1e-6)


def test_samples_of_a_medmnist_file_are_patients_of_their_own_and_shapes_fill_their_range(tmp_path):
    images = np.random.default_rng(0).integers(0, 200, (3, 4, 5, 6)).astype(np.uint8)
    images[1], images[2] = images[1] % 2, 7
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=np.array([[4], [0], [2]], np.uint8))
    names = ("train_images", "train_labels")
    pieces = list(pieces_of(Source("m", "m.npz", "p", array_names=names), tmp_path, Options()))
    assert [(piece.suffix, piece.label) for piece in pieces] == [("-i00000", 4), ("-i00001", 0), ("-i00002", 2)]
    assert len({piece.patient for piece in pieces} - {None, "p"}) == 3
    np.testing.assert_array_equal(pieces[0].array, images[0])
    np.testing.assert_array_equal(pieces[1].array, images[1] * 255)
    assert [piece.notes for piece in pieces] == [(), (), ("sample 2 has the same value throughout",)]
