"""What preparation says when a file or a recipe is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# Every kind of fault, in the words of reports: code and what it means.
CODES = {
    "missing": "the file or folder does not exist",
    "forbidden": "the file may not be read",
    "empty": "0 bytes, or no voxel at all",
    "unreadable": "damaged, cut short, or not of the format that its name says",
    "unsupported": "sound perhaps, but of a kind that is not read",
    "too_large": "claims or unpacks to more than any scan holds",
    "dimensions": "not one 3D volume or one 2D image",
    "geometry": "no usable voxel size, position or orientation",
    "mixed_series": "slices of several series, sizes or orientations, such as a localizer among them",
    "missing_slices": "a gap between slices",
    "duplicate_slices": "two slices at one place",
    "gantry_tilt": "slices are sheared against one another",
    "spacing": "a voxel size that no scanner makes",
    "not_finite": "NaN or infinite voxels",
    "constant": "every voxel has the same value",
    "intensity": "values that do not fit the modality",
    "label_grid": "a label map off the grid of its scan",
    "label_values": "a label map of anything but whole numbers from 0 to 65535",
    "duplicate": "the same voxels as another scan",
    "boxes": "boxes that are empty or leave the image",
    "crashed": "the decoder crashed on it",
    "timeout": "the decoder did not come to an end",
}


class ReadError(ValueError):
    """A scan, image or label map that cannot be used: which file, why, and what to do about it.

    Attributes:
        path: The file or folder.
        reason: Goes on from the path; never holds text of a header, which may name a patient.
        next_step: Goes on from "Next: ".
        code: One of `CODES`.
    """

    def __init__(self, path: Path | str, reason: str, next_step: str, code: str = "unreadable") -> None:
        if code not in CODES:
            raise ValueError(f"no fault has the code {code!r}; the codes are {', '.join(CODES)}")
        self.path, self.reason, self.next_step, self.code = Path(path), reason, next_step, code
        super().__init__(f"{printable(path)}: {reason}. Next: {next_step}")

    def __reduce__(self) -> tuple[type[ReadError], tuple[Path, str, str, str]]:
        """Errors travel from worker processes, and pickle would call `__init__` with the message alone."""
        return (ReadError, (self.path, self.reason, self.next_step, self.code))


class PreparationError(ValueError):
    """Preparation as a whole cannot end well; `failures` holds the files at fault, if files were."""

    def __init__(self, message: str, failures: Sequence[ReadError] = ()) -> None:
        self.failures = tuple(failures)
        super().__init__("\n".join([message, *(f"  - {failure}" for failure in failures)]))


def printable(path: Path | str) -> str:
    """A path in one line, whatever its name holds: line breaks, control characters and broken UTF-8 are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(path))


def last_line(error: Exception) -> str:
    """The line of a decoder's error that says something: SimpleITK puts the reason last, others have one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
