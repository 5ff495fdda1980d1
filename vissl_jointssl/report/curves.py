"""VISSL's own logs as numbers: ``stdout.json`` (losses) and ``metrics.json`` (meters).

Both hold one JSON object a line and are appended to by every resumed run (``vissl/hooks/log_hooks.py:185``, ``:499``).
``stdout.json`` is written through a buffer, so a killed run leaves half a line, which the next run writes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class LogError(ValueError):
    """A training log cannot be read; the message names the file, what was found and what to do next."""


@dataclass(frozen=True)
class LossPoint:
    """One logged iteration.

    Attributes:
        epoch: Training phase, from 0.
        iteration: Iteration since the start of training, from 1.
        loss: Training loss, averaged over ranks; may be NaN.
        learning_rate: Learning rate; the first one where parameter groups differ.
        milliseconds: Mean time of an iteration so far.
    """

    epoch: int
    iteration: int
    loss: float
    learning_rate: float
    milliseconds: float


@dataclass(frozen=True)
class LossCurve:
    """The losses of one stage over all its resumed runs.

    Attributes:
        path: The log it was read from.
        points: By iteration, ascending, each iteration once.
        problems: What could not be read, one sentence each; empty for a clean log.
    """

    path: Path
    points: tuple[LossPoint, ...]
    problems: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """Epochs begun."""
        return self.points[-1].epoch + 1

    @property
    def first_loss(self) -> float:
        """Loss of the first logged iteration."""
        return self.points[0].loss

    @property
    def last_loss(self) -> float:
        """Loss of the last logged iteration."""
        return self.points[-1].loss


@dataclass(frozen=True)
class MeterReading:
    """One value of one meter at the end of one phase.

    Attributes:
        name: Path of the value inside the log's line, such as ``test_accuracy_list_meter.top_1.res5avg``; values of
            a list are numbered where there is more than one.
        value: As VISSL writes it; accuracies are percentages.
        epoch: Training phase, from 0.
        iteration: Training iterations done.
    """

    name: str
    value: float
    epoch: int
    iteration: int


def read_loss_curve(path: Path | str) -> LossCurve:
    """Read ``stdout.json``.

    Where a resumed run goes back to an earlier iteration, its points replace those of the run before from there on.

    Raises:
        LogError: If the file is missing or holds no logged iteration.
    """
    path = Path(path)
    lines, problems = read_lines(path)
    points: list[LossPoint] = []
    for number, line in lines:
        try:
            rate = line["lr"]
            point = LossPoint(
                epoch=int(line["ep"]),
                iteration=int(line["iter"]),
                loss=float(line["loss"]),
                learning_rate=float(rate[0] if isinstance(rate, list) else rate),
                milliseconds=float(line["btime(ms)"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(f"line {number} is no logged iteration ({error!r})")
            continue
        while points and points[-1].iteration >= point.iteration:
            points.pop()
        points.append(point)
    if not points:
        raise LogError(f"{path}: no logged iteration in it; a run logs its first one, so look into log.txt beside it")
    return LossCurve(path, tuple(points), tuple(problems))


def read_meters(path: Path | str) -> tuple[MeterReading, ...]:
    """Read ``metrics.json``; a phase that was run again after a resume counts once, the last time.

    Raises:
        LogError: If the file is missing or a line of it cannot be read.
    """
    path = Path(path)
    lines, problems = read_lines(path)
    if problems:
        raise LogError(f"{path}: {'; '.join(problems)}; resume the run, or run the evaluation again")
    readings: dict[tuple[str, int, int], MeterReading] = {}
    for _, line in lines:
        epoch, iteration = int(line.get("train_phase_idx", -1)), int(line.get("iteration", 0))
        for key, content in line.items():
            if key.startswith(("train_", "test_")) and key != "train_phase_idx":
                for name, value in _flat(key, content):
                    readings[name, epoch, iteration] = MeterReading(name, value, epoch, iteration)
    return tuple(readings.values())


def read_lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """Numbered lines of a JSON log, and a sentence for each line that is not whole."""
    if not path.is_file():
        raise LogError(f"{path}: no such log; run the stage first, or correct the path")
    lines: list[tuple[int, dict[str, Any]]] = []
    problems: list[str] = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            lines.append((number, json.loads(text)))
        except json.JSONDecodeError:
            problems.append(f"line {number} is cut short, as a killed run leaves it")
            # The run that resumed wrote its first line on the same line.
            glued = text.rfind("{", 1)
            whole = _object(text[glued:]) if glued > 0 else None
            if whole is not None:
                lines.append((number, whole))
    return [(number, line) for number, line in lines if isinstance(line, dict)], problems


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _flat(name: str, content: object) -> list[tuple[str, float]]:
    """Every number inside nested dictionaries and lists, with its dotted path."""
    if isinstance(content, dict):
        return [pair for key, inner in content.items() for pair in _flat(f"{name}.{key}", inner)]
    if isinstance(content, list):
        if len(content) == 1:
            return _flat(name, content[0])
        return [pair for place, inner in enumerate(content) for pair in _flat(f"{name}.{place}", inner)]
    return [(name, float(content))] if isinstance(content, int | float) else []
