"""`config.JOINT_SSL.NUMBERS`: how many steps may be skipped because a number in them is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 1000  # steps that `skip_per_1000` looks back on


@dataclass(frozen=True)
class NumberOptions:
    """Limits of skipping. A skipped batch now and then is noise; more is a run that trains on something else."""

    skip: int = 3  # steps skipped in a row; the next one at fault stops the run
    skip_per_1000: int = 10  # steps skipped among the last 1000, 1 %; so many in a shorter run, too

    def faults(self) -> list[str]:
        """Everything wrong with these values, in words."""
        return [
            f"JOINT_SSL.NUMBERS.{name.upper()} is {getattr(self, name)}; it must be at least 0, which stops at once"
            for name in ("skip", "skip_per_1000")
            if getattr(self, name) < 0
        ]


def within_window(skipped: Sequence[int], iteration: int) -> list[int]:
    """Those of the skipped iterations that are among the last `WINDOW` before `iteration`."""
    return [one for one in skipped if iteration - WINDOW < one < iteration]


def beyond_limits(in_a_row: int, recent: int, options: NumberOptions) -> str | None:
    """Why a step at fault is one too many, in words; None if it may be skipped.

    Args:
        in_a_row: Steps that would be skipped in a row, with this one.
        recent: Steps that would be skipped among the last `WINDOW`, with this one.
        options: The limits.
    """
    if in_a_row > options.skip:
        return f"{options.skip} steps in a row have been skipped before it (limit JOINT_SSL.NUMBERS.SKIP)"
    if recent > options.skip_per_1000:
        return (
            f"{options.skip_per_1000} of the last {WINDOW} steps have been skipped before it "
            "(limit JOINT_SSL.NUMBERS.SKIP_PER_1000)"
        )
    return None
