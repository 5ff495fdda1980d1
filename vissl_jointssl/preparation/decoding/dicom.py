"""DICOM volumes: a series of files or one multi-frame file, in order of position and never of name or number.

Nothing of a header's text leaves here: numbers, the modality and what the geometry shows are all that is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.decoding.dicom_geometry import Fault, affine_of, examine, in_order
from vissl_jointssl.preparation.decoding.dicom_groups import (
    DICOM_SUFFIXES,
    SeriesGroup,
    form_of,
    group_series,
    grouped_headers,
)
from vissl_jointssl.preparation.decoding.dicom_header import SliceHeader, is_dicom, read_slices
from vissl_jointssl.preparation.decoding.dicom_rescaling import rescaled_volume
from vissl_jointssl.preparation.decoding.limits import MAX_VOXELS
from vissl_jointssl.preparation.errors import ReadError, printable

__all__ = ["SeriesGroup", "group_series", "is_dicom", "read_dicom_file", "read_dicom_series", "series_faults"]

_LIVABLE = ("gantry_tilt",)
_LOOK = "look for missing or doubled slices, or for a localizer among them"


def read_dicom_series(folder: Path, files: Sequence[Path] = ()) -> Decoded:
    """Read one series.

    Args:
        folder: Where it lies, for messages; and all there is to it where `files` is empty.
        files: Its slices, or its one multi-frame file, where the folder holds others.

    Returns:
        Voxels (i, j, k) after rescaling (HU for CT), their affine, and the modality that the files state.

    Raises:
        ReadError: If the folder holds no series or several, slices are missing, doubled or of different kinds, or a
            file is damaged. One error names every fault of the geometry.
    """
    with _named_by(folder):
        headers, notes = _headers(folder, files)
    if len(headers) == 1:
        raise ReadError(folder, "holds one slice, not a 3D volume", "give the folder of the whole series", "dimensions")
    faults = examine(headers)
    fatal = [fault for fault in faults if fault[0] not in _LIVABLE]
    if fatal:
        raise ReadError(folder, "; ".join(words for _, words in fatal), _LOOK, fatal[0][0])
    first = headers[0]
    if first.samples != 1:
        raise ReadError(folder, "is not a grey 3D series", "take colour captures out of the folder", "unsupported")
    voxels = len(headers) * first.size[0] * first.size[1]
    if voxels > MAX_VOXELS:
        reason = f"claims {voxels} voxels, more than {MAX_VOXELS}"
        raise ReadError(folder, reason, "cut it to the part that is needed", "too_large")
    headers = in_order(headers)
    notes += [words for _, words in faults]
    with _named_by(folder):
        volume = rescaled_volume(headers, MAX_VOXELS)
    return Decoded(volume, affine_of(headers), first.modality, tuple(notes))


def read_dicom_file(path: Path) -> Decoded:
    """Read a multi-frame file as a volume.

    Raises:
        ReadError: If it is damaged, holds a single slice, or its frames have no places.
    """
    return read_dicom_series(path, (path,))


def series_faults(folder: Path, files: Sequence[Path] = ()) -> list[Fault]:
    """What is wrong with the geometry of a series, as (code, words), without a pixel decoded.

    A "gantry_tilt" is a note, everything else makes `read_dicom_series` refuse the series.

    Args:
        folder: As in `read_dicom_series`.
        files: As in `read_dicom_series`.

    Raises:
        ReadError: If the folder holds no series or several, or a header is damaged.
    """
    with _named_by(folder):
        return examine(_headers(folder, files)[0])


@contextmanager
def _named_by(folder: Path) -> Iterator[None]:
    """A slice's error becomes the series' own, for that is what can be mended or left out."""
    try:
        yield
    except ReadError as error:
        if error.path == folder:
            raise
        raise ReadError(folder, f"{printable(error.path.name)} {error.reason}", error.next_step, error.code) from None


def _headers(folder: Path, files: Sequence[Path]) -> tuple[list[SliceHeader], list[str]]:
    """Headers of the series, and notes on what else lies in its folder."""
    if files:
        return [header for path in sorted(files) for header in _slices(path)], []
    dicom = _dicom_files(folder)
    groups = grouped_headers(dicom)
    for group, _ in groups:
        if group.damaged:
            read_slices(group.files[0])  # raises what is wrong
    volumes = [(group, headers) for group, headers in groups if group.form == "volume"]
    others = [group for group, _ in groups if group.form != "volume"]
    if len(volumes) > 1:
        sizes = ", ".join(str(len(headers)) for _, headers in volumes)
        reason = f"holds {len(volumes)} DICOM series (of {sizes} slices)"
        raise ReadError(folder, reason, "move each series to a folder of its own", "mixed_series")
    if not volumes:
        raise _no_series(folder, others)
    notes = [f"{len(others)} DICOM files of its folder are no slices of it"] if others else []
    return volumes[0][1], notes


def _slices(path: Path) -> list[SliceHeader]:
    headers = read_slices(path)
    form, reason = form_of(headers)
    if form == "other":
        raise ReadError(path, f"holds {reason}", "take it out of the folder", "unsupported")
    return headers


def _dicom_files(folder: Path) -> list[Path]:
    """The DICOM files right in a folder; a file that is none and has the suffix of one is a slice that broke."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name.upper() != "DICOMDIR"
    )
    dicom = [path for path in files if is_dicom(path)]
    known = set(dicom)
    suffixes = {_suffix(path) for path in dicom} | set(DICOM_SUFFIXES)
    for path in files:
        if _suffix(path) in suffixes and path not in known:
            read_slices(path)  # raises what is wrong
    return dicom


def _suffix(path: Path) -> str:
    """In small letters; numbers after a dot, as in IM.0001, count slices and are no suffix."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def _no_series(folder: Path, others: Sequence[SeriesGroup]) -> ReadError:
    if any(group.form == "image" for group in others):
        reason = f"holds {len(others)} DICOM images without places, not a 3D volume"
        return ReadError(folder, reason, "give the path of each image instead of their folder", "dimensions")
    found = f", but {others[0].reason}" if others else ""
    return ReadError(folder, f"holds no DICOM series{found}", "give a folder whose files are the slices of one scan")
