from __future__ import annotations

import numpy as np
import pytest

from vissl_jointssl.manifest import ManifestError, read_manifest, read_quarantine, write_manifest, write_quarantine
from vissl_jointssl.preparation.doctor.checkup import check_prepared
from vissl_jointssl.preparation.doctor.machine_report import as_json
from vissl_jointssl.preparation.doctor.quarantining import update_quarantine
from vissl_jointssl.preparation.doctor.table import as_table


@pytest.fixture
def folder(tmp_path, make_row, in_this_process):
    """Rows a, b, c of training, of which b is constant; d tests."""
    constant = np.full((10, 20, 24), 9, np.uint16)
    rows = [make_row("a"), make_row("b", constant), make_row("c"), make_row("d", split="test")]
    write_manifest(tmp_path / "manifest.csv", rows)
    return tmp_path


def test_a_row_in_quarantine_is_not_served(folder):
    assert [entry.id for entry in read_manifest(folder).entries] == ["a", "b", "c", "d"]
    checkup = check_prepared(folder, 1, 60, quarantine=True)
    assert [entry.id for entry in read_manifest(folder).entries] == ["a", "c", "d"]
    assert read_quarantine(folder)["b"][0] == "constant"
    assert checkup.changes.added == ("b",)
    assert checkup.errors == ()
    assert checkup.quarantined == {"b"}


def test_without_being_asked_nothing_is_written(folder):
    checkup = check_prepared(folder, 1, 60)
    assert [one.id for one in checkup.errors] == ["b"]
    assert not (folder / "quarantine.csv").exists()


def test_what_is_in_quarantine_already_does_not_count_and_is_said(folder):
    check_prepared(folder, 1, 60, quarantine=True)
    checkup = check_prepared(folder, 1, 60)
    assert checkup.errors == ()
    assert "In quarantine, and not read by training: 1 row (1 constant)." in as_table(checkup, "x")
    report = as_json(checkup, "x")
    assert report["quarantined"] == ["b"]
    assert [(one["id"], one["quarantined"]) for one in report["diagnoses"]] == [("b", True)]


def test_a_second_run_leaves_the_list_as_it_is(folder):
    check_prepared(folder, 1, 60, quarantine=True)
    before = (folder / "quarantine.csv").stat().st_mtime_ns
    checkup = check_prepared(folder, 1, 60, quarantine=True)
    assert (checkup.changes.added, checkup.changes.removed, checkup.changes.kept) == ((), (), ("b",))
    assert (folder / "quarantine.csv").stat().st_mtime_ns == before


def test_a_mended_row_comes_back(folder, make_row):
    check_prepared(folder, 1, 60, quarantine=True)
    rows = [make_row("b") if row.id == "b" else row for row in read_manifest(folder, with_quarantined=True).entries]
    write_manifest(folder / "manifest.csv", rows)
    checkup = check_prepared(folder, 1, 60, quarantine=True)
    assert checkup.changes.removed == ("b",)
    assert not (folder / "quarantine.csv").exists()
    assert "quarantine.csv: 0 added, 1 removed, 0 kept." in as_table(checkup, "x")


def test_what_a_person_put_on_the_list_stays_until_its_row_goes(folder):
    write_quarantine(folder, {"a": ("artefact", "seen by eye"), "gone": ("artefact", "seen by eye")})
    check_prepared(folder, 1, 60, quarantine=True)
    assert set(read_quarantine(folder)) == {"a", "b"}
    assert read_quarantine(folder)["a"] == ("artefact", "seen by eye")


def test_warnings_put_nobody_on_the_list(folder, make_row):
    write_manifest(folder / "manifest.csv", [make_row("a"), make_row("thick", spacing=(19.0, 0.3, 0.3))])
    checkup = check_prepared(folder, 1, 60, quarantine=True)
    assert [one.code for one in checkup.warnings] == ["spacing"]
    assert not (folder / "quarantine.csv").exists()


def test_training_may_not_start_when_everything_to_train_on_is_in_quarantine(folder, make_row):
    constant = np.full((10, 20, 24), 9, np.uint16)
    write_manifest(folder / "manifest.csv", [make_row("a", constant), make_row("d", split="test")])
    checkup = check_prepared(folder, 1, 60, quarantine=True)
    assert [(one.code, one.reason) for one in checkup.errors] == [("splits", "no row is in train; rows: 1 in test")]


def test_a_damaged_list_is_an_error_and_is_left_alone(folder):
    (folder / "quarantine.csv").write_text("what is this")
    checkup = check_prepared(folder, 1, 60, quarantine=True)
    assert [one.code for one in checkup.errors] == ["manifest"]
    assert (folder / "quarantine.csv").read_text() == "what is this"
    with pytest.raises(ManifestError, match="is not a table of id, code, reason"):
        update_quarantine(folder, {"a"}, [])
