"""What the text headers of MetaImage and NRRD have in common, read before ITK opens them.

ITK believes what a header says: it sets memory aside for it, and follows a name to any file of the machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Geometry
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

_MAX_WORDS = 16


@dataclass(frozen=True)
class Promise:
    """What a header says.

    Attributes:
        shape: Lengths of the axes as ITK counts them, the fastest first, without channels within a voxel.
        channels: Numbers per voxel.
        data_path: The file with the voxels; the header's own, or one beside or below it.
        geometry: What it says of voxel size and place.
    """

    shape: tuple[int, ...]
    channels: int
    data_path: Path
    geometry: Geometry


class Fields(dict[str, str]):
    """The fields of a header that matter; others are not kept, for they may name a patient."""

    def __init__(self, path: Path, known: tuple[str, ...]) -> None:
        super().__init__()
        self.path, self.known = path, known

    def add(self, key: str, value: str) -> None:
        """Keep a field; raise `ReadError` if it comes twice, for readers differ in which one they take."""
        if key in self:
            raise ReadError(self.path, "cannot be read: its header says one thing twice", COPY_AGAIN)
        if key in self.known:
            self[key] = value

    def whole_numbers(self, key: str, absent: str = "") -> tuple[int, ...]:
        """The integers of a field; raise `ReadError` if it holds anything else."""
        words = self.get(key, absent).split()
        if not words or len(words) > _MAX_WORDS or not all(re.fullmatch(r"[-+]?[0-9]{1,19}", word) for word in words):
            raise self.damaged(key)
        return tuple(map(int, words))

    def check_sizes(self, key: str, axes: Sequence[int]) -> None:
        """Raise `ReadError` unless a field, where there is one, gives these axes sizes that are not 0."""
        if key in self:
            sizes = self._decimals(key)
            if not all(axis < len(sizes) and sizes[axis] != 0 and math.isfinite(sizes[axis]) for axis in axes):
                raise self._no_geometry(key)

    def check_directions(self, key: str) -> None:
        """Raise `ReadError` unless a field, where there is one, holds as many directions as they have numbers."""
        if key in self:
            numbers = self._decimals(key)
            axes = math.isqrt(len(numbers))
            with np.errstate(all="ignore"):
                square = axes > 0 and axes**2 == len(numbers) and np.isfinite(numbers).all()
                if not square or np.linalg.matrix_rank(np.reshape(numbers, (axes, axes))) < axes:
                    raise self._no_geometry(key)

    def _decimals(self, key: str) -> list[float]:
        words = [word for word in re.split(r"[\s(),]+", self[key]) if word not in ("", "none")]
        try:
            return [float(word) for word in words]
        except ValueError:
            raise self._no_geometry(key) from None

    def _no_geometry(self, key: str) -> ReadError:
        reason = f"says nothing usable about voxel size and position in its header's {key}"
        return ReadError(self.path, reason, "repair its header", "geometry")

    def damaged(self, key: str) -> ReadError:
        """The error of a field that cannot be."""
        return ReadError(self.path, f"cannot be read: its header's {key} is missing or impossible", COPY_AGAIN)


def as_text(path: Path, line: bytes) -> str:
    """A line of a header; raise `ReadError` if readers may differ in where it ends."""
    text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
    if "\0" in text or "\r" in text:
        raise ReadError(path, "cannot be read: its header holds bytes that are not text", COPY_AGAIN)
    return text


def unsupported(path: Path, reason: str) -> ReadError:
    """The error of a file that may be sound."""
    return ReadError(path, reason, "write it again as one packed .nrrd or .mha file", "unsupported")


def beside(path: Path, name: str) -> Path:
    """The data file that a header names.

    Links are followed, for they are the user's own.

    Raises:
        ReadError: If the name leads out of the header's folder, stands for several files, or no file is there.
    """
    if "%" in name or name.upper().split()[:1] == ["LIST"]:
        raise unsupported(path, "its voxels lie in several files")
    inside = PurePosixPath(name.replace("\\", "/"))
    if not name or inside.is_absolute() or ".." in inside.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        reason = "names a data file outside its own folder, which is not followed"
        raise ReadError(path, reason, "put the data file beside it and write its bare name", "unsupported")
    data_path = path.parent / name
    if not data_path.is_file():
        raise ReadError(path, "its data file is not there", "copy the data file as well, to beside it", "missing")
    with data_path.open("rb"):  # a file that may not be read says so here, ITK would not
        return data_path
