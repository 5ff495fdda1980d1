"""One source of raw scans, looked at as preparation reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis, Fault, error, of_read_error, shown_path, warning
from vissl_jointssl.preparation.doctor.facts import Examined, Facts
from vissl_jointssl.preparation.doctor.grids import size_faults, spacing_faults
from vissl_jointssl.preparation.doctor.intensities import common_faults, image_faults, raw_faults
from vissl_jointssl.preparation.doctor.labels import box_faults, label_faults, numbers_in
from vissl_jointssl.preparation.doctor.loading import (
    UNKNOWN,
    load_labels,
    load_scan,
    modality_of,
    used_channels,
)
from vissl_jointssl.preparation.doctor.series import note_faults, refused
from vissl_jointssl.preparation.doctor.values import Values, digest_of, values_of
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pictures import Picture, read_picture
from vissl_jointssl.preparation.processing.patches import patch_starts
from vissl_jointssl.preparation.recipe import Options, Source
from vissl_jointssl.preparation.scan import Scan
from vissl_jointssl.preparation.splitting import hash_patient


def examine_source(source: Source, root: Path, options: Options, classes: int) -> Examined:
    """Read a source and say what is wrong with it; nothing is raised for what a file does.

    Args:
        source: What to look at.
        root: Folder that its paths are relative to.
        options: Of the recipe: they decide which way slices run and what of a fourth axis is used.
        classes: How many names the recipe has for label numbers; 0 where it has none.
    """
    try:
        if source.array_names is not None:
            return _samples(source, root)
        if source.kind == "image":
            return _image(source, root, options, classes)
        return _volume(source, root, options, classes)
    except ReadError as fault:
        return Examined(diagnoses=tuple(refused(fault, source, root)))


def _volume(source: Source, root: Path, options: Options, classes: int) -> Examined:
    scan = load_scan(source, root, options)
    channels = used_channels(source, scan, options)
    modality, declared = modality_of(source, scan), bool(source.modality or scan.modality)
    shape = scan.array.shape[-3:]
    faults = [*spacing_faults(scan.spacing, shape, modality), *size_faults(shape, "volume")]
    faults += note_faults(scan.notes, source, root)
    if scan.array.ndim == 4 and len(channels) < len(scan.array):
        reason = f"is a series of {len(scan.array)} volumes, of which the first is taken"
        faults.append(warning("dimensions", reason, "see --fourth-axis of `jointssl prepare` for the others"))
    values = [values_of(channel) for channel in channels]
    for number, (channel, of_channel) in enumerate(zip(channels, values, strict=True)):
        of_one = raw_faults(of_channel, modality, declared, channel)
        faults += [_in_channel(fault, number) for fault in of_one] if len(channels) > 1 else of_one
    facts, diagnoses = _with_labels(source, root, scan, options, classes, channels, values[0], modality)
    try:
        if source.patches:
            patch_starts(source.patches, scan.affine, shape, options.patch_size or (1, 1, 1), root / source.path)
    except ReadError as fault:
        diagnoses.append(of_read_error(fault, source, root))
    return Examined((facts,), (*(fault.about(source.id, shown_path(source)) for fault in faults), *diagnoses))


def _image(source: Source, root: Path, options: Options, classes: int) -> Examined:
    picture = read_picture(root / source.path)
    array, modality = picture.array, modality_of(source, picture)
    shape, values = (array.shape[0], array.shape[1]), values_of(array)
    faults = [*image_faults(values, array.dtype, modality), *size_faults(shape, "image")]
    faults += note_faults(picture.notes, source, root) + box_faults(source.boxes or (), shape)
    facts, diagnoses = _with_labels(source, root, picture, options, classes, array, values, modality)
    return Examined((facts,), (*(fault.about(source.id, shown_path(source)) for fault in faults), *diagnoses))


def _with_labels(
    source: Source,
    root: Path,
    found: Scan | Picture,
    options: Options,
    classes: int,
    array: np.ndarray,
    values: Values,
    modality: str,
) -> tuple[Facts, list[Diagnosis]]:
    """Facts of a scan or image, with the numbers of its labels; it may be sound where they are not."""
    numbers, diagnoses = None, []
    try:
        labels = load_labels(source, root, found, options)
        if labels is not None:
            numbers = numbers_in(labels, 3 if source.kind == "volume" else 2)
            path = source.label_path or shown_path(source)
            diagnoses = [fault.about(source.id, path) for fault in label_faults(numbers, classes)]
    except ReadError as fault:
        diagnoses = [of_read_error(fault, source, root)]
    facts = Facts(
        id=source.id,
        path=shown_path(source),
        kind=source.kind,
        patient=source.patient,
        modality=modality,
        split=source.split,
        shape=array.shape[1:] if source.kind == "volume" and len(array) == 1 else array.shape,
        spacing=found.spacing if isinstance(found, Scan) else None,
        values=values,
        digest=digest_of(found.array),
        label=source.label,
        label_numbers=numbers,
    )
    return facts, diagnoses


def _samples(source: Source, root: Path) -> Examined:
    """Every sample of a MedMNIST array; each counts as a patient of its own."""
    from vissl_jointssl.preparation.decoding.medmnist import read_samples

    facts: list[Facts] = []
    diagnoses: list[Diagnosis] = []
    modality = source.modality or UNKNOWN
    for number, (array, label) in enumerate(read_samples(root / source.path, source.array_names or ("", ""))):
        id, path = f"{source.id}-i{number:05d}", f"{shown_path(source)} {number}"
        values = values_of(array)
        faults = common_faults(values, modality, source.kind)
        if values.low == values.high:
            faults = [error("constant", f"every voxel is {values.low:g}", "leave it out: it shows nothing")]
        diagnoses.extend(fault.about(id, path) for fault in faults)
        one = Facts(
            id=id,
            path=path,
            kind=source.kind,
            patient=hash_patient(f"{source.id}-{number}"),  # as preparation calls it
            modality=modality,
            split=source.split,
            shape=array.shape,
            spacing=None,
            values=values,
            digest=digest_of(array),
            label=label,
        )
        facts.append(one)
    return Examined(tuple(facts), tuple(diagnoses))


def _in_channel(fault: Fault, number: int) -> Fault:
    return Fault(fault.code, fault.severity, f"channel {number}: {fault.reason}", fault.next_step)
