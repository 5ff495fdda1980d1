from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

ARCHIVE = "media/nas/01_Datasets/CT/LITS"


@pytest.fixture
def fake_lits(tmp_path, touch):
    """All 131 and 70 cases as empty files; the batches hold 0 to 27 and 28 to 130."""

    def make(above: str = "") -> Path:
        root = tmp_path / "LITS"
        for number in range(131):
            batch = root / above / ("Training Batch 1" if number < 28 else "Training Batch 2")
            touch(batch / f"volume-{number}.nii")
            touch(batch / f"segmentation-{number}.nii")
        for number in range(70):
            touch(root / "LITS-Challenge-Test-Data" / f"test-volume-{number}.nii")
        return root

    return make


def test_a_full_copy_trains_on_the_paper_s_111_scans_and_tests_on_those_without_geometry_or_labels(fake_lits, caplog):
    recipe = data_set_recipe("lits2017", fake_lits())
    recipe.check()
    assert not caplog.records
    assert Counter((source.split, source.label_path is not None) for source in recipe.sources) == {
        ("train", True): 111,
        ("test", True): 20,
        ("test", False): 70,
    }
    tests = {Path(source.path).stem for source in recipe.sources if source.split == "test" and source.label_path}
    assert tests == {f"volume-{number}" for number in range(28, 48)}
    for source in recipe.sources:
        if source.label_path is not None:
            assert source.label_path == source.path.replace("volume", "segmentation")
    assert len({source.patient for source in recipe.sources}) == 201
    assert recipe.label_names == ("liver", "liver tumour")


@pytest.mark.parametrize("above", [ARCHIVE, f"Training_Batch1/{ARCHIVE}"])
def test_the_folders_inside_the_home_s_archives_are_known(fake_lits, above):
    assert len(data_set_recipe("lits2017", fake_lits(above)).sources) == 201


def test_a_flat_folder_and_compressed_files_are_taken(tmp_path, touch):
    touch(tmp_path / "volume-3.nii.gz")
    touch(tmp_path / "segmentation-3.nii.gz")
    (source,) = data_set_recipe("lits2017", tmp_path).sources
    assert (source.path, source.label_path) == ("volume-3.nii.gz", "segmentation-3.nii.gz")


def test_another_folder_is_told_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "subset0").mkdir()
    with pytest.raises(PreparationError, match=r"(?s)volume-\*\.nii\*.*Found there: subset0/.*competitions\.codalab"):
        data_set_recipe("lits2017", tmp_path)


def test_scans_and_label_maps_without_a_partner_and_copies_are_named(tmp_path, touch):
    for name in ("volume-1.nii", "volume-2.nii", "segmentation-2.nii", "segmentation-5.nii"):
        touch(tmp_path / name)
    with pytest.raises(PreparationError, match=r"(?s)volume-1\.nii: no label.*segmentation-5\.nii: no image"):
        data_set_recipe("lits2017", tmp_path)
    touch(tmp_path / "old" / "volume-2.nii")
    with pytest.raises(PreparationError, match=r"volume-2\.nii: the same case as .*old/volume-2\.nii"):
        data_set_recipe("lits2017", tmp_path)


# LiTS ships some label maps with an affine of their own (nnU-Net, issue 2751); their voxels are the scan's all the same
@pytest.mark.parametrize("label_affine", [np.eye(4), np.diag([-1.0, -1, 1, 1]), np.diag([0.7, 0.7, 5, 1])])
def test_liver_and_tumour_arrive_with_their_scan(tmp_path, write_nifti, label_affine):
    raw = tmp_path / "raw"
    write_nifti(raw / "Training Batch 1" / "volume-0.nii")
    labels = write_nifti(raw / "Training Batch 1" / "segmentation-0.nii", labels=(0, 1, 2), affine=label_affine)
    write_nifti(raw / "LITS-Challenge-Test-Data" / "test-volume-0.nii")
    manifest = prepare(data_set_recipe("lits2017", raw), tmp_path / "out")
    manifest.check_files()
    (labelled,) = (entry for entry in manifest.entries if entry.label_path is not None)
    # i runs to the right and becomes W from right to left, j to the front and becomes H, k to the head and becomes F
    np.testing.assert_array_equal(manifest.open_label(labelled), labels.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert [entry.split for entry in manifest.entries if entry.label_path is None] == ["test"]
