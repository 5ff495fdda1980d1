from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.manifest import (
    COLUMNS,
    Manifest,
    ManifestError,
    as_unit_interval,
    read_manifest,
    write_manifest,
)


def edit_cell(path: Path, row: int, column: str, value: str) -> None:
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[row][COLUMNS.index(column)] = value
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")


def test_a_volume_may_have_channels_and_its_label_map_has_none(tmp_path, make_entry):
    np.save(tmp_path / "labels.npy", np.ones((2, 3, 4), np.uint8))
    entry = make_entry(tmp_path, array=np.zeros((5, 2, 3, 4), np.uint16), label_path="labels.npy")
    manifest = write_manifest(tmp_path / "manifest.csv", [entry])
    assert read_manifest(tmp_path).entries == (entry,)
    manifest.check_files()
    assert manifest.open(entry).shape == (5, 2, 3, 4)
    assert manifest.open_label(entry).shape == (2, 3, 4)


def test_what_is_written_is_read_back_with_every_field(tmp_path, make_entry):
    np.save(tmp_path / "labels.npy", np.ones((2, 3, 4), np.uint8))
    entries = (
        make_entry(tmp_path, "a", label_path="labels.npy", label=0, split="val"),
        make_entry(tmp_path, "b", spacing=None, label=12),
        make_entry(tmp_path, "c", np.zeros((5, 6, 3), np.uint8), kind="image", modality="XR", spacing=None),
    )
    write_manifest(tmp_path / "manifest.csv", entries)
    assert read_manifest(tmp_path).entries == entries
    assert read_manifest(tmp_path / "manifest.csv").root == tmp_path


def test_a_manifest_with_its_folder_can_be_moved(tmp_path, make_entry):
    (tmp_path / "here").mkdir()
    write_manifest(tmp_path / "here" / "manifest.csv", [make_entry(tmp_path / "here")])
    (tmp_path / "here").rename(tmp_path / "there")
    manifest = read_manifest(tmp_path / "there")
    assert manifest.open(manifest.entries[0])[1, 2, 3] == 23


def test_select_keeps_order_and_takes_kind_and_splits(tmp_path, make_entry):
    entries = [
        make_entry(tmp_path, "a"),
        make_entry(tmp_path, "b", split="test"),
        make_entry(tmp_path, "c", np.zeros((2, 2), np.uint8), kind="image"),
        make_entry(tmp_path, "d"),
    ]
    manifest = Manifest(tmp_path / "manifest.csv", entries)
    assert [entry.id for entry in manifest.select(kind="volume", splits=("train",))] == ["a", "d"]
    assert [entry.id for entry in manifest.select(splits="test")] == ["b"]
    assert [entry.id for entry in manifest.select()] == ["a", "b", "c", "d"]


def test_select_of_an_unknown_name_shows_the_nearest(tmp_path):
    manifest = Manifest(tmp_path / "manifest.csv", [])
    with pytest.raises(ValueError, match=r"no split is called 'tran'; did you mean train\?"):
        manifest.select(splits=("tran",))
    with pytest.raises(ValueError, match="no kind is called 'movie'; known: image, volume"):
        manifest.select(kind="movie")


def test_an_opened_volume_is_mapped_and_not_loaded(tmp_path, make_entry):
    entry = make_entry(tmp_path)
    assert isinstance(Manifest(tmp_path / "manifest.csv", [entry]).open(entry), np.memmap)


def test_png_images_open_like_arrays(tmp_path, make_entry):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    entry = make_entry(tmp_path, kind="image", path="x.png", shape=(3, 4), dtype="uint8")
    np.testing.assert_array_equal(Manifest(tmp_path / "manifest.csv", [entry]).open(entry), pixels)


def test_the_fingerprint_ignores_order_and_place_and_sees_every_change(tmp_path, make_entry):
    a, b = make_entry(tmp_path, "a"), make_entry(tmp_path, "b")
    fingerprint = Manifest(tmp_path / "manifest.csv", [a, b]).fingerprint()
    assert Manifest(tmp_path / "elsewhere" / "m.csv", [b, a]).fingerprint() == fingerprint
    assert Manifest(tmp_path / "manifest.csv", [a]).fingerprint() != fingerprint
    for change in ({"split": "test"}, {"label": 1}, {"sha256": "0" * 64}):
        assert Manifest(tmp_path / "manifest.csv", [a, replace(b, **change)]).fingerprint() != fingerprint


def test_missing_columns_are_named_all_at_once_with_what_looks_like_them(tmp_path):
    header = [{"modality": "modalty", "split": "fold"}.get(column, column) for column in COLUMNS]
    (tmp_path / "manifest.csv").write_text(",".join(header) + "\n")
    with pytest.raises(ManifestError, match=r"'modality' is missing; did you mean modalty\?") as error:
        read_manifest(tmp_path)
    assert any("'split' is missing" in fault for fault in error.value.faults)
    assert len(error.value.faults) == 2


@pytest.mark.parametrize("found", ["boxes_pth", "Boxes_Path", " boxes_path", "box_path", "grids_path"])
def test_an_optional_column_that_is_misspelt_does_not_cost_what_is_in_it(tmp_path, make_entry, found):
    write_manifest(tmp_path / "manifest.csv", [make_entry(tmp_path)])
    meant = "grid_path" if "grid" in found else "boxes_path"
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text.replace(meant, found, 1))
    with pytest.raises(ManifestError, match=f"column '{found}' is not known; did you mean {meant}\\?"):
        read_manifest(tmp_path)


def test_columns_of_the_users_own_are_let_be(tmp_path, make_entry):
    entry = make_entry(tmp_path)
    write_manifest(tmp_path / "manifest.csv", [entry])
    header, row = (tmp_path / "manifest.csv").read_text().splitlines()
    shorter = header.removesuffix(",boxes_path,grid_path"), row.removesuffix(",,")
    assert shorter[0] != header  # as the first manifests are
    for own in ("boxes_count", "scanner", "image_path", "lungs_path", "age"):
        (tmp_path / "manifest.csv").write_text(f"{shorter[0]},{own}\n{shorter[1]},7\n")
        assert read_manifest(tmp_path).entries == (entry,)
    (tmp_path / "manifest.csv").write_text(f"{header},boxes_pth\n{row},7\n")  # the true one is there as well
    assert read_manifest(tmp_path).entries == (entry,)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("split", "training", "split is 'training', expected one of train, val, test"),
        ("kind", "movie", "kind is 'movie', expected one of volume, image"),
        ("path", "/etc/passwd", "path is '/etc/passwd', expected a path inside the manifest's folder"),
        ("path", "../a.npy", "path is .* expected a path inside the manifest's folder"),
        ("path", "volumes\\a.npy", "path is .* expected a path inside the manifest's folder"),
        ("path", "a.txt", "path is 'a.txt', expected a .npy, .png, .jpg, .jpeg file"),
        ("label_path", "b/../../a.npy", "label_path is .* expected a path inside"),
        ("shape", "2x3", "shape is '2x3', expected FxHxW or CxFxHxW for a volume"),
        ("shape", "2x2x2x3x4", "shape is '2x2x2x3x4', expected FxHxW or CxFxHxW for a volume"),
        ("shape", "2xthreex4", "shape is '2xthreex4'"),
        ("shape", "0x3x4", "shape is '0x3x4'"),
        ("dtype", "object", "dtype is 'object', expected one of uint8"),
        ("spacing", "1.0x0.0x1.0", "spacing is '1.0x0.0x1.0', expected three sizes in mm"),
        ("spacing", "1x1xnan", "spacing is '1x1xnan'"),
        ("label", "-1", "label is '-1', expected a class number"),
        ("sha256", "abc", "sha256 is 'abc', expected 64"),
        ("patient", "", "patient is empty"),
    ],
)
def test_a_bad_cell_is_named_with_its_row(tmp_path, column, value, message, make_entry):
    path = tmp_path / "manifest.csv"
    write_manifest(path, [make_entry(tmp_path)])
    edit_cell(path, 1, column, value)
    with pytest.raises(ManifestError, match=rf"row 2 \('a'\): {message}"):
        read_manifest(path)


def test_all_faults_of_a_table_come_at_once(tmp_path, make_entry):
    path = tmp_path / "manifest.csv"
    write_manifest(path, [make_entry(tmp_path, "a"), make_entry(tmp_path, "b")])
    edit_cell(path, 1, "split", "x")
    edit_cell(path, 1, "dtype", "y")
    edit_cell(path, 2, "shape", "z")
    with pytest.raises(ManifestError, match="3 faults") as error:
        read_manifest(path)
    assert len(error.value.faults) == 3


def test_duplicate_ids_and_patients_in_two_splits_are_faults(tmp_path, make_entry):
    a = make_entry(tmp_path, "a")
    with pytest.raises(ManifestError, match="id 'a' occurs twice"):
        write_manifest(tmp_path / "manifest.csv", [a, a])
    with pytest.raises(ManifestError, match="patient 'patient-a' is in split 'train' and, by row 'b', in 'test'"):
        write_manifest(tmp_path / "manifest.csv", [a, replace(a, id="b", split="test")])


def test_a_row_with_too_few_cells_is_a_fault(tmp_path, make_entry):
    path = tmp_path / "manifest.csv"
    write_manifest(path, [make_entry(tmp_path)])
    path.write_text(path.read_text() + "only,three,cells\n")
    with pytest.raises(ManifestError, match=r"row 3 \('only'\): has more or fewer cells"):
        read_manifest(path)


def test_missing_empty_and_binary_manifests_are_clear_errors(tmp_path):
    with pytest.raises(ManifestError, match="does not exist\nNext: run `jointssl prepare`"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ManifestError, match="holds no rows"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="cannot be read as text"):
        read_manifest(tmp_path)


def test_an_interrupted_write_leaves_the_old_manifest(tmp_path, monkeypatch, make_entry):
    path = tmp_path / "manifest.csv"
    write_manifest(path, [make_entry(tmp_path, "a")])

    def power_cut(descriptor: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.fsync", power_cut)
    with pytest.raises(OSError, match="power cut"):
        write_manifest(path, [make_entry(tmp_path, "b")])
    assert [entry.id for entry in read_manifest(path).entries] == ["a"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.csv", "volumes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", r"cannot be read \(0 bytes"),
        (b"not an array", r"cannot be read \(12 bytes"),
    ],
)
def test_bad_array_files_name_the_file_the_row_and_the_next_step(tmp_path, content, message, make_entry):
    entry = make_entry(tmp_path)
    (tmp_path / entry.path).unlink()
    if content is not None:
        (tmp_path / entry.path).write_bytes(content)
    with pytest.raises(ManifestError, match=rf"volumes/a.npy \(row 'a'\) {message}(.|\n)*Next: prepare this scan"):
        Manifest(tmp_path / "manifest.csv", [entry]).open(entry)


def test_truncated_arrays_pickles_and_changed_headers_are_refused(tmp_path, make_entry):
    manifest = Manifest(tmp_path / "manifest.csv", [])
    entry = make_entry(tmp_path)
    whole = (tmp_path / entry.path).read_bytes()
    (tmp_path / entry.path).write_bytes(whole[:-1])
    with pytest.raises(ManifestError, match=r"cannot be read \(175 bytes"):
        manifest.open(entry)
    np.save(tmp_path / entry.path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ManifestError, match="cannot be read"):
        manifest.open(entry)
    with pytest.raises(ManifestError, match=r"has shape \(2, 3, 4\), its row says \(2, 3, 5\)"):
        manifest.open(make_entry(tmp_path, "b", shape=(2, 3, 5)))
    with pytest.raises(ManifestError, match="has dtype uint16, its row says uint8"):
        manifest.open(make_entry(tmp_path, "c", dtype="uint8"))


def test_a_link_out_of_the_folder_is_refused(tmp_path, make_entry):
    outside = tmp_path / "outside.npy"
    np.save(outside, np.zeros((2, 3, 4), np.uint16))
    root = tmp_path / "prepared"
    root.mkdir()
    entry = make_entry(root)
    (root / entry.path).unlink()
    (root / entry.path).symlink_to(outside)
    with pytest.raises(ManifestError, match="is a link that leaves the manifest's folder"):
        Manifest(root / "manifest.csv", [entry]).open(entry)


def test_label_maps_are_checked_against_the_grid_of_their_row(tmp_path, make_entry):
    manifest = Manifest(tmp_path / "manifest.csv", [])
    with pytest.raises(ManifestError, match="row 'a' has no label map"):
        manifest.open_label(make_entry(tmp_path))
    entry = make_entry(tmp_path, label_path="labels.npy")
    np.save(tmp_path / "labels.npy", np.ones((2, 3, 4), np.uint8))
    assert manifest.open_label(entry).sum() == 24
    np.save(tmp_path / "labels.npy", np.ones((2, 3, 5), np.uint8))
    with pytest.raises(ManifestError, match=r"labels.npy .* has shape \(2, 3, 5\)"):
        manifest.open_label(entry)
    np.save(tmp_path / "labels.npy", np.ones((2, 3, 4), np.float32))
    with pytest.raises(ManifestError, match="is a label map of dtype float32, not of integers"):
        manifest.open_label(entry)


def test_check_files_lists_every_fault_and_passes_sound_files(tmp_path, make_entry):
    spoilt = np.full((2, 3, 4), 0.5, np.float32)
    spoilt[1, 1, 1] = np.nan
    sound = make_entry(tmp_path, "sound")
    gone = make_entry(tmp_path, "gone")
    (tmp_path / gone.path).unlink()
    entries = [
        sound,
        gone,
        make_entry(tmp_path, "spoilt", spoilt),
        make_entry(tmp_path, "wide", np.full((2, 3, 4), 300, np.float32)),
        make_entry(tmp_path, "unlabelled", label_path="nowhere.npy"),
    ]
    Manifest(tmp_path / "manifest.csv", [sound]).check_files()
    with pytest.raises(ManifestError, match="4 faults") as error:
        Manifest(tmp_path / "manifest.csv", entries).check_files()
    text = "\n".join(error.value.faults)
    assert "volumes/gone.npy (row 'gone') does not exist" in text
    assert "volumes/spoilt.npy (row 'spoilt') holds NaN or infinite values" in text
    assert "volumes/wide.npy (row 'wide') holds values in [300, 300], floats must lie in [0, 1]" in text
    assert "nowhere.npy (row 'unlabelled') does not exist" in text


def test_long_lists_of_faults_are_cut_in_the_message_only():
    error = ManifestError(Path("m.csv"), [f"fault {number}" for number in range(60)], "mend them")
    assert "and 10 more" in str(error)
    assert len(error.faults) == 60


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([0, 51, 255], np.uint8), [0, 0.2, 1]),
        (np.array([0, 13107, 65535], np.uint16), [0, 0.2, 1]),
        (np.array([0, 0.25, 1], np.float16), [0, 0.25, 1]),
    ],
)
def test_stored_values_become_the_unit_interval(array, expected):
    unit = as_unit_interval(array)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, expected, rtol=1e-6)
