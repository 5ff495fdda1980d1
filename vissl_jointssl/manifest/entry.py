"""One row of a manifest, and what is said when rows are at fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

KINDS = ("volume", "image")
SPLITS = ("train", "val", "test")
ARRAY_TYPES = ("uint8", "uint16", "float16", "float32")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class ManifestError(ValueError):
    """One or more faults of a manifest or of the files that it names; `faults` lists them one by one."""

    def __init__(self, path: Path, faults: Sequence[str], next_step: str) -> None:
        self.path, self.faults, self.next_step = path, tuple(faults), next_step
        shown = [f"  - {_one_line(fault)}" for fault in self.faults[:50]]
        if len(self.faults) > len(shown):
            shown.append(f"  - and {len(self.faults) - len(shown)} more")
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{_one_line(str(path))}: {count}", *shown, f"Next: {next_step}"]))

    def __reduce__(self) -> tuple[type[ManifestError], tuple[Path, tuple[str, ...], str]]:
        """Errors travel from worker processes, and pickle would call `__init__` with the message alone."""
        return (ManifestError, (self.path, self.faults, self.next_step))


@dataclass(frozen=True)
class Entry:
    """One row: an array and what is known about it.

    Attributes:
        id: Unique name of the row.
        kind: "volume" or "image".
        path: The array file, relative to the manifest's folder, with forward slashes.
        label_path: Label map `.npy` of the same `(F, H, W)` or `(H, W)`, whatever the channels, or None. One more axis
            in front, `(L, H, W)`, means a plane of 0 and 1 for each of L labels, which may overlap.
        label: Class of the whole sample, counted from 0, or None.
        split: "train", "val" or "test".
        patient: Opaque, already hashed; rows of one patient share a split.
        modality: "CT", "MR", "XR", ...
        spacing: Size of a voxel along (F, H, W) in mm, or None where unknown.
        shape: Of the array.
        dtype: Of the array: uint8, uint16, float16 or float32.
        sha256: Of the array file, 64 hex digits.
        boxes_path: `.json` of `boxes.Box`es, in pixels of the array, or None. An empty list means: looked at, none.
        grid_path: `.json` of a `grid.Grid`: where the array lies in its scan, or None.
    """

    id: str
    kind: str
    path: str
    label_path: str | None
    label: int | None
    split: str
    patient: str
    modality: str
    spacing: tuple[float, float, float] | None
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    boxes_path: str | None = None
    grid_path: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the row, relative to the manifest's folder."""
        return tuple(path for path in (self.path, self.label_path, self.boxes_path, self.grid_path) if path)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """`(F, H, W)` of a volume, `(H, W)` of an image: the shape without channels."""
        return self.shape[-3:] if self.kind == "volume" else self.shape[:2]


COLUMNS = tuple(field.name for field in fields(Entry))
OPTIONAL_COLUMNS = ("boxes_path", "grid_path")  # younger than the first manifests, which are still read
_LONGEST_FAULT = 600  # characters; a cell may hold a hundred thousand


def _one_line(text: str) -> str:
    """What was wrong may quote any name or cell: control characters are escaped, and the middle is left out."""
    if len(text) > _LONGEST_FAULT:
        text = f"{text[: _LONGEST_FAULT // 2]} ... {text[-_LONGEST_FAULT // 2 :]}"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
