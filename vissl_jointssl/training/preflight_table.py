"""What `jointssl train --plan` prints for people."""

from __future__ import annotations

from collections.abc import Callable

from vissl_jointssl.training.preflight import Preflight
from vissl_jointssl.training.stage_estimate import StageEstimate, show_bytes

PAPER = "the paper's Universal recipe: 30 h on 4 A100"
_WIDTH = 22
_ROWS: dict[str, Callable[[StageEstimate], str]] = {
    "config": lambda stage: stage.config.removeprefix("jointssl/"),
    "step": lambda stage: show_seconds(stage.step),
    "of it waiting for data": lambda stage: f"{stage.wait_share:.0%}",
    "slices or crops a second": lambda stage: f"{stage.images_per_second:,.1f}",
    "batch per rank": lambda stage: str(stage.batch),
    "would fit, estimated": lambda stage: "unknown" if stage.largest_batch is None else str(stage.largest_batch),
    "peak memory per rank": lambda stage: "unknown" if stage.peak is None else show_bytes(stage.peak),
    "a rank can have": lambda stage: "unknown" if stage.room is None else show_bytes(stage.room),
    "workers per rank": lambda stage: f"{stage.workers}, enough {stage.workers_suggested}",
    "/dev/shm": lambda stage: show_bytes(stage.shared_memory),
    "steps": lambda stage: f"{stage.epochs} x {stage.steps_per_epoch}",
    "time": lambda stage: show_seconds(stage.seconds),
    "checkpoints": lambda stage: f"{stage.checkpoints} x {show_bytes(stage.checkpoint)}",
}


def preflight_table(found: Preflight) -> str:
    """Lines of text, the last without a line break."""
    stages, room = found.stages, found.room
    ranks = f"{_machine(stages[0].ranks)} on {stages[0].device}"
    left = max(map(len, _ROWS))
    columns = [f"stage {number}" for number in range(1, len(stages) + 1)]
    memory = "memory unknown" if room.memory is None else f"{show_bytes(room.memory)} memory free"
    shared = "no /dev/shm" if room.shared_memory is None else f"/dev/shm {show_bytes(room.shared_memory)} free"
    at = [f"{_machine(size):24} {_time(seconds)}" for size, seconds in found.seconds_at.items()]
    return "\n".join(
        [
            f"{ranks}; {room.cores} cores, {memory}, {shared}",
            "measured from random weights; memory grows with the batch in a straight line, ranks cost nothing",
            "",
            _line("", left, columns),
            *(_line(name, left, [show(stage) for stage in stages]) for name, show in _ROWS.items()),
            "",
            f"all stages: {show_seconds(found.seconds)}; checkpoints {show_bytes(found.checkpoints)} of "
            f"{show_bytes(room.disk)} free; prepared data {show_bytes(found.cache)}",
            "",
            "ranks like these, each with the same batch",
            *at,
            f"({PAPER})",
            *(f"\nwill not work: {words}" for words in found.problems),
            *(f"\nnote: {words}" for words in found.advice),
        ]
    )


def show_seconds(seconds: float) -> str:
    """`0.41 s`, `12 min`, `30.5 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _line(name: str, left: int, cells: list[str]) -> str:
    return (f"{name:{left}}  " + "".join(f"{cell:>{_WIDTH}}  " for cell in cells)).rstrip()


def _machine(ranks: int) -> str:
    return f"{ranks} rank" if ranks == 1 else f"{ranks} ranks"


def _time(seconds: float | None) -> str:
    return "too few samples for a step; lower the batch" if seconds is None else show_seconds(seconds)
