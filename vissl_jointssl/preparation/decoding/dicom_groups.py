"""Which files of DICOM belong together, and what they are, from their headers alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vissl_jointssl.preparation.decoding.dicom_header import SliceHeader, is_dicom, read_slices
from vissl_jointssl.preparation.errors import ReadError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
X_RAYS = frozenset({"CR", "DX", "DR", "MG", "RG", "RF", "XA", "IO", "PX"})


@dataclass(frozen=True)
class SeriesGroup:
    """Files that make one volume or one image, or that make neither.

    Attributes:
        files: In order of path; one for an image and for a multi-frame volume.
        modality: As the standard abbreviates it, or None.
        form: "volume", "image" or "other".
        reason: Of "other": why it is neither, in words for the log; "" else.
        damaged: Whether the file could not be read, so that nobody knows where it belongs.
    """

    files: tuple[Path, ...]
    modality: str | None
    form: str
    reason: str = ""
    damaged: bool = False


def group_series(files: Iterable[Path]) -> list[SeriesGroup]:
    """Sort DICOM files into volumes, images and what is neither, in order of their first file.

    Slices of one series are a volume, of which some may turn out to be unusable; a multi-frame file is one, and each
    X-ray, photograph or picture of a series without positions is an image. Series are told apart by a UID that never
    leaves the headers.

    Args:
        files: Any; what is no DICOM becomes an "other". DICOMDIR is named and never followed.
    """
    return [group for group, _ in grouped_headers(files)]


def grouped_headers(files: Iterable[Path]) -> list[tuple[SeriesGroup, list[SliceHeader]]]:
    """As `group_series`, with the header of each slice; none where the group is an "other" without a readable one."""
    found: list[tuple[SeriesGroup, list[SliceHeader]]] = []
    series: dict[tuple[str, str | None], list[SliceHeader]] = {}
    for path in sorted(files):
        if path.name.upper() == "DICOMDIR":
            found.append((SeriesGroup((path,), None, "other", "a DICOMDIR, which is not followed"), []))
            continue
        try:
            headers = read_slices(path)
        except ReadError as error:
            found.append((SeriesGroup((path,), None, "other", error.reason, damaged=_was_dicom(path)), []))
            continue
        first = headers[0]
        form, reason = form_of(headers)
        if form == "volume" and first.frames == 1 and len(headers) == 1:
            series.setdefault((first.series, first.modality), []).append(first)
        else:
            found.append((SeriesGroup((path,), first.modality, form, reason), headers))
    for (_, modality), headers in series.items():
        if any(header.position is not None for header in headers):
            found.append((SeriesGroup(tuple(header.path for header in headers), modality, "volume"), headers))
        else:
            found.extend((SeriesGroup((header.path,), modality, "image"), [header]) for header in headers)
    return sorted(found, key=lambda item: item[0].files[0])


def form_of(headers: list[SliceHeader]) -> tuple[str, str]:
    """Of one file: "volume", "image" or "other", and the reason of an "other"."""
    first = headers[0]
    if min(first.size) < 1:
        return "other", f"{_kind(first)} without an image"
    if first.segmentation:
        return "other", "a DICOM segmentation: convert it to a label map on the grid of its scan"
    if first.mosaic:
        return "other", "a mosaic of slices in one picture: convert it to NIfTI with dcm2niix"
    if len(headers) > 1 and any(header.position is None for header in headers):
        return "other", f"{len(headers)} frames without positions, such as a film"
    if len(headers) == 1 and first.modality in X_RAYS:
        return "image", ""
    return "volume", ""


def _was_dicom(path: Path) -> bool:
    return is_dicom(path) or path.suffix.lower() in DICOM_SUFFIXES


def _kind(header: SliceHeader) -> str:
    from pydicom.uid import UID

    return UID(header.sop_class).name if header.sop_class else "an unknown kind of object"
