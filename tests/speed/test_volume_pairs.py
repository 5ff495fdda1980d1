"""The same box in a file and in the cache, whatever the file's orientation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from vissl_jointssl.preparation.pipeline import prepare_folder
from vissl_jointssl.speed.crop_readers import CONTESTANTS, OURS, check_same, from_cache, slices_from_cache
from vissl_jointssl.speed.volume_pairs import Crop, VolumePair, draw_crop, pair_volume

# Every way that the axes of a file can lie, by nibabel's letters; 8 of 48, each axis first, reversed and not.
ORIENTATIONS = ["RAS", "LPS", "SRA", "IPR", "ASL", "PIR", "LAS", "AIL"]


@pytest.fixture
def pair_of(tmp_path: Path) -> Callable[..., VolumePair]:
    """A scan with these values and axis codes, prepared and paired."""

    def make(values: np.ndarray, codes: str = "RAS", modality: str = "CT") -> VolumePair:
        folder = tmp_path / codes
        folder.mkdir()
        image: Any = nibabel.Nifti1Image(values, np.diag([0.8, 0.9, 1.5, 1.0]))
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
        )
        nibabel.save(image.as_reoriented(turn), folder / "a.nii.gz")
        manifest = prepare_folder(folder, tmp_path / f"{codes}-cache", modality=modality)
        return pair_volume(folder / "a.nii.gz", manifest, manifest.entries[0])

    return make


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, shape).astype(np.int16)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_contestant_gives_the_same_voxels(pair_of: Callable[..., VolumePair], codes: str) -> None:
    pair = pair_of(_noise(14, 12, 10), codes)
    rng = np.random.default_rng(1)
    for _ in range(5):
        crop = draw_crop(pair, (3, 4, 5), rng)
        results = {name: contestant(crop) for name, contestant in CONTESTANTS.items()}
        assert {result.shape for result in results.values()} == {(3, 4, 5)}
        check_same(crop, results)
    # An oracle that knows the axes: F is foot to head, H front to back, W right to left.
    f, h, w = crop.parameters.first
    expected = _noise(14, 12, 10)[::-1, ::-1].transpose(2, 1, 0)[f : f + 3, h : h + 4, w : w + 5]
    np.testing.assert_allclose(results["nibabel_whole"], (expected + 1000.0) / 2000, atol=2e-4)


def test_another_box_is_noticed(pair_of: Callable[..., VolumePair]) -> None:
    pair = pair_of(_noise(14, 12, 10))
    crop = draw_crop(pair, (3, 4, 5), np.random.default_rng(1))
    ours = from_cache(crop)
    for other in (ours[::-1], ours.transpose(0, 2, 1)[:, :4], np.roll(ours, 1, axis=2), ours + 0.01, ours * np.nan):
        with pytest.raises(ValueError, match=r"torchio gave (other grey values than the cache|\(3, 4, 4\) of float32)"):
            check_same(crop, {OURS: ours, "torchio": other})
    with pytest.raises(ValueError, match=r"torchio gave .* of float64, the cache .* of float32"):
        check_same(crop, {OURS: ours, "torchio": ours.astype(np.float64)})


def test_grey_values_of_an_mr_agree_by_its_own_window(pair_of: Callable[..., VolumePair]) -> None:
    values = np.random.default_rng(0).gamma(2.0, 100.0, (16, 16, 16)).astype(np.float32)
    pair = pair_of(values, modality="MR")
    crop = draw_crop(pair, (16, 16, 16), np.random.default_rng(1))
    check_same(crop, {name: contestant(crop) for name, contestant in CONTESTANTS.items()})


def test_crops_lie_inside_and_reach_every_place(pair_of: Callable[..., VolumePair]) -> None:
    pair = pair_of(_noise(6, 5, 4))
    rng = np.random.default_rng(0)
    crops = [draw_crop(pair, (3, 4, 4), rng) for _ in range(300)]
    assert {crop.parameters.first for crop in crops} == set(itertools.product(range(2), range(2), range(3)))
    for crop in crops:
        assert [part.stop - part.start for part in crop.file_box] == [4, 4, 3]
        for part, length in zip(crop.file_box, (6, 5, 4), strict=True):
            assert 0 <= part.start < part.stop <= length


def test_a_volume_smaller_than_the_crop_is_taken_whole_along_that_axis(pair_of: Callable[..., VolumePair]) -> None:
    crop: Crop = draw_crop(pair_of(_noise(6, 5, 4)), (64, 3, 128), np.random.default_rng(0))
    results = {name: contestant(crop) for name, contestant in CONTESTANTS.items()}
    assert results[OURS].shape == (4, 3, 6)
    check_same(crop, results)


def test_a_file_of_four_axes_is_refused(tmp_path: Path, pair_of: Callable[..., VolumePair]) -> None:
    pair = pair_of(_noise(6, 5, 4))
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), tmp_path / "b.nii.gz")
    with pytest.raises(ValueError, match=r"b.nii.gz: has shape \(4, 4, 4, 3\); the loader is measured on one 3D"):
        pair_volume(tmp_path / "b.nii.gz", pair.manifest, pair.entry)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "c.nii.gz")
    with pytest.raises(ValueError, match=r"c.nii.gz: has \(4, 4, 4\) voxels, its row \(4, 5, 6\)"):
        pair_volume(tmp_path / "c.nii.gz", pair.manifest, pair.entry)


def test_whole_slices_hold_the_crop(pair_of: Callable[..., VolumePair]) -> None:
    pair = pair_of(_noise(14, 12, 10))
    crop = draw_crop(pair, (3, 4, 5), np.random.default_rng(1))
    slices = slices_from_cache(crop)
    assert slices.shape == (3, 12, 14)
    _, h, w = crop.parameters.first
    np.testing.assert_array_equal(slices[:, h : h + 4, w : w + 5], from_cache(crop))
