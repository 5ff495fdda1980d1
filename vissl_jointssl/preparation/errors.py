"""What preparation says when a file or a recipe is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ReadError(ValueError):
    """A scan, image or label map that cannot be used: which file, why, and what to do about it."""

    def __init__(self, path: Path | str, reason: str, next_step: str) -> None:
        self.path, self.reason, self.next_step = Path(path), reason, next_step
        super().__init__(f"{path}: {reason}. Next: {next_step}")


class PreparationError(ValueError):
    """Preparation as a whole cannot end well; `failures` holds the files at fault, if files were."""

    def __init__(self, message: str, failures: Sequence[ReadError] = ()) -> None:
        self.failures = tuple(failures)
        super().__init__("\n".join([message, *(f"  - {failure}" for failure in failures)]))
