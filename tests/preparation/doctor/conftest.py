from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.manifest import Entry
from vissl_jointssl.preparation.doctor import checkup
from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis
from vissl_jointssl.preparation.doctor.facts import Examined, Facts
from vissl_jointssl.preparation.doctor.raw import examine_source
from vissl_jointssl.preparation.doctor.values import values_of
from vissl_jointssl.preparation.recipe import Options, Source


@pytest.fixture
def make_ct() -> Callable[..., np.ndarray]:
    """A (i, j, k) CT of int16: a body with fat, muscle and bone in air, as noisy as a scanner's."""

    def make(shape: tuple[int, int, int] = (24, 20, 12), seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        array = np.full(shape, -1000.0)
        inside = tuple(slice(2, length - 2) for length in shape)
        array[inside] = rng.choice([-100, 40, 60, 700], array[inside].shape, p=[0.2, 0.4, 0.35, 0.05])
        return (array + rng.normal(0, 12, shape)).round().astype(np.int16)

    return make


@pytest.fixture
def make_mr() -> Callable[..., np.ndarray]:
    """A (i, j, k) MR of int16: a bright head in noise, from 0 up."""

    def make(shape: tuple[int, int, int] = (24, 20, 12), seed: int = 0, scale: float = 1.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        array = np.abs(rng.normal(0, 8, shape))
        inside = tuple(slice(2, length - 2) for length in shape)
        array[inside] = rng.uniform(80, 600, array[inside].shape)
        return (array * scale).round().astype(np.int16)

    return make


@pytest.fixture
def make_picture() -> Callable[..., np.ndarray]:
    """A grey (H, W) image of uint8 that uses its range."""

    def make(shape: tuple[int, int] = (32, 40), seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(5, 240, shape).astype(np.uint8)

    return make


@pytest.fixture
def source() -> Callable[..., Source]:
    def make(path: str, **fields: object) -> Source:
        return replace(Source(id=path.replace("/", "-").split(".")[0], path=path, patient=f"of {path}"), **fields)

    return make


@pytest.fixture
def examined(tmp_path: Path) -> Callable[..., Examined]:
    """Look at a source below the test's folder, in this process."""

    def look(source: Source, options: Options | None = None, classes: int = 0) -> Examined:
        return examine_source(source, tmp_path, options or Options(), classes)

    return look


@pytest.fixture
def codes() -> Callable[..., list[tuple[str, str]]]:
    """(code, severity) of each diagnosis, in order."""

    def of(diagnoses: tuple[Diagnosis, ...] | list[Diagnosis]) -> list[tuple[str, str]]:
        return [(one.code, one.severity) for one in diagnoses]

    return of


@pytest.fixture
def make_facts() -> Callable[..., Facts]:
    def make(id: str, array: np.ndarray | None = None, **fields: object) -> Facts:
        array = np.arange(60.0).reshape(3, 4, 5) if array is None else array
        base = Facts(id, f"{id}.nii", "volume", id, "MR", None, array.shape, (3.0, 1.0, 1.0), values_of(array), id)
        return replace(base, **fields)

    return make


@pytest.fixture
def make_row(tmp_path: Path) -> Callable[..., Entry]:
    """A sound row and its files in `tmp_path`: a volume (10, 20, 24) of uint16 that uses its range."""

    def make(id: str, array: np.ndarray | None = None, labels: np.ndarray | None = None, **fields: object) -> Entry:
        if array is None:
            seed = int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big")
            array = np.random.default_rng(seed).integers(0, 65536, (10, 20, 24)).astype(np.uint16)
        kind = str(fields.get("kind", "volume"))
        path = tmp_path / f"{kind}s" / f"{id}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
        label_path = None
        if labels is not None:
            label_path = f"{kind}s/{id}-labels.npy"
            np.save(tmp_path / label_path, labels)
        entry = Entry(
            id=id,
            kind=kind,
            path=f"{kind}s/{id}.npy",
            label_path=label_path,
            label=None,
            split="train",
            patient=f"patient-{id}",
            modality="MR",
            spacing=(3.0, 1.0, 1.0) if kind == "volume" else None,
            shape=array.shape,
            dtype=str(array.dtype),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        return replace(entry, **fields)

    return make


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkups without worker processes: quicker, and a debugger can follow."""

    def run(function: Callable, tasks: tuple, jobs: int, timeout: float) -> list:
        return [(number, function(task)) for number, task in enumerate(tasks)][::-1]  # in another order than asked

    monkeypatch.setattr(checkup, "run_tasks", run)
