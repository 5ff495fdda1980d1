"""Where the frames of a multi-frame DICOM file lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.dicom_header import SliceHeader, numbers, rescale
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

MAX_FRAMES = 2**16


def frame_headers(header: Any, whole: SliceHeader) -> list[SliceHeader]:
    """One header per frame, from what the kind of object keeps its geometry in.

    Enhanced CT, MR and PET have functional groups (PS3.3 C.7.6.16), nuclear medicine a detector and a distance
    (C.8.4.15), dose grids offsets (C.8.8.3.2). Frames of anything else, such as a film, get no position.

    Args:
        header: With the tags of `dicom_header`.
        whole: The file's own header.

    Raises:
        ReadError: If the file claims no frame, or more than any scan has.
    """
    if not 1 <= whole.frames <= MAX_FRAMES:
        raise ReadError(whole.path, f"claims {whole.frames} frames", COPY_AGAIN, "too_large")
    frames = [replace(whole, frame=number) for number in range(whole.frames)]
    if "PerFrameFunctionalGroupsSequence" in header:
        return _from_groups(header, frames)
    detectors = header.get("DetectorInformationSequence")
    if detectors:
        position = numbers(detectors[0], "ImagePositionPatient", 3)
        axes = numbers(detectors[0], "ImageOrientationPatient", 6)
        frames = [replace(frame, position=position, axes=axes) for frame in frames]
    return _placed(frames, _offsets(header, whole))


def _from_groups(header: Any, frames: list[SliceHeader]) -> list[SliceHeader]:
    own = header.PerFrameFunctionalGroupsSequence
    if len(own) != len(frames):
        reason = f"claims {len(frames)} frames and describes {len(own)}"
        raise ReadError(frames[0].path, reason, COPY_AGAIN)
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]

    def item(group: Any, sequence: str) -> Any:
        for holder in (group, shared):
            if holder is not None and holder.get(sequence):
                return holder.get(sequence)[0]
        return {}

    described = []
    for frame, group in zip(frames, own, strict=True):
        slope, intercept = rescale(item(group, "PixelValueTransformationSequence"))
        described.append(
            replace(
                frame,
                position=numbers(item(group, "PlanePositionSequence"), "ImagePositionPatient", 3),
                axes=numbers(item(group, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
                spacing=numbers(item(group, "PixelMeasuresSequence"), "PixelSpacing", 2),
                slope=slope,
                intercept=intercept,
            )
        )
    return described


def _offsets(header: Any, whole: SliceHeader) -> tuple[float, ...] | None:
    """Distance of each frame from the first along the normal, in mm."""
    if header.get("GridFrameOffsetVector"):
        # Either relative to the first frame, or the patient's z of each frame: both grow by the same steps.
        offsets = numbers(header, "GridFrameOffsetVector", whole.frames)
        return None if offsets is None else tuple(offset - offsets[0] for offset in offsets)
    step = numbers(header, "SpacingBetweenSlices", 1)
    # Nuclear medicine stacks against the normal where the step is negative.
    return None if step is None else tuple(step[0] * number for number in range(whole.frames))


def _placed(frames: list[SliceHeader], offsets: tuple[float, ...] | None) -> list[SliceHeader]:
    first = frames[0]
    if offsets is None or first.position is None or first.axes is None:
        return [replace(frame, position=None) for frame in frames]
    normal = np.cross(first.axes[:3], first.axes[3:])
    return [
        replace(frame, position=tuple(np.add(first.position, offset * normal).tolist()))
        for frame, offset in zip(frames, offsets, strict=True)
    ]
