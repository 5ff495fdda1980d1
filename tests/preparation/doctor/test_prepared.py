from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from vissl_jointssl.manifest import Box, Grid, Manifest, write_boxes, write_grid, write_manifest
from vissl_jointssl.preparation.doctor.checkup import check_prepared
from vissl_jointssl.preparation.doctor.prepared import examine_row

LABELS = np.tile(np.arange(3, dtype=np.uint8).repeat(8), (10, 20, 1))
GRID = Grid(np.eye(4), np.eye(4), (24, 20, 10))


def sound(make_row, root):
    write_grid(GRID, root / "grid.json")
    return make_row("sound", labels=LABELS, grid_path="grid.json")


def test_a_sound_row_has_no_fault(make_row, tmp_path):
    examined = examine_row(sound(make_row, tmp_path), tmp_path, True)
    assert examined.diagnoses == ()
    (facts,) = examined.facts
    assert facts.label_numbers == (1, 2)
    assert 0 <= facts.values.low < facts.values.high <= 1


def test_an_image_with_boxes_and_planes_of_labels_has_no_fault(make_row, make_picture, tmp_path):
    planes = np.zeros((3, 32, 40), np.uint8)
    planes[0, 5:9], planes[2, 7:20] = 1, 1
    write_boxes([Box(0, 1, 2, 30, 31)], tmp_path / "boxes.json")
    row = make_row("image", make_picture(), planes, kind="image", boxes_path="boxes.json")
    examined = examine_row(row, tmp_path, True)
    assert examined.diagnoses == ()
    assert examined.facts[0].label_numbers == (1, 3)


def volume(**changes):
    def change(row, root):
        return replace(row, **changes)

    return change


def array_of(array):
    def change(row, root):
        np.save(root / row.path, array)
        return replace(row, shape=array.shape, dtype=str(array.dtype))

    return change


def labels_of(labels):
    def change(row, root):
        np.save(root / row.label_path, labels)
        return row

    return change


def removed(name):
    def change(row, root):
        (root / getattr(row, name)).unlink()
        return row

    return change


def written(name, content):
    def change(row, root):
        (root / getattr(row, name)).write_bytes(content)
        return row

    return change


def empty_box(row, root):
    (root / "boxes.json").write_text(json.dumps([{"label": 0, "left": 3, "top": 1, "right": 3, "bottom": 9}]))
    return replace(row, boxes_path="boxes.json")


RNG = np.random.default_rng(0)
EVEN = RNG.uniform(0, 1, (10, 20, 24)).astype(np.float32)
WITH_NAN = np.where(np.arange(EVEN.size).reshape(EVEN.shape) == 99, np.nan, EVEN).astype(np.float32)
NEARLY_EMPTY = np.where(np.arange(EVEN.size).reshape(EVEN.shape) < 9, EVEN, 0).astype(np.float32)
FEW = (RNG.integers(0, 4, EVEN.shape) * 20000).astype(np.uint16)
SHORT = EVEN[:7]


@pytest.mark.parametrize(
    ("change", "code", "severity", "words"),
    [
        (removed("path"), "missing", "error", "does not exist"),
        (written("path", b""), "unreadable", "error", "cannot be read"),
        (volume(shape=(9, 20, 24)), "unreadable", "error", r"its row says \(9, 20, 24\)"),
        (volume(dtype="uint8"), "unreadable", "error", "its row says uint8"),
        (volume(sha256="0" * 64), "changed", "error", "sha256"),
        (array_of(WITH_NAN), "not_finite", "error", "NaN"),
        (array_of(EVEN * 3), "intensity", "error", r"floats must lie in \[0, 1\]"),
        (array_of(np.full(EVEN.shape, 7, np.uint16)), "constant", "error", "every voxel is 0.0001"),
        (array_of(NEARLY_EMPTY), "nearly_empty", "warning", "99.8"),
        (array_of(FEW), "few_values", "warning", "4 different values"),
        (array_of(np.stack([EVEN, NEARLY_EMPTY])), "nearly_empty", "warning", "^channel 1: "),
        (volume(spacing=(3000.0, 1000.0, 1000.0)), "spacing", "error", "no scanner"),
        (volume(spacing=(40.0, 1.0, 1.0)), "spacing", "warning", "MR has 0.1 to 20"),
        (removed("label_path"), "missing", "error", "volumes/sound-labels.npy does not exist"),
        (labels_of(LABELS[1:]), "label_grid", "error", r"shape \(9, 20, 24\)"),
        (labels_of(LABELS / 2), "label_grid", "error", "not of integers"),
        (labels_of(LABELS * 0), "label_empty", "warning", "0 everywhere"),
        (labels_of(np.stack([LABELS, LABELS])), "label_values", "error", "planes hold values from 0 to 2"),
        (labels_of(LABELS.astype(np.int32) - 1), "label_values", "error", "numbers from -1 to 1"),
        (written("grid_path", b"{}"), "geometry", "error", "grid.json is no grid"),
    ],
)
def test_every_fault_of_a_row_is_found(make_row, tmp_path, change, code, severity, words):
    row = change(sound(make_row, tmp_path), tmp_path)
    by_code = {one.code: one for one in examine_row(row, tmp_path, code == "changed").diagnoses}
    assert list(by_code) == [code]
    found = by_code[code]
    assert (found.id, found.path, found.severity) == (row.id, row.path, severity)
    assert re.search(words, found.reason), found.reason
    assert str(tmp_path) not in found.reason


def test_few_slices_are_found(make_row, tmp_path):
    (found,) = examine_row(make_row("short", SHORT), tmp_path, True).diagnoses
    assert (found.code, found.reason) == ("dimensions", "has 7 slices of 20 x 24")


def test_a_faulty_box_is_found(make_row, make_picture, tmp_path):
    row = empty_box(make_row("image", make_picture(), kind="image"), tmp_path)
    (found,) = examine_row(row, tmp_path, True).diagnoses
    assert (found.code, found.severity) == ("boxes", "error")
    assert "is empty" in found.reason


@pytest.mark.parametrize("change", [removed("path"), array_of(WITH_NAN), labels_of(LABELS[1:]), removed("grid_path")])
def test_what_training_would_refuse_is_an_error(make_row, tmp_path, change):
    row = change(sound(make_row, tmp_path), tmp_path)
    faults = Manifest(tmp_path / "manifest.csv", [row]).faults_of(row)
    found = [one for one in examine_row(row, tmp_path, False).diagnoses if one.severity == "error"]
    assert len(found) == len(faults) == 1


# --- the folder as a whole


@pytest.fixture
def check(tmp_path, in_this_process):
    def look(rows, **options):
        write_manifest(tmp_path / "manifest.csv", rows)
        return check_prepared(tmp_path, 1, 60, **options)

    return look


def test_a_sound_folder_has_no_fault(make_row, check):
    rows = [make_row(f"row{number}", labels=LABELS, label=number % 2) for number in range(12)]
    rows += [make_row(f"held{number}", labels=LABELS, label=number, split="test") for number in range(2)]
    checkup = check(rows)
    assert checkup.diagnoses == ()
    assert [one.id for one in checkup.facts] == [row.id for row in rows]


def test_nothing_to_train_on_is_an_error_of_the_set(make_row, check):
    (found,) = check([make_row("a", split="test"), make_row("b", split="val")]).errors
    assert (found.code, found.id, found.path) == ("splits", "", "")
    assert found.reason == "no row is in train; rows: 1 in test, 1 in val"


def test_a_class_that_only_tests_is_a_warning(make_row, check):
    checkup = check([make_row("a", label=0), make_row("b", label=1), make_row("c", label=4, split="test")])
    assert [one.reason for one in checkup.diagnoses] == ["class 4 is in test and never in train"]
    assert checkup.errors == ()


def test_a_label_number_that_only_validates_is_a_warning(make_row, check):
    checkup = check([make_row("a", labels=LABELS), make_row("b", labels=LABELS * 2, split="val")])
    assert [one.reason for one in checkup.diagnoses] == ["label number 4 is in val and never in train"]


def test_different_numbers_of_channels_are_a_warning(make_row, check):
    several = RNG.integers(0, 65536, (3, 10, 20, 24)).astype(np.uint16)
    checkup = check([make_row("a"), make_row("b", several)])
    (found,) = checkup.diagnoses
    assert (found.code, found.severity) == ("channels", "warning")
    assert "1 of 1, 1 of 3" in found.reason


def test_a_copy_across_splits_is_an_error_on_the_side_of_training(make_row, check):
    array = RNG.integers(0, 65536, (10, 20, 24)).astype(np.uint16)
    checkup = check([make_row("a", array), make_row("b", array, split="test"), make_row("c")])
    (found,) = checkup.errors
    assert (found.id, found.code) == ("a", "duplicate")
    assert "a leak between splits" in found.reason


def test_a_manifest_with_a_patient_in_two_splits_is_an_error_and_nothing_else_is_read(make_row, tmp_path, check):
    write_manifest(tmp_path / "manifest.csv", [make_row("a"), make_row("b", split="test")])
    text = (tmp_path / "manifest.csv").read_text().replace("patient-b", "patient-a")
    (tmp_path / "manifest.csv").write_text(text)
    checkup = check_prepared(tmp_path, 1, 60)
    (found,) = checkup.errors
    assert found.code == "manifest"
    assert "is in split 'train' and, by row 'b', in 'test'" in found.reason


def test_what_preparation_left_out_and_noted_is_said_again(make_row, tmp_path, check):
    left_out = [{"id": "gone", "code": "missing_slices", "reason": "a gap of 4 mm", "next_step": "export it again"}]
    (tmp_path / "report.json").write_text(json.dumps({"left_out": left_out, "notes": {"a": ["was tilted"]}}))
    checkup = check([make_row("a")])
    assert [(one.id, one.code, one.reason) for one in checkup.warnings] == [
        ("a", "note", "was tilted"),
        ("gone", "left_out", "a gap of 4 mm (missing_slices)"),
    ]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"left_out": [{"id": 3}]}', b"\xff"])
def test_a_damaged_report_is_a_warning(make_row, tmp_path, check, content):
    (tmp_path / "report.json").write_bytes(content)
    (found,) = check([make_row("a")]).diagnoses
    assert (found.code, found.severity) == ("manifest", "warning")
    assert "report.json cannot be understood" in found.reason


def test_errors_come_before_warnings_and_each_in_the_order_of_the_rows(make_row, check):
    thick = {"spacing": (40.0, 1.0, 1.0)}
    rows = [
        make_row("a", **thick),
        make_row("b", sha256="0" * 64),
        make_row("c", **thick),
        make_row("d", sha256="1" * 64),
    ]
    assert [(one.id, one.severity) for one in check(rows).diagnoses] == [
        ("b", "error"),
        ("d", "error"),
        ("a", "warning"),
        ("c", "warning"),
    ]
