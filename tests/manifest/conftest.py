"""A prepared folder of one volume, and the errors of a manifest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, write_manifest


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    """Write an array below root/volumes and make its row; any field of the row may be given."""

    def make(root: Path, name: str = "a", array: np.ndarray | None = None, **changes: object) -> Entry:
        array = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) if array is None else array
        path = root / "volumes" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
        entry = Entry(
            id=name,
            kind="volume",
            path=f"volumes/{name}.npy",
            label_path=None,
            label=None,
            split="train",
            patient=f"patient-{name}",
            modality="CT",
            spacing=(3.0, 1.5, 1.5),
            shape=array.shape,
            dtype=str(array.dtype),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        return dataclasses.replace(entry, **changes)

    return make


@pytest.fixture
def save_row(tmp_path: Path, make_entry: Callable[..., Entry]) -> Callable[..., Entry]:
    """The same below tmp_path."""
    return functools.partial(make_entry, tmp_path)


@pytest.fixture
def saved(tmp_path: Path, save_row: Callable[..., Entry]) -> Manifest:
    """A manifest of one row, a, on disk."""
    return write_manifest(tmp_path / "manifest.csv", [save_row()])


@pytest.fixture
def fault_of() -> Callable[..., str]:
    """The one fault that something raises, said in one line."""

    def call(action: Callable[..., object], *arguments: object) -> str:
        with pytest.raises(ManifestError) as error:
            action(*arguments)
        (fault,) = error.value.faults
        header, line, next_step = str(error.value).split("\n")
        assert header.endswith(": 1 fault")
        assert line.startswith("  - ")
        assert len(line) < 700
        assert next_step.startswith("Next: ")
        return fault

    return call
