"""Thousands of damaged files for every reader: each is read or refused in the reader's own words, and nothing else.

The damage is drawn from a seed. `make test` tries 200 inputs for each group of readers, `make test-slow` as many as fit
into 20 seconds. Headers of scans have a test of their own, `tests/preparation/test_hostile_volumes.py`.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
import shutil
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from safetensors.torch import save

from vissl_jointssl.checkpoints import CheckpointError, StageRecord, read_checkpoint
from vissl_jointssl.checkpoints.importing import load_weights
from vissl_jointssl.evaluation.plan import PlanError, read_plan
from vissl_jointssl.evaluation.suite import SuiteError, read_suite
from vissl_jointssl.manifest import Entry, ManifestError, read_manifest, write_manifest
from vissl_jointssl.plugin.capture import Capture, CaptureError, read_capture, write_capture
from vissl_jointssl.preparation.errors import PreparationError, ReadError
from vissl_jointssl.preparation.pictures import read_picture
from vissl_jointssl.preparation.reading import read_scan
from vissl_jointssl.preparation.sources.csv_table import read_table
from vissl_jointssl.training.recipe import RecipeError, read_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FAST, SECONDS = 200, 20.0  # inputs, and seconds, for each group
WORDS = (b"9999999", b"-1", b" ", b"\n", b"nan", b"1e99", b"null", b"[", b"{", b"'", b'"', b":", b"&a", b"*a", b"\xff")
VALUES = (b"[]", b"{}", b"-1", b"''", b"[[1]]", b"{a: 1}", b"2.5", b"x")


@dataclass(frozen=True)
class Reader:
    """One reader and a sound file for it.

    Attributes:
        path: Where it looks.
        sound: The file's content.
        read: Reads it, whatever it gives.
        refuses: The one error that it may raise.
        damage: Content and random numbers to a damaged content.
        same: Whether what is still read must be what the sound file holds.
    """

    path: Path
    sound: bytes
    read: Callable[[Path], object]
    refuses: type[Exception]
    damage: Callable[[bytes, random.Random], bytes]
    same: bool = False


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Content with bytes flipped, cut out or put in at up to five places, or cut off."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        # the structure of most files is at their beginning and at their end
        near = min(len(changed), 400)
        at = draw.choice(
            (draw.randrange(len(changed) + 1), draw.randrange(near + 1), len(changed) - draw.randrange(near + 1))
        )
        kind = draw.random()
        if kind < 0.5 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind < 0.65:
            del changed[at : at + draw.choice((1, 4, 100))]
        elif kind < 0.8:
            changed[at:at] = draw.choice((*WORDS, draw.randbytes(3)))
        elif kind < 0.9:
            changed[at : at + 4] = draw.choice((b"\xff\xff\xff\x7f", b"\xff" * 4, bytes(4)))
        else:
            del changed[at:]
    return bytes(changed)


def rewritten_pickle(content: bytes, draw: random.Random) -> bytes:
    """A sound archive of PyTorch's around a damaged pickle: what no checksum tells."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(stream, "w") as after:
        for name in before.namelist():
            part = before.read(name)
            after.writestr(name, damaged(part, draw) if name.endswith("data.pkl") else part)
    return stream.getvalue()


def rewritten_text(content: bytes, draw: random.Random) -> bytes:
    """Lines of a text left out, doubled, or damaged; most of what comes out is still YAML, CSV or JSON."""
    lines = content.splitlines(keepends=True)
    for _ in range(draw.choice((1, 2, 3))):
        at = draw.randrange(len(lines))
        kind = draw.random()
        if kind < 0.2:
            del lines[at]
        elif kind < 0.4:
            lines.insert(draw.randrange(len(lines) + 1), lines[at])
        elif kind < 0.6:
            key, mark, _ = lines[at].partition(b":")
            lines[at] = key + mark + b" " + draw.choice(VALUES) + b"\n"
        else:
            lines[at] = damaged(lines[at], draw)
        lines = lines or [b"x"]
    return b"".join(lines)


# --- groups of readers


def _volumes(folder: Path) -> Iterator[Reader]:
    array = np.random.default_rng(0).integers(-900, 900, (9, 8, 7)).astype(np.int16)
    for name in ("a.nii", "b.nii.gz", "c.mha", "d.nrrd", "e.npy", "f.npz"):
        path = folder / name
        if ".nii" in name:
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 2, 3, 1])), path)
        elif name.endswith((".npy", ".npz")):
            np.save(path, array) if name.endswith(".npy") else np.savez_compressed(path, array)
        else:
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path), True)
        yield Reader(path, path.read_bytes(), read_scan, ReadError, damaged)


def _pictures(folder: Path) -> Iterator[Reader]:
    grey = (np.random.default_rng(0).integers(0, 40, (40, 50)) + np.arange(50) * 3).astype(np.uint8)
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp"):
        Image.fromarray(grey).save(folder / name)
        yield Reader(folder / name, (folder / name).read_bytes(), read_picture, ReadError, damaged)
    dicom = Path(get_testdata_file("CT_small.dcm", download=False)).read_bytes()
    yield Reader(folder / "a.dcm", dicom, read_picture, ReadError, damaged)


def _tables(folder: Path) -> Iterator[Reader]:
    array = np.random.default_rng(0).random((3, 8, 8)).astype(np.float16)
    np.save(folder / "v.npy", array)
    grid = {"affine": np.eye(4).tolist(), "source_affine": np.eye(4).tolist(), "source_shape": [8, 8, 3]}
    box = {"left": 1, "top": 1, "right": 3, "bottom": 3, "label": 0}
    (folder / "boxes.json").write_text(json.dumps([box]))
    (folder / "grid.json").write_text(json.dumps(grid))
    entry = Entry(
        id="a", kind="volume", path="v.npy", label_path=None, label=1, split="train", patient="p", modality="CT",
        spacing=(1.0, 1.0, 1.0), shape=array.shape, dtype="float16",
        sha256=hashlib.sha256((folder / "v.npy").read_bytes()).hexdigest(), boxes_path="boxes.json",
        grid_path="grid.json",
    )  # fmt: skip
    write_manifest(folder / "manifest.csv", [entry])
    (folder / "quarantine.csv").write_text("id,code,reason\nb,nan,a reason\n")
    (folder / "table.csv").write_text("image,label,split\na.nii,1,train\nb.nii,0,test\n")

    def all_of_it(path: Path) -> object:
        manifest = read_manifest(path.parent)
        manifest.check_files()
        return manifest.fingerprint()

    for name in ("manifest.csv", "quarantine.csv", "boxes.json", "grid.json", "v.npy"):
        sound = (folder / name).read_bytes()
        for damage in (damaged, rewritten_text)[: 1 if name == "v.npy" else 2]:
            yield Reader(folder / name, sound, all_of_it, ManifestError, damage)
    path = folder / "table.csv"
    yield Reader(
        path, path.read_bytes(), lambda path: read_table(path, ["image"], ["label"]), PreparationError, damaged
    )


def _configs(folder: Path) -> Iterator[Reader]:
    shutil.copytree(CONFIGS / "evaluation", folder / "evaluation")
    readers: list[tuple[str, Callable[[Path], object], type[Exception]]] = [
        ("recipes/demo.yaml", lambda path: read_recipe(path, ["run=x", "manifest=m.csv"]), RecipeError),
        ("evaluation/jsrt.yaml", read_plan, PlanError),
        (
            "evaluation/suites/table3.yaml",
            lambda path: read_suite(path, ["weights=[scratch,stage3=w.pth]"]),
            SuiteError,
        ),
    ]
    for name, read, refuses in readers:
        sound = (CONFIGS / name).read_bytes()
        (folder / name).parent.mkdir(exist_ok=True)
        for damage in (damaged, rewritten_text):
            yield Reader(folder / name, sound, read, refuses, damage)


def _weights(folder: Path) -> Iterator[Reader]:
    trunk = {"_feature_blocks.conv1.weight": torch.arange(600.0), "volume_encoder.a": torch.ones(3, dtype=torch.half)}
    model = {"model": {"trunk": trunk, "heads": {"0.prototypes0.weight": torch.ones(3, 2)}}, "meta": {"trunk": {}}}
    record = StageRecord(2, "swav", levels=("res1",), embedding_width=4, volume_encoder={"width": 3}).to_dict()
    state = {"base_model": model, "hooks": {"StagedTrainingHook": {"record": record}}, "train_phase_idx": 3}
    stream = io.BytesIO()
    torch.save({"classy_state_dict": state, "iteration": 40, "type": "consolidated"}, stream)
    sound = stream.getvalue()
    path = folder / "model_phase3.torch"
    yield Reader(path, sound, lambda path: _plain(vars(read_checkpoint(path))), CheckpointError, damaged, same=True)
    yield Reader(path, sound, read_checkpoint, CheckpointError, rewritten_pickle)
    noted = folder / "noted" / path.name
    noted.parent.mkdir()
    noted.with_name(f"{noted.name}.sha256").write_text(f"{hashlib.sha256(sound).hexdigest()}  {noted.name}\n")
    yield Reader(noted, sound, lambda path: _plain(vars(read_checkpoint(path))), CheckpointError, damaged, same=True)
    for damage in (damaged, rewritten_pickle):
        yield Reader(folder / "w.pth", sound, load_weights, CheckpointError, damage)
    yield Reader(folder / "w.safetensors", save(trunk), load_weights, CheckpointError, damaged)


def _captures(folder: Path) -> Iterator[Reader]:
    path = folder / "capture_rank0.pt"
    capture = Capture(
        rank=0, faulty_ranks=[0], iteration=3, said="x", samples=["a"], indices=torch.arange(4),
        batch=[torch.ones(4, 3, 1, 2, 2)], target=torch.arange(4), model={"w": torch.ones(3)}, loss={},
        random=(torch.get_rng_state(), None), scale=None, config="JOINT_SSL: {}\n",
    )  # fmt: skip
    assert {item.name for item in fields(Capture)} == set(vars(capture))
    write_capture(capture, path)
    for damage in (damaged, rewritten_pickle):
        yield Reader(path, path.read_bytes(), read_capture, CaptureError, damage)


GROUPS: dict[str, Callable[[Path], Iterator[Reader]]] = {
    "volumes": _volumes,
    "pictures": _pictures,
    "tables": _tables,
    "configs": _configs,
    "weights": _weights,
    "captures": _captures,
}


def _plain(value: Any) -> Any:
    """Something to compare: tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


# --- the tests


def _fuzz(readers: list[Reader], inputs: int, seconds: float) -> Counter[str]:
    """Damaged inputs for all readers in turn, until there were enough or the time is up."""
    tried: Counter[str] = Counter()
    sound = {number: reader.read(reader.path) for number, reader in _written(readers)}
    start = time.monotonic()
    for attempt in itertools.count():
        if attempt == inputs or time.monotonic() - start > seconds:
            return tried
        number = attempt % len(readers)
        reader, draw = readers[number], random.Random(attempt)
        content = reader.damage(reader.sound, draw)
        reader.path.write_bytes(content)
        try:
            found = reader.read(reader.path)
        except reader.refuses:
            tried["refused"] += 1
        except Exception as error:
            kept = f"{reader.path.name}, input {attempt}, {len(content)} bytes"
            raise AssertionError(f"{kept}: {type(error).__name__}: {error}") from error
        else:
            tried["read"] += 1
            assert not reader.same or found == sound[number], f"{reader.path.name}, input {attempt}: read as another"
        reader.path.write_bytes(reader.sound)
    raise AssertionError


def _written(readers: list[Reader]) -> Iterator[tuple[int, Reader]]:
    for number, reader in enumerate(readers):
        reader.path.write_bytes(reader.sound)
        yield number, reader


@pytest.mark.parametrize("group", GROUPS)
def test_two_hundred_damaged_inputs_are_read_or_refused(group: str, tmp_path: Path) -> None:
    tried = _fuzz(list(GROUPS[group](tmp_path)), FAST, 60)
    assert tried["refused"] > FAST // 10
    assert tried.total() == FAST


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_as_many_damaged_inputs_as_fit_into_twenty_seconds(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = _fuzz(list(GROUPS[group](tmp_path)), 10**9, SECONDS)
    with capsys.disabled():
        sys.stdout.write(f"\nfuzzing {group}: {tried.total()} inputs, {tried['refused']} refused, the others read\n")
    assert tried.total() > FAST
