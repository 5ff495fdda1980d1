"""What the doctor says: one thing that is wrong, or odd, with one scan, one row or the whole set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vissl_jointssl.preparation.errors import CODES as READING_CODES
from vissl_jointssl.preparation.errors import ReadError, printable
from vissl_jointssl.preparation.recipe import Source

ERROR, WARNING = "error", "warning"
SEVERITIES = (ERROR, WARNING)

# What a reader finds, and what only looking at values, at many scans or at a prepared folder shows.
CODES = READING_CODES | {
    "nearly_empty": "nearly every voxel has the same value",
    "few_values": "so few values that it looks like a label map, or that nothing is left of it",
    "label_empty": "a label map that marks nothing",
    "outlier": "far from the rest of the set",
    "note": "what the reader noticed and lived with",
    "manifest": "manifest.csv, or a list beside it, cannot be used",
    "changed": "not the file that its row was written for",
    "splits": "something that training will never see",
    "channels": "volumes of different numbers of channels",
    "left_out": "left out when the folder was prepared",
}


@dataclass(frozen=True)
class Fault:
    """Something wrong, before it is said with what.

    Attributes:
        code: One of `CODES`.
        severity: "error" where training cannot start or would learn from rubbish, "warning" where a person should look.
        reason: Goes on from the name of the thing; one line, no header text.
        next_step: Goes on from "Next: ".
    """

    code: str
    severity: str
    reason: str
    next_step: str

    def about(self, id: str, path: Path | str) -> Diagnosis:
        """Say it of a source or a row."""
        return Diagnosis(id, printable(path), self.code, self.severity, self.reason, self.next_step)


@dataclass(frozen=True)
class Diagnosis:
    """A fault and whose it is.

    Attributes:
        id: Of the source or row; empty where the whole set is meant.
        path: Of its file, relative to the folder, in one line; empty where the whole set is meant.
        code: One of `CODES`.
        severity: "error" or "warning".
        reason: What is wrong.
        next_step: What to do about it.
    """

    id: str
    path: str
    code: str
    severity: str
    reason: str
    next_step: str

    def __post_init__(self) -> None:
        """Refuse what the table and its readers do not know."""
        if self.code not in CODES or self.severity not in SEVERITIES:
            raise ValueError(f"no diagnosis has code {self.code!r} and severity {self.severity!r}")


def error(code: str, reason: str, next_step: str) -> Fault:
    """A fault that keeps training from starting."""
    return Fault(code, ERROR, reason, next_step)


def warning(code: str, reason: str, next_step: str) -> Fault:
    """A fault that a person should look at."""
    return Fault(code, WARNING, reason, next_step)


def of_read_error(fault: ReadError, source: Source, root: Path) -> Diagnosis:
    """What a reader refused; it may be a label map that is at fault, or one slice."""
    path = fault.path
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    name = shown_path(source) if path == root / source.path else printable(relative)
    return Diagnosis(source.id, name, fault.code, ERROR, fault.reason, fault.next_step)


def shown_path(source: Source) -> str:
    """How a person finds a source: its path; its first file or its array, where others share the path."""
    if source.array_names is not None:
        return printable(f"{source.path} [{source.array_names[0]}]")
    if not source.files:
        return printable(source.path)
    more = f" and {len(source.files) - 1} more" if len(source.files) > 1 else ""
    return printable(source.files[0]) + more


def of_whole_set(faults: Iterable[Fault]) -> list[Diagnosis]:
    """Faults that no single scan has."""
    return [fault.about("", "") for fault in faults]
