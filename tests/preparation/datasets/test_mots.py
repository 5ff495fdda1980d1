from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.mots import TEST_CASES
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

SETS = ("0Liver", "1Kidney", "2HepaticVessel", "3Pancreas", "4Colon", "5Lung", "6Spleen")
SIZES = dict(zip(SETS, (131, 210, 303, 281, 126, 63, 41), strict=True))


def paths(root: Path, name: str, case: str) -> tuple[Path, Path]:
    """Scan and label map as DoDNet's dataset/load_mots.sh lays them out."""
    folder = root / name
    if name == "1Kidney":
        folder = folder / "origin" / f"case_{case}"
        return folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    file = f"{name[1:].lower()}_{case}.nii.gz"
    return folder / "imagesTr" / file, folder / "labelsTr" / file


def cases(name: str) -> list[str]:
    """As many cases as the set has: those that test, and others with numbers that are free."""
    width = {"0Liver": 1, "1Kidney": 5, "6Spleen": 1}.get(name, 3)
    found = dict.fromkeys(TEST_CASES[name].split())
    for number in range(1000):
        if len(found) < SIZES[name]:
            found.setdefault(f"{number:0{width}}")
    return list(found)


@pytest.fixture
def fake_mots(tmp_path, touch) -> Path:
    """All 1,155 cases as empty files, the scans without labels of both homes, and the Decathlon's lists."""
    root = tmp_path / "0123456"
    for name in SETS:
        for case in cases(name):
            for path in paths(root, name, case):
                touch(path)
        if name != "1Kidney":
            touch(root / name / "imagesTs" / f"{name[1:].lower()}_999.nii.gz")
            touch(root / name / "imagesTr" / f"._{name[1:].lower()}_001.nii.gz")
            touch(root / name / "dataset.json")
    touch(root / "1Kidney" / "origin" / "case_00210" / "imaging.nii.gz")
    touch(root / "1Kidney" / "origin" / "kits.json")
    return root


def test_a_full_copy_has_the_920_and_235_scans_of_dodnet_s_lists(fake_mots, caplog):
    recipe = data_set_recipe("mots", fake_mots)
    recipe.check()
    assert not caplog.records
    counts = Counter((Path(source.path).parts[0], source.split) for source in recipe.sources)
    for name, train, test in zip(SETS, (104, 168, 242, 224, 100, 50, 32), (27, 42, 61, 57, 26, 13, 9), strict=True):
        assert (counts[name, "train"], counts[name, "test"]) == (train, test)
    assert len({source.patient for source in recipe.sources}) == 1155
    assert {source.modality for source in recipe.sources} == {"CT"}
    assert all("imagesTs" not in source.path and "00210" not in source.path for source in recipe.sources)


def test_every_scan_is_paired_with_the_label_map_of_its_own_set(fake_mots):
    for source in data_set_recipe("mots", fake_mots).sources:
        expected = source.path.replace("imagesTr", "labelsTr").replace("imaging", "segmentation")
        assert source.label_path == expected != source.path


@pytest.mark.parametrize("case", ["0", "102", "94", "99"])
def test_cases_of_liver_that_dodnet_tests_on_do_so_here(tmp_path, touch, case):
    for number in (case, "1"):
        for path in paths(tmp_path, "0Liver", number):
            touch(path)
    assert {source.path: source.split for source in data_set_recipe("mots", tmp_path).sources} == {
        f"0Liver/imagesTr/liver_{case}.nii.gz": "test",
        "0Liver/imagesTr/liver_1.nii.gz": "train",
    }


def test_the_folder_above_is_taken_but_not_two_copies_in_it(fake_mots, tmp_path, touch):
    assert len(data_set_recipe("mots", tmp_path).sources) == 1155
    for path in paths(tmp_path / "0123456_spacing_same", "5Lung", "001"):
        touch(path)
    with pytest.raises(PreparationError, match=r"0123456_spacing_same/5Lung/\S+: the same case as .*0123456/5Lung"):
        data_set_recipe("mots", tmp_path)


def test_a_kidney_without_label_map_is_named_unless_it_is_one_of_the_challenge_s_test(fake_mots):
    paths(fake_mots, "1Kidney", "00209")[1].unlink()
    with pytest.raises(
        PreparationError, match=r"\(1 found\)(?s:.)*case_00209/imaging\.nii\.gz: no label belongs to it"
    ):
        data_set_recipe("mots", fake_mots)


def test_another_folder_is_told_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "Task03_Liver").mkdir()
    with pytest.raises(PreparationError, match=r"(?s)0Liver/, 1Kidney/.*Found there: Task03_Liver/.*jianpengz/DoDNet"):
        data_set_recipe("mots", tmp_path)


def test_labels_of_seven_sets_arrive_in_one_numbering(tmp_path, write_nifti):
    raw = tmp_path / "raw"
    for name in SETS:
        scan, label = paths(raw, name, "00001" if name == "1Kidney" else "001")
        write_nifti(scan)
        write_nifti(label, labels=(1, 2) if name in SETS[:4] else (1,))
    recipe = data_set_recipe("mots", raw)
    manifest = prepare(recipe, tmp_path / "out")
    manifest.check_files()
    found = []
    for entry in manifest.entries:
        labels = manifest.open_label(entry)
        assert labels.shape == entry.shape
        columns = [np.unique(labels[:, :, column]) for column in reversed(range(6))]  # i runs against the columns
        found.append([int(number) for (number,) in columns if number])
    assert found == [[1, 2], [3, 4], [5, 6], [7, 8], [9], [10], [11]]
    assert [recipe.label_names[numbers[0] - 1] for numbers in found] == [
        "liver",
        "kidney",
        "hepatic vessel",
        "pancreas",
        "colon tumour",
        "lung tumour",
        "spleen",
    ]
