"""What `jointssl speed` can measure, and what a measure is asked with."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Args:
        repetitions: How often each contestant takes its turn; medians are over these.
        device: ``cpu`` or ``gpu``.
        folder: Scans (`.nii.gz`) for `loader`; None makes some.
        volumes: Scans for `loader`.
        crops: Crops in all for `loader`.
    """

    repetitions: int = 5
    device: str = "cpu"
    folder: Path | None = None
    volumes: int = 4
    crops: int = 24


class Measure(Protocol):
    """A module of this room that measures one thing."""

    def measure(self, settings: Settings) -> dict[str, Any]:
        """Everything that was measured, for JSON; its keys are told in docs/speed.md. `what` is the measure's name."""

    def table(self, measured: Mapping[str, Any]) -> str:
        """The same for people, lines of text."""

    def ratios(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """What `jointssl speed all` collects, by name."""


MEASURES = {
    "step": "training steps inside the engine, against a bare ResNet-50 on as many images",
    "inter": "f_inter along the slices and along the entries, against the released blocks",
    "views": "views of volumes in batches, against TorchIO's transforms",
    "loader": "random crops from our cache, against nibabel and TorchIO",
    "memory": "a step of f_intra that recomputes its blocks, against one that keeps everything",
    "scaling": "a step against slices and volumes, an epoch and memory against the data set",
}


def load_measure(name: str) -> Measure:
    """The module of this room that is called as the measure."""
    return cast("Measure", importlib.import_module(f"vissl_jointssl.speed.{name}"))
