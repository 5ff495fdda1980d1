from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.data_set import WrongFolder
from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.lidc_idri import lidc_idri
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.recipe import Recipe


def fake_names(home: Path) -> dict[str, int]:
    """The archive's layout, files empty: patient 1 with a CT and two X-rays, 2 with two CT, one in the older naming."""
    series = {
        "LIDC-IDRI-0001/01-01-2000-30178/3000566.000000-03192": 133,
        "LIDC-IDRI-0001/01-01-2000-35511/3000923.000000-62357": 2,
        "LIDC-IDRI-0002/01-01-2000-98329/3000522.000000-04919": 65,
        "LIDC-IDRI-0002/1.3.6.1.4.1.14519.5.2.1.6279.6001.1/1.3.6.1.4.1.14519.5.2.1.6279.6001.2": 70,
        "LIDC-IDRI-1010/01-01-2000-11111/1.000000-22222": 100,
    }
    for name, count in series.items():
        folder = home / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"1-{number + 1:03d}.dcm").touch()
        (folder / "069.xml").touch()
    (home / "LICENSE").touch()
    return series


def test_every_ct_is_a_source_and_x_rays_are_none(tmp_path, caplog):
    series = fake_names(tmp_path / "LIDC-IDRI")
    with caplog.at_level(logging.INFO):
        recipe = lidc_idri(tmp_path / "LIDC-IDRI")
    recipe.check()
    assert {source.path for source in recipe.sources} == {name for name, count in series.items() if count > 60}
    assert {(source.kind, source.modality, source.split) for source in recipe.sources} == {("volume", "CT", None)}
    assert "4 CT; 1 series of X-rays" in caplog.text


def test_two_scans_of_a_patient_have_one_patient_and_two_ids(tmp_path):
    fake_names(tmp_path)
    sources = lidc_idri(tmp_path).sources
    assert len({source.id for source in sources}) == 4
    by_folder = {}
    for source in sources:
        by_folder.setdefault(source.path[:14], set()).add(source.patient)
    assert {len(patients) for patients in by_folder.values()} == {1}
    assert len(set.union(*by_folder.values())) == 3


def test_no_id_shows_the_patient_id_of_the_headers(tmp_path):
    fake_names(tmp_path)
    for source in lidc_idri(tmp_path).sources:
        assert "LIDC" not in source.id + source.patient


@pytest.mark.parametrize("above", ["LIDC-IDRI", "manifest-1600709154662/LIDC-IDRI"])
def test_the_folder_that_the_archives_own_program_makes_is_understood(tmp_path, above):
    fake_names(tmp_path / above)
    from_above, from_inside = lidc_idri(tmp_path), lidc_idri(tmp_path / above)
    assert [source.id for source in from_above.sources] == [source.id for source in from_inside.sources]
    assert all((tmp_path / source.path).is_dir() for source in from_above.sources)


def test_a_series_that_is_cut_short_is_named(tmp_path):
    fake_names(tmp_path)
    for file in (tmp_path / "LIDC-IDRI-1010/01-01-2000-11111/1.000000-22222").glob("1-0[3-9]*.dcm"):
        file.unlink()
    with pytest.raises(PreparationError, match=r"1\.000000-22222: 30 slices, and every CT has 65 or more"):
        lidc_idri(tmp_path)


def test_a_folder_with_something_else_is_refused_with_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "subset0").mkdir()
    with pytest.raises(PreparationError, match=r"(?s)LIDC-IDRI-\[0-9\].*Found there: subset0/.*unpacks to"):
        data_set_recipe("lidc_idri", tmp_path)
    (tmp_path / "LIDC-IDRI-0001").mkdir()
    with pytest.raises(WrongFolder, match=r"65 \.dcm files or more"):
        lidc_idri(tmp_path)


def test_a_tiny_copy_is_prepared(tmp_path, save_dicom):
    rng = np.random.default_rng(0)
    arrays = {}
    for number in (1, 2):
        arrays[number] = rng.integers(-900, 900, (65, 6, 5))
        folder = tmp_path / f"raw/LIDC-IDRI-000{number}/01-01-2000-0000{number}/300056{number}.000000-0319{number}"
        save_dicom(folder, arrays[number], spacing=(0.7, 0.7, 2.5), series=f"1.2.3.{number}")
        (folder / "069.xml").write_text("<LidcReadMessage/>")
    recipe: Recipe = lidc_idri(tmp_path / "raw")
    manifest = prepare(recipe, tmp_path / "out")
    assert [entry.shape for entry in manifest.entries] == [(65, 6, 5)] * 2
    assert {entry.spacing for entry in manifest.entries} == {(2.5, 0.7, 0.7)}
    assert {(entry.split, entry.modality) for entry in manifest.entries} == {("train", "CT")}
    shown = manifest.open(manifest.entries[0]).astype(float) / 65535 * 2000 - 1000  # the window back to HU
    assert np.abs(shown - arrays[1]).max() < 0.1
