from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.recipe import Patch

HEADER = "seriesuid,coordX,coordY,coordZ,class\n"
FLIPPED = (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)  # as the TransformMatrix of some of LUNA16's scans


def series(subset: int, number: int = 0) -> str:
    return f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{subset}{number}"


@pytest.fixture
def fake_luna(tmp_path, touch):
    """One scan in each of the ten subsets, as empty files, and two candidates in each."""

    def make(root: Path = tmp_path / "LUNA16") -> Path:
        lines = []
        for subset in range(10):
            touch(root / f"subset{subset}" / f"{series(subset)}.mhd")
            touch(root / f"subset{subset}" / f"{series(subset)}.raw")
            lines += [f"{series(subset)},{subset}.5,-2,30,1\n", f"{series(subset)},4,5,-6,0\n"]
        touch(root / "seg-lungs-LUNA16" / f"{series(0)}.mhd")  # LUNA16 ships masks of lungs by the same names
        touch(root / "annotations.csv")
        (root / "candidates_V2.csv").write_text(HEADER + "".join(lines))
        return root

    return make


def splits_of(recipe) -> list[str]:
    return [source.split for source in sorted(recipe.sources, key=lambda source: source.path)]


def test_the_first_seven_subsets_train_and_the_masks_of_lungs_are_no_scans(fake_luna):
    recipe = data_set_recipe("luna2016", fake_luna())
    recipe.check()
    assert splits_of(recipe) == ["train"] * 7 + ["test"] * 3
    assert {source.path for source in recipe.sources} == {f"subset{n}/{series(n)}.mhd" for n in range(10)}
    assert {source.modality for source in recipe.sources} == {"CT"}
    assert len({source.patient for source in recipe.sources}) == 10
    assert not any(series(n) in source.id + source.patient for source in recipe.sources for n in range(10))


def test_candidates_are_patches_in_ras_of_their_scan_and_split_as_in_table_8(fake_luna):
    recipe = data_set_recipe("luna2016_v2", fake_luna())
    recipe.check()
    assert splits_of(recipe) == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    by_path = {source.path: source.patches for source in recipe.sources}
    assert by_path[f"subset3/{series(3)}.mhd"] == (Patch((-3.5, 2.0, 30.0), 1), Patch((-4.0, -5.0, -6.0), 0))
    assert recipe.label_names == ("no nodule", "nodule")
    assert recipe.options.patch_size == (32, 64, 64)


def test_the_folder_above_and_copies_that_unzip_into_folders_of_their_own_are_taken(fake_luna, tmp_path):
    fake_luna()
    assert len(data_set_recipe("luna2016_v2", tmp_path).sources) == 10
    nested = tmp_path / "kaggle"
    for path in sorted((tmp_path / "LUNA16").glob("subset*/*")):
        (nested / path.parent.name / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(nested / path.parent.name / path.parent.name / path.name)
    (nested / "candidates_V2").mkdir()
    (tmp_path / "LUNA16" / "candidates_V2.csv").rename(nested / "candidates_V2" / "candidates_V2.csv")
    assert splits_of(data_set_recipe("luna2016_v2", nested)) == ["train"] * 5 + ["val"] * 2 + ["test"] * 3


def test_another_folder_is_told_what_was_looked_for_what_is_there_and_where_the_data_set_is_had(tmp_path):
    (tmp_path / "volume-0.nii").touch()
    with pytest.raises(PreparationError, match=r"(?s)subset\[0-9\]/\*\.mhd.*Found there: volume-0\.nii.*luna16\.grand"):
        data_set_recipe("luna2016", tmp_path)


def test_candidates_that_are_not_there_are_looked_for_by_name(fake_luna):
    root = fake_luna()
    (root / "candidates_V2.csv").rename(root / "candidates.csv")
    with pytest.raises(PreparationError, match=r"not found below it: candidates_V2\.csv"):
        data_set_recipe("luna2016_v2", root)


def test_a_header_without_voxels_and_a_series_that_is_there_twice_are_named(fake_luna, touch):
    root = fake_luna()
    (root / "subset2" / f"{series(2)}.raw").unlink()
    with pytest.raises(PreparationError, match=rf"subset2/{series(2)}\.mhd: its voxels, a \.raw file"):
        data_set_recipe("luna2016", root)
    touch(root / "subset4" / f"{series(2)}.mhd")
    with pytest.raises(PreparationError, match=rf"subset4/{series(2)}\.mhd: the same case as .*subset2/{series(2)}"):
        data_set_recipe("luna2016", root)


def test_a_scan_without_a_candidate_is_named(fake_luna, touch):
    root = fake_luna()
    for suffix in ("mhd", "raw"):
        touch(root / "subset0" / f"{series(0, 7)}.{suffix}")
    with pytest.raises(PreparationError, match=rf"subset0/{series(0, 7)}\.mhd: no candidate lies in it"):
        data_set_recipe("luna2016_v2", root)


def test_a_part_of_the_subsets_is_prepared_and_said(fake_luna, caplog):
    root = fake_luna()
    for path in root.glob("subset[1-9]/*"):
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert len(data_set_recipe("luna2016_v2", root).sources) == 1
    assert "candidates of 9 scans are left out" in caplog.text
    assert "1 of the 888 sources of a full copy" in caplog.text


def write_scan(root: Path, subset: int, spacing: tuple[float, ...], direction: tuple[float, ...]) -> str:
    """A CT with a bright ball around one voxel; its line of the table, by ITK's own account of where that voxel is."""
    array = np.random.default_rng(subset).integers(-900, -700, (70, 90, 80)).astype(np.int16)
    k, j, i = (
        (31, 40, 55) if subset % 2 else (3, 4, 5)
    )  # the second is near a corner, so that its patch leaves the scan
    distance = np.linalg.norm((np.indices(array.shape).T - (k, j, i)) * np.array(spacing)[::-1], axis=-1).T
    array[distance <= 2] = 900
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-150.3, 120.8, -310.2))
    image.SetDirection(direction)
    (root / f"subset{subset}").mkdir(parents=True)
    SimpleITK.WriteImage(image, str(root / f"subset{subset}" / f"{series(subset)}.mhd"))
    x, y, z = image.TransformIndexToPhysicalPoint((i, j, k))
    return f"{series(subset)},{x!r},{y!r},{z!r},{subset % 2}\n"


def test_the_candidate_is_in_the_middle_of_its_patch_whatever_the_orientation_and_spacing(tmp_path):
    root = tmp_path / "raw"
    lines = [
        write_scan(root, 0, (1.0, 1.0, 1.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1)),
        write_scan(root, 5, (1.0, 1.0, 1.0), FLIPPED),
        write_scan(root, 9, (0.75, 0.75, 1.25), FLIPPED),
    ]
    (root / "candidates_V2.csv").write_text(HEADER + "".join(lines))
    manifest = prepare(data_set_recipe("luna2016_v2", root), tmp_path / "out")
    manifest.check_files()
    assert {(entry.split, entry.label) for entry in manifest.entries} == {("train", 0), ("val", 1), ("test", 1)}
    for entry in manifest.entries:
        assert entry.shape == (32, 64, 64)
        assert entry.dtype == "uint8"
        bright = np.argwhere(manifest.open(entry) > 128)  # above 0 HU
        assert 8 < len(bright) < 60
        np.testing.assert_allclose(bright.mean(axis=0), (16, 32, 32), atol=0.7)
