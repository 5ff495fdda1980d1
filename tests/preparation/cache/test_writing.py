from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.manifest import Box, write_quarantine
from vissl_jointssl.manifest.quarantine import read_quarantine
from vissl_jointssl.preparation.cache import records
from vissl_jointssl.preparation.cache.records import digest_of
from vissl_jointssl.preparation.cache.writing import Cache
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.recipe import Options, Patch, Recipe, Source

SOURCE = Source("a", "a.nii", "p")


@pytest.fixture
def scans(tmp_path, save_nifti, make_volume) -> Path:
    for number, name in enumerate("abc"):
        save_nifti(tmp_path / "in" / f"{name}.nii", make_volume((6, 7, 8), number))
    return tmp_path / "in"


def recipe_of(root: Path, names: str = "abc", options: Options | None = None, **facts: object) -> Recipe:
    sources = tuple(Source(name, f"{name}.nii", name, **facts) for name in names)
    return Recipe("set", root, sources, options or Options())


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize(
    "change",
    [
        {"path": "b.nii"},
        {"files": ("b.dcm",)},
        {"channel_paths": ("b.nii",)},
        {"array_names": ("train_images", "")},
        {"kind": "image"},
        {"modality": "MR"},
        {"label_path": "l.nii"},
        {"label_groups": {1: 2}},
        {"plane_paths": ("l.nii",)},
        {"labels_by_voxel": True},
        {"label": 0},
        {"boxes": ()},
        {"boxes": (Box(0, 1.0, 1.0, 2.0, 2.0),)},
        {"patches": (Patch((0.0, 0.0, 0.0)),)},
        {"patches": (Patch((0.0, 0.0, 0.0), 1),)},
    ],
)
def test_a_changed_source_is_another_one_for_the_cache(change):
    assert digest_of(replace(SOURCE, **change), Options()) != digest_of(SOURCE, Options())


def test_every_field_of_a_source_but_its_names_and_split_counts():
    named = {field.name for field in fields(Source)} - set(records._WITHOUT_EFFECT)
    covered = {"path", "files", "channel_paths", "array_names", "kind", "modality", "label_path", "label_groups"}
    assert named == covered | {"plane_paths", "labels_by_voxel", "label", "boxes", "patches"}  # as in the test above
    assert digest_of(replace(SOURCE, patient="q", split="val"), Options()) == digest_of(SOURCE, Options())
    groups = MappingProxyType({3: 1, 1: 2})  # any mapping, in any order
    assert digest_of(replace(SOURCE, label_groups=groups), Options()) == digest_of(
        replace(SOURCE, label_groups={1: 2, 3: 1}), Options()
    )


def test_an_option_counts_for_the_kind_that_it_touches():
    other = {
        "slice_axis": "coronal",
        "spacing": (1.0, 1.0, 1.0),
        "tile_size": (8, 8, 8),
        "tile_stride": (4, 4, 4),
        "minimum_foreground": 0.5,
        "region_share": 0.5,
        "region_margin": 3.0,
        "ct_window": (0.0, 1.0),
        "percentiles": (1.0, 2.0),
        "stored_type": "uint8",
        "crop_foreground": True,
        "fourth_axis": "volumes",
        "patch_size": (8, 8, 8),
        "image_size": 9,
        "image_form": "original",
    }
    assert set(other) == {field.name for field in fields(Options)}
    image = replace(SOURCE, kind="image")
    touched = {
        kind: {name for name in other if digest_of(one, Options(**{name: other[name]})) != digest_of(one, Options())}
        for kind, one in (("volume", SOURCE), ("image", image))
    }
    assert touched["image"] == {"percentiles", "stored_type", "image_size", "image_form"}
    assert touched["volume"] == set(other) - {"image_size", "image_form"}


def test_the_hash_in_the_manifest_is_that_of_the_file_and_every_file_is_of_a_row(tmp_path, scans):
    manifest = prepare(recipe_of(scans), tmp_path / "out")
    for entry in manifest.entries:
        data = (manifest.root / entry.path).read_bytes()
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert entry.grid_path is not None
    found = {f"volumes/{file.name}" for file in (tmp_path / "out" / "volumes").iterdir()}
    assert found == {file for entry in manifest.entries for file in entry.files}


def test_boxes_masks_and_originals_are_files_of_their_rows(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    Image.fromarray((image > 99).astype(np.uint8)).save(tmp_path / "m.png")
    boxes = (Box(1, 2.0, 3.0, 9.0, 12.0),)
    sources = (Source("x", "x.png", "p", "image", boxes=boxes, label_path="m.png"),)
    manifest = prepare(Recipe("set", tmp_path, sources, Options(image_form="original")), tmp_path / "out")
    (entry,) = manifest.entries
    manifest.check_files()
    assert entry.path.endswith(".png")
    np.testing.assert_array_equal(manifest.open(entry), image)
    np.testing.assert_array_equal(manifest.open_label(entry), image > 99)
    assert manifest.open_boxes(entry) == boxes
    again = prepare(
        Recipe("set", tmp_path, (replace(sources[0], boxes=()),), Options(image_form="original")), tmp_path / "out"
    )
    assert again.open_boxes(again.entries[0]) == ()


def test_adding_sources_leaves_rows_and_files_as_they_are(tmp_path, scans):
    out = tmp_path / "out"
    before = prepare(replace(recipe_of(scans, "ab"), test_share=0.5), out)
    old = state_of(out)
    after = prepare(replace(recipe_of(scans, "cab"), test_share=0.5), out)
    assert after.entries[1:] == before.entries
    new = state_of(out)
    assert {name for name in old if new.get(name) != old[name]} == {"manifest.csv", "report.json"}


def test_sources_that_left_the_recipe_lose_their_files_and_nothing_else_is_touched(tmp_path, scans, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    prepare(recipe_of(scans), out)
    for name in ("volumes/mine.npy", "volumes/notes.txt", "images/deep/b-00000000.npy"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    manifest = prepare(recipe_of(scans, "ac"), out)
    names = {file.name for file in (out / "volumes").iterdir()}
    assert {name[0] for name in names if name.endswith("-grid.json")} == {"a", "c"}
    assert {"mine.npy", "notes.txt"} < names
    assert (out / "images/deep/b-00000000.npy").exists()
    assert {file.stem for file in (out / ".records").iterdir()} == {"a", "c"}
    assert "set: removed 2 files that no row names any more" in caplog.text
    manifest.check_files()


def test_a_folder_with_other_data_is_refused_and_left_as_it_is(tmp_path, scans):
    prepare(recipe_of(scans, "ab"), tmp_path / "out")
    before = state_of(tmp_path / "out")
    with pytest.raises(PreparationError, match=r"out: holds 2 prepared sources of other data, and none of 'set'"):
        prepare(recipe_of(scans, "c"), tmp_path / "out")
    assert state_of(tmp_path / "out") == before


def test_the_files_of_a_faulty_source_wait_for_its_return(tmp_path, scans):
    manifest = prepare(recipe_of(scans), tmp_path / "out")
    sound = (scans / "b.nii").read_bytes()
    (scans / "b.nii").write_bytes(b"damaged")
    assert len(prepare(recipe_of(scans), tmp_path / "out", keep_going=True)) == 2
    inodes = {name: one[0] for name, one in state_of(tmp_path / "out").items() if name.startswith("volumes")}
    (scans / "b.nii").write_bytes(sound)
    assert prepare(recipe_of(scans), tmp_path / "out").entries == manifest.entries
    after = {name: one[0] for name, one in state_of(tmp_path / "out").items() if name.startswith("volumes")}
    assert after == inodes


def test_what_a_killed_run_left_over_is_swept(tmp_path, scans):
    out = tmp_path / "out"
    (out / "volumes").mkdir(parents=True)
    for name in (
        ".part-x.part",
        "volumes/.part-y.part",
        "volumes/a-01234567.npy",
        "volumes/a-01234567-r0003-labels.npy",
    ):
        (out / name).write_text("left over")
    manifest = prepare(recipe_of(scans), out)
    found = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    rows = {file for entry in manifest.entries for file in entry.files}
    assert found == rows | {"manifest.csv", "report.json", ".lock", *(f".records/{name}.json" for name in "abc")}


def test_what_was_left_over_goes_first_for_it_may_fill_the_disk(tmp_path, scans):
    (tmp_path / "out" / "volumes").mkdir(parents=True)
    (tmp_path / "out" / "volumes" / ".part-y.part").write_text("left over")
    with pytest.raises(PreparationError, match=r"missing.nii: does not exist"):
        prepare(Recipe("set", scans, (Source("a", "missing.nii", "p"),)), tmp_path / "out")
    assert list((tmp_path / "out" / "volumes").iterdir()) == []


def test_a_changed_data_file_beside_its_header_is_noticed(tmp_path):
    header = "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = a.raw\n"
    (tmp_path / "a.mhd").write_text(header)
    first = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype("<i2")
    (tmp_path / "a.raw").write_bytes(first.tobytes())
    recipe = Recipe("set", tmp_path, (Source("a", "a.mhd", "p"),))
    before = prepare(recipe, tmp_path / "out").entries
    (tmp_path / "a.raw").write_bytes((first[::-1] * 2).tobytes())
    assert prepare(recipe, tmp_path / "out").entries != before


def test_a_file_that_several_sources_share_is_hashed_once(tmp_path, monkeypatch):
    images = np.zeros((4, 5, 5), np.uint8)
    images[:, 2] = 9
    np.savez(tmp_path / "m.npz", train_images=images, test_images=images)
    hashed: list[str] = []
    original = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (hashed.append(file.name), original(file, name))[1])
    cache = Cache(tmp_path / "out", tmp_path)
    for split in ("train", "test"):
        source = Source(split, "m.npz", split, "image", split=split, array_names=(f"{split}_images", ""))
        assert len(cache.renew(source, Options()).rows) == 4
    assert len(hashed) == 1


def test_no_name_of_a_file_is_in_a_record(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "DOE_JANE" / "doe.nii", make_volume())
    prepare(Recipe("set", tmp_path, (Source("a", "DOE_JANE/doe.nii", "p"),)), tmp_path / "out")
    assert "doe" not in (tmp_path / "out" / ".records" / "a.json").read_text().lower()


def test_the_report_counts_and_names_what_was_left_out_by_id_alone(tmp_path, scans):
    (scans / "DOE_JANE").mkdir()
    (scans / "DOE_JANE" / "b.nii").touch()
    recipe = recipe_of(scans, "a")
    bad = Source("bad", "DOE_JANE/b.nii", "q")
    few = Source("few", "c.nii", "r", label_path="DOE_JANE/b.nii")
    prepare(replace(recipe, sources=(*recipe.sources, bad, few)), tmp_path / "out", keep_going=True)
    text = (tmp_path / "out" / "report.json").read_text()
    report = json.loads(text)
    assert report["recipe"] == "set"
    assert report["options"]["slice_axis"] == "axial"
    assert report["counts"] == {"sources": 3, "left_out": 2, "rows": 1, "volumes in train": 1}
    assert [(one["id"], one["code"]) for one in report["left_out"]] == [("bad", "empty"), ("few", "empty")]
    assert all(one["reason"] and one["next_step"] for one in report["left_out"])
    assert "DOE" not in text
    assert ".nii" not in text
    assert str(tmp_path) not in text


def test_a_row_leaves_the_quarantine_when_its_array_is_another_one_or_gone(
    tmp_path, scans, save_nifti, make_volume, caplog
):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    prepare(recipe_of(scans), out)
    write_quarantine(out, dict.fromkeys("abc", ("intensity", "odd")))
    before = state_of(out)
    prepare(recipe_of(scans), out)
    assert state_of(out) == before  # and rows in quarantine stay in the manifest
    save_nifti(scans / "b.nii", make_volume((6, 7, 8), 77))
    assert len(prepare(recipe_of(scans, "ab"), out)) == 2
    assert set(read_quarantine(out)) == {"a"}
    assert "2 rows leave the quarantine, as they were prepared anew or are gone: b, c" in caplog.text


def test_a_second_run_at_the_same_time_is_refused_and_harms_nothing(tmp_path, scans):
    script = (
        "import sys; from pathlib import Path\n"
        "from vissl_jointssl.preparation.cache.folder_lock import only_run_in\n"
        "with only_run_in(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PreparationError, match=r"out: another run is preparing into it. Next: wait") as error:
            prepare(recipe_of(scans), tmp_path / "out")
        assert "\n" not in str(error.value)
        assert {file.name for file in (tmp_path / "out").iterdir()} == {".lock"}
    finally:
        other.communicate("")
    assert len(prepare(recipe_of(scans), tmp_path / "out")) == 3
