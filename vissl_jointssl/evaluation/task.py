"""What every downstream task is to the contract: labelled rows in, numbers per case out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.manifest import Entry, Manifest

RUN = "run "  # begins what counts runs; all else goes on within one
Progress = Callable[[str, int, int], None]  # what is going on, how far, of how much


@dataclass(frozen=True)
class Job:
    """One training run with its test.

    Attributes:
        manifest: Opens the rows.
        train: Labelled rows to learn from, already cut to the fraction.
        validation: Labelled rows to choose with; may be empty.
        test: Labelled rows that decide; never looked at before the end.
        initialisation: The start.
        seed: Of everything that is drawn.
        device: Where to compute.
        folder: Of this run alone; predictions, `state.pt` while it lasts.
        progress: Called as often as wished.
    """

    manifest: Manifest
    train: tuple[Entry, ...]
    validation: tuple[Entry, ...]
    test: tuple[Entry, ...]
    initialisation: Initialisation
    seed: int
    device: torch.device
    folder: Path
    progress: Progress


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        metrics: Over all test cases.
        cases: By id of a test row (or of what the task scores), each with its metrics; NaN means undefined, by the rule
            that the metric states.
        losses: Mean training loss of each epoch.
    """

    metrics: Mapping[str, float]
    cases: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    losses: tuple[float, ...] = ()


class Task(Protocol):
    """A downstream task; a frozen dataclass of its options, which raises `ValueError` for bad ones.

    Attributes:
        main_metric: The one of the figure and the first of the table; larger is better.
        kinds: Rows it reads, "volume" or "image".
    """

    main_metric: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]

    def is_labelled(self, entry: Entry) -> bool:
        """Whether a row has the labels that the task needs."""

    def faults(self, job: Job) -> list[str]:
        """What makes the data or the start unusable for the task, in words; before anything is trained."""

    def run(self, job: Job) -> Outcome:
        """Train and test."""
