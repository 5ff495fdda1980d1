from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from PIL import Image

from vissl_jointssl.evaluation.segmentation.predictions import (
    to_source_grid,
    write_image_prediction,
    write_volume_prediction,
)
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry, Grid
from vissl_jointssl.preparation.processing.orientation import to_slices
from vissl_jointssl.preparation.processing.resampling import resample, resampled_affine, resampled_shape


def turned(degrees: float) -> np.ndarray:
    """About the first axis."""
    angle = np.radians(degrees)
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def affine_of(rotation: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


SOURCES = {
    "RAS": affine_of(np.eye(3), (1.0, 1.0, 2.0), (-3, 4, 5)),
    "flipped": affine_of(np.diag([-1.0, -1, 1]), (0.7, 0.8, 3.0), (90, 120, -40)),
    "sagittal": affine_of(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), (1.1, 0.9, 2.2), (0, 7, 9)),
    "oblique": affine_of(turned(25) @ np.diag([-1.0, 1, 1]), (0.9, 1.2, 2.5), (11, -13, 17)),
}


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_landmark_comes_back_to_its_voxel(name: str, axis: str) -> None:
    affine = SOURCES[name]
    source = np.zeros((9, 11, 7), dtype=np.uint8)
    source[2, 8, 5], source[7, 1, 1], source[4, 4, 3] = 1, 2, 3
    prepared, prepared_affine = to_slices(source, affine, axis)
    grid = Grid(prepared_affine, affine, source.shape)
    assert np.array_equal(to_source_grid(prepared, grid), source)
    planes = np.stack([prepared == number for number in (1, 2, 3)], axis=-1)
    assert np.array_equal(to_source_grid(planes, grid), np.stack([source == n for n in (1, 2, 3)], axis=-1))


@pytest.mark.parametrize("target", [(0.5, 0.4, 0.5), (4.0, 2.0, 2.0), (1.3, 1.7, 0.6)])
@pytest.mark.parametrize("name", SOURCES)
def test_a_resampled_and_cropped_prediction_is_what_nibabel_makes_of_it(name: str, target: tuple[float, ...]) -> None:
    affine, shape = SOURCES[name], (12, 10, 8)
    slices, slices_affine = to_slices(np.zeros(shape), affine, "axial")
    crop = np.eye(4)
    crop[:3, 3] = (1.13, 2.21, 0.87)  # not whole voxels: of two that are as near, either may be taken
    cropped = tuple(length - 4 for length in slices.shape)
    spacing = tuple(np.linalg.norm(slices_affine[:3, :3], axis=0))
    prepared_shape = resampled_shape(cropped, spacing, target)  # type: ignore[arg-type]
    grid = Grid(resampled_affine(slices_affine @ crop, cropped, prepared_shape), affine, shape)
    prepared = np.random.default_rng(0).integers(1, 5, prepared_shape).astype(np.uint8)
    found = to_source_grid(prepared, grid)
    image = nibabel.Nifti1Image(prepared, grid.affine)
    expected = np.asarray(resample_from_to(image, (shape, affine), order=0, mode="grid-constant", cval=0).dataobj)
    assert np.array_equal(found, expected)
    assert 0 < np.count_nonzero(found == 0) < found.size


def test_a_prediction_on_half_the_voxel_size_covers_every_voxel_of_the_scan() -> None:
    affine = SOURCES["flipped"]
    source = np.random.default_rng(0).integers(1, 9, (4, 5, 6)).astype(np.uint8)
    slices, slices_affine = to_slices(source, affine, "axial")
    shape = tuple(2 * length for length in slices.shape)
    grid = Grid(resampled_affine(slices_affine, slices.shape, shape), affine, source.shape)
    assert np.array_equal(to_source_grid(resample(slices, shape, labels=True), grid), source)


def test_a_volume_is_saved_on_the_scans_own_voxels(
    add_row: Callable[..., Entry], make_job: Callable[..., Job], tmp_path: Path
) -> None:
    affine = SOURCES["oblique"]
    source = np.zeros((6, 5, 4), dtype=np.uint8)
    source[1, 3, 2], source[4, 0, 1] = 200, 7
    prepared, prepared_affine = to_slices(source, affine, "axial")
    array = np.zeros(prepared.shape, dtype=np.uint16)
    row = add_row("scan", array, None, grid=Grid(prepared_affine, affine, source.shape))
    job = make_job([row])
    masks = np.stack([prepared == 200, prepared == 7])
    path = write_volume_prediction(masks, row, job.manifest, Targets((200, 7)), tmp_path)
    assert path == tmp_path / "predictions" / "scan.nii.gz"
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), source)
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)
    overlapping = Targets((1, 2), overlapping=True)
    planes = np.asarray(nibabel.load(write_volume_prediction(masks, row, job.manifest, overlapping, tmp_path)).dataobj)
    assert np.array_equal(planes, np.stack([source == 200, source == 7], axis=-1))


def test_a_volume_without_a_grid_is_saved_on_its_own(
    add_row: Callable[..., Entry], make_job: Callable[..., Job], tmp_path: Path
) -> None:
    row = add_row("alone", np.zeros((3, 4, 5), dtype=np.uint16), None, spacing=(3.0, 1.5, 0.5))
    mask = np.zeros((1, 3, 4, 5), dtype=bool)
    mask[0, 2, 1, 0] = True
    path = write_volume_prediction(mask, row, make_job([row]).manifest, Targets((300,)), tmp_path)
    image = nibabel.load(path)
    assert np.argwhere(np.asarray(image.dataobj)).tolist() == [[2, 1, 0]]
    assert np.asarray(image.dataobj).max() == 300
    assert image.header.get_zooms() == (3.0, 1.5, 0.5)
    assert nibabel.aff2axcodes(image.affine) == ("S", "P", "L")
    assert (
        path.read_bytes()
        == write_volume_prediction(
            mask, row, make_job([row]).manifest, Targets((300,)), tmp_path / "again"
        ).read_bytes()
    )


def test_images_are_saved_as_label_numbers_or_one_file_for_each_plane(
    add_row: Callable[..., Entry], tmp_path: Path
) -> None:
    row = add_row("x", np.zeros((2, 3), dtype=np.uint8), None)
    masks = np.array([[[1, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 1]]], dtype=bool)
    (path,) = write_image_prediction(masks, row, Targets((4, 9)), tmp_path)
    assert path == tmp_path / "predictions" / "x.png"
    assert np.array(Image.open(path)).tolist() == [[4, 0, 9], [0, 0, 9]]
    (path,) = write_image_prediction(masks, row, Targets((4, 900)), tmp_path)
    assert np.array(Image.open(path)).tolist() == [[4, 0, 900], [0, 0, 900]]
    masks[0, 0, 2] = True
    paths = write_image_prediction(masks, row, Targets((4, 9), overlapping=True), tmp_path)
    assert [path.name for path in paths] == ["x-4.png", "x-9.png"]
    assert np.array(Image.open(paths[0])).tolist() == [[255, 0, 255], [0, 0, 0]]


def test_an_id_that_no_file_can_have_is_escaped(tmp_path: Path, add_row: Callable[..., Entry]) -> None:
    row = add_row("x", np.zeros((2, 2), dtype=np.uint8), None, id="../a b/c")
    (path,) = write_image_prediction(np.zeros((1, 2, 2), dtype=bool), row, Targets((1,)), tmp_path)
    assert path.name == "..%2Fa%20b%2Fc.png"
    assert path.parent == tmp_path / "predictions"
