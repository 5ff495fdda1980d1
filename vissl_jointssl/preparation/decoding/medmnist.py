"""MedMNIST's `.npz`: many small samples in one array per split, read one by one, as a full set unpacks to gigabytes.

https://medmnist.com has the format: `train_images`, `train_labels`, and the same for `val` and `test`.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.npz_members import ArrayHeader, opened_npz, read_header, read_rows
from vissl_jointssl.preparation.errors import ReadError

SPLIT_ARRAYS = {split: (f"{split}_images", f"{split}_labels") for split in ("train", "val", "test")}
MAX_SAMPLE_VALUES = 512**3  # MedMNIST's largest are 224 x 224 x 3 and 64 x 64 x 64
MAX_LABEL = 65535

_AGAIN = "get the file again from its source"
_CONVERT = "save it as MedMNIST does: uint8 images (N, H, W), (N, H, W, 3) or (N, D, H, W), whole labels (N, 1)"


@dataclass(frozen=True)
class Samples:
    """What the headers of one split say.

    Attributes:
        images: `(N, H, W)`, `(N, H, W, 3)` or `(N, D, H, W)` uint8.
        labels: `(N,)`, `(N, 1)`, or `(N, L)` where a sample has several labels; None where it has none.
    """

    images: ArrayHeader
    labels: ArrayHeader | None

    @property
    def kind(self) -> str:
        """Of samples of three axes "volume", of others "image"; a last axis of 3 is colour."""
        return "volume" if len(self.images.shape) == 4 and self.images.shape[3] != 3 else "image"

    @property
    def has_classes(self) -> bool:
        """Whether each sample has one class."""
        return self.labels is not None and math.prod(self.labels.shape[1:]) == 1


def splits_of(path: Path) -> tuple[str, ...]:
    """Which of "train", "val" and "test" a `.npz` has images of; none if it is not of this format.

    Raises:
        ReadError: If the file is missing, empty or no zip.
    """
    with opened_npz(path) as archive:
        names = set(archive.namelist())
    return tuple(split for split, (images, _) in SPLIT_ARRAYS.items() if f"{images}.npy" in names)


def array_names_of(path: Path, split: str) -> tuple[str, str]:
    """The arrays of a split: ("train_images", "train_labels"), the second "" where the file has no labels.

    Raises:
        ReadError: As `splits_of`.
    """
    images, labels = SPLIT_ARRAYS[split]
    with opened_npz(path) as archive:
        return images, labels if f"{labels}.npy" in archive.namelist() else ""


def read_headers(path: Path, array_names: tuple[str, str]) -> Samples:
    """The headers of a split, checked against one another and against the sizes that the zip states.

    Args:
        path: The `.npz`.
        array_names: Of images and labels, such as ("train_images", "train_labels"); "" where there are no labels.

    Raises:
        ReadError: If the file is missing, empty, damaged or not as MedMNIST writes it.
    """
    with opened_npz(path) as archive:
        return _headers(archive, path, array_names)


def read_samples(path: Path, array_names: tuple[str, str]) -> Iterator[tuple[np.ndarray, int | None]]:
    """Every sample of a split in order, one at a time, so that memory holds one.

    Args:
        path: The `.npz`.
        array_names: As in `read_headers`.

    Yields:
        `(H, W)`, `(H, W, 3)` or `(D, H, W)` uint8, read-only; and its class, or None where there is none or several.

    Raises:
        ReadError: As `read_headers`, before the first sample; or where the data end early or are damaged, or a label
            is no class, at that sample.
    """
    with opened_npz(path) as archive:
        samples = _headers(archive, path, array_names)
        images = samples.images
        classes: Iterator[int | None] = repeat(None)
        if samples.labels is not None and samples.has_classes:
            classes = _classes(archive, path, samples.labels)
        for row in read_rows(archive, path, images):
            yield np.frombuffer(row, images.dtype).reshape(images.shape[1:]), next(classes)


def read_classes(path: Path, array_names: tuple[str, str]) -> Iterator[int]:
    """The class of every sample of a split, in order; nothing where samples have none or several.

    Raises:
        ReadError: As `read_samples`.
    """
    with opened_npz(path) as archive:
        samples = _headers(archive, path, array_names)
        if samples.labels is not None and samples.has_classes:
            yield from _classes(archive, path, samples.labels)


def _headers(archive: zipfile.ZipFile, path: Path, array_names: tuple[str, str]) -> Samples:
    images = read_header(archive, path, array_names[0])
    labels = read_header(archive, path, array_names[1]) if array_names[1] else None
    samples = Samples(images, labels)
    sizes = images.shape[1:]
    if len(sizes) not in (2, 3) or min(sizes) < 2:
        raise ReadError(path, f"{images.name} has shape {images.shape}", _CONVERT, "dimensions")
    if images.dtype != np.uint8:
        raise ReadError(path, f"{images.name} holds {images.dtype}, not uint8", _CONVERT, "unsupported")
    if math.prod(sizes) > MAX_SAMPLE_VALUES:
        raise ReadError(path, f"{images.name} claims samples of {sizes}", _CONVERT, "too_large")
    if labels is not None:
        if len(labels.shape) not in (1, 2) or labels.dtype.kind not in "iub":
            reason = f"{labels.name} has shape {labels.shape} and type {labels.dtype}"
            raise ReadError(path, reason, _CONVERT, "label_values")
        if labels.shape[0] != images.shape[0]:
            reason = f"{labels.name} has {labels.shape[0]} rows, {images.name} has {images.shape[0]}"
            raise ReadError(path, reason, _AGAIN, "label_values")
    return samples


def _classes(archive: zipfile.ZipFile, path: Path, labels: ArrayHeader) -> Iterator[int]:
    for number, row in enumerate(read_rows(archive, path, labels)):
        label = int(np.frombuffer(row, labels.dtype)[0])
        if not 0 <= label <= MAX_LABEL:
            reason = f"{labels.name} has {label} at sample {number}"
            raise ReadError(path, reason, f"number the classes from 0 to {MAX_LABEL}", "label_values")
        yield label
