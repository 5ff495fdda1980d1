from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.segmentation import images, volumes
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry, Grid, read_manifest, write_grid, write_manifest


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def add_row(tmp_path: Path) -> Callable[..., Entry]:
    """Write an array and its labels below `tmp_path/data`; gives the row."""

    def add(
        name: str,
        array: np.ndarray,
        labels: np.ndarray | None,
        split: str = "train",
        grid: Grid | None = None,
        **more: object,
    ) -> Entry:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{name}.npy", array)
        if labels is not None:
            np.save(folder / f"{name}-labels.npy", labels)
        if grid is not None:
            write_grid(grid, folder / f"{name}-grid.json")
        image = array.ndim == 2 or array.shape[-1] == 3
        values: dict[str, object] = {
            "id": name,
            "kind": "image" if image else "volume",
            "path": f"{name}.npy",
            "label_path": None if labels is None else f"{name}-labels.npy",
            "label": None,
            "split": split,
            "patient": name,
            "modality": "MR",
            "spacing": None if image else (2.0, 1.0, 1.0),
            "shape": array.shape,
            "dtype": str(array.dtype),
            "sha256": hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest(),
            "grid_path": None if grid is None else f"{name}-grid.json",
        }
        return Entry(**{**values, **more})  # type: ignore[arg-type]

    return add


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """A job over rows, by their splits."""

    def make(rows: Sequence[Entry], folder: str = "run", **changes: object) -> Job:
        write_manifest(tmp_path / "data" / "manifest.csv", rows)
        manifest = read_manifest(tmp_path / "data")
        values: dict[str, object] = {
            "manifest": manifest,
            "train": manifest.select(splits=("train",)),
            "validation": manifest.select(splits=("val",)),
            "test": manifest.select(splits=("test",)),
            "initialisation": Initialisation("scratch"),
            "seed": 0,
            "device": torch.device("cpu"),
            "folder": tmp_path / folder,
            "progress": silent,
        }
        return Job(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def balls(add_row: Callable[..., Entry]) -> Callable[..., list[Entry]]:
    """Volumes `(F, 24, 28)` with a bright ball in noise, of which the outer slices show nothing."""

    def make(train: int = 3, validation: int = 0, test: int = 2, depth: int = 8) -> list[Entry]:
        rng = np.random.default_rng(0)
        f, h, w = np.meshgrid(np.arange(depth), np.arange(24), np.arange(28), indexing="ij")
        rows = []
        for number, split in enumerate(["train"] * train + ["val"] * validation + ["test"] * test):
            centre = (depth / 2, rng.uniform(8, 16), rng.uniform(8, 20))
            ball = (2 * (f - centre[0])) ** 2 + (h - centre[1]) ** 2 + (w - centre[2]) ** 2 < 36
            array = rng.integers(0, 20000, ball.shape) + 40000 * ball
            rows.append(add_row(f"ball{number}", array.astype(np.uint16), ball.astype(np.uint8), split))
        return rows

    return make


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A U-Net on the first blocks of a ResNet-18, where a test is not about the network."""

    def build(labels: int, initialisation: Initialisation) -> nn.Module:
        network: nn.Module = smp.Unet(
            "resnet18", encoder_depth=3, encoder_weights=None, decoder_channels=(32, 16, 8), classes=labels
        )
        for unused in ("layer3", "layer4"):
            setattr(network.get_submodule("encoder"), unused, nn.Identity())
        return network

    for module in (volumes, images):
        monkeypatch.setattr(module, "build_unet", build)
