"""What a data set must say about itself, so that one pipeline prepares them all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vissl_jointssl.manifest import KINDS, SPLITS, Box
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.processing.intensity import CT_WINDOW, MR_PERCENTILES
from vissl_jointssl.preparation.processing.orientation import SLICE_AXES

STORED_TYPES = ("uint16", "uint8")
FOURTH_AXES = ("first", "channels", "volumes")
IMAGE_FORMS = ("decoded", "original")


@dataclass(frozen=True)
class Patch:
    """A small region around a point of a scan, with a class of its own, such as a nodule candidate.

    Attributes:
        centre: (x, y, z) in RAS mm; files that speak LPS have the first two with the other sign.
        label: Class from 0, or None.
    """

    centre: tuple[float, float, float]
    label: int | None = None


@dataclass(frozen=True)
class Source:
    """One scan or image as it lies on disk.

    Attributes:
        id: Unique; names the prepared files, so it must not name a patient.
        path: File, or folder of a DICOM series, relative to the recipe's root.
        files: The slices of the series, relative to the root, where `path` is a folder that holds others as well.
        channel_paths: Files with the second and further channels of a volume, on the grid of the first.
        array_names: (images, labels) in a MedMNIST `.npz`, which holds many samples: each becomes a row. The second is
            "" where there are no labels.
        patient: Already hashed (`splitting.hash_patient`).
        kind: "volume" or "image".
        modality: "CT", "MR", "XR", ...; None asks the file (DICOM) or the values (`intensity.guess_modality`).
        split: A fixed split, or None to draw it by the patient's hash.
        label_path: Label map on the scan's grid, relative to the root.
        label_groups: This file's label numbers to the recipe's; what it leaves out becomes 0, background. None keeps
            all. Two tools that number organs differently meet here.
        plane_paths: One binary mask per label, which may overlap, relative to the root; in place of `label_path`.
        label: Class of the whole scan or image, counted from 0.
        boxes: Of an image, in its own pixels; None where nobody looked, () where somebody did and found nothing.
        patches: Cut out at `Options.patch_size` instead of keeping the whole volume.
        labels_by_voxel: The label map has the scan's voxels one by one, whatever it says of where they lie: some public
            sets ship label maps with a wrong affine.
    """

    id: str
    path: str
    patient: str
    kind: str = "volume"
    modality: str | None = None
    split: str | None = None
    label_path: str | None = None
    label_groups: Mapping[int, int] | None = None
    label: int | None = None
    files: tuple[str, ...] = ()
    channel_paths: tuple[str, ...] = ()
    plane_paths: tuple[str, ...] = ()
    array_names: tuple[str, str] | None = None
    boxes: tuple[Box, ...] | None = None
    patches: tuple[Patch, ...] = ()
    labels_by_voxel: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every file that the source is read from, or folder where all of its files are."""
        scan = self.files or (self.path,)
        labels = (self.label_path,) if self.label_path is not None else ()
        return (*scan, *self.channel_paths, *labels, *self.plane_paths)


@dataclass(frozen=True)
class Options:
    """What is done to every scan; a changed option prepares again what it touches.

    Attributes:
        slice_axis: "axial", "coronal" or "sagittal".
        spacing: Voxel size along (F, H, W) in mm to resample to; None keeps the scan's own.
        tile_size: Cut volumes to regions of this `(F, H, W)`; None keeps them whole.
        tile_stride: Largest distance between regions; None means `tile_size`.
        minimum_foreground: Share of voxels that are not air, below which a region is dropped.
        region_share: A region gets the class of a label that fills at least this share of it,
        region_margin: and at least this many times what the next label fills.
        ct_window: HU that become 0 and 1.
        percentiles: Of the foreground, that become 0 and 1 in all that is not CT.
        stored_type: "uint16", or "uint8" for half the space and steps of 8 HU over the default window.
        crop_foreground: Cut the air around the body away.
        fourth_axis: What a file of four axes becomes: its "first" volume, one volume with "channels", or "volumes",
            one row each.
        patch_size: `(F, H, W)` of a source's patches; what lies outside the scan becomes 0.
        image_size: Longest side of an image in pixels, larger ones are shrunk; None keeps them.
        image_form: "decoded" to `.npy`, stretched by the percentiles; "original" keeps the bytes of 8-bit PNG and JPEG
            files but for their metadata, and decodes the others.
    """

    slice_axis: str = "axial"
    spacing: tuple[float, float, float] | None = None
    tile_size: tuple[int, int, int] | None = None
    tile_stride: tuple[int, int, int] | None = None
    minimum_foreground: float = 0.0
    region_share: float = 0.05
    region_margin: float = 1.5
    ct_window: tuple[float, float] = CT_WINDOW
    percentiles: tuple[float, float] = MR_PERCENTILES
    stored_type: str = "uint16"
    crop_foreground: bool = False
    fourth_axis: str = "first"
    patch_size: tuple[int, int, int] | None = None
    image_size: int | None = None
    image_form: str = "decoded"


@dataclass(frozen=True)
class Recipe:
    """A data set: its sources, what to do with them, and what its labels mean.

    Attributes:
        name: For messages.
        root: Folder that the paths of the sources are relative to.
        sources: Every scan and image.
        options: See `Options`.
        label_names: Names of the classes 0, 1, ... (a label map's number n stands for class n - 1).
        validation_share: Of patients whose split is not fixed.
        test_share: Of patients whose split is not fixed.
        seed: Of the draw.
    """

    name: str
    root: Path
    sources: tuple[Source, ...]
    options: Options = field(default_factory=Options)
    label_names: tuple[str, ...] = ()
    validation_share: float = 0.0
    test_share: float = 0.0
    seed: int = 0

    def check(self) -> None:
        """Raise `PreparationError` with every fault of the recipe, before any file is read."""
        faults = [*_option_faults(self.options), *_source_faults(self.sources, self.options)]
        shares = (self.validation_share, self.test_share)
        if not (min(shares) >= 0 and sum(shares) < 1):
            faults.append(f"validation_share and test_share are {shares}, expected two numbers from 0, sum below 1")
        if not self.sources:
            faults.append("there is no source")
        if faults:
            raise PreparationError("\n  - ".join([f"recipe {self.name!r} cannot be prepared:", *faults]))


def _option_faults(options: Options) -> list[str]:
    faults = []
    if options.slice_axis not in SLICE_AXES:
        faults.append(f"slice_axis is {options.slice_axis!r}, expected one of {', '.join(SLICE_AXES)}")
    if options.spacing is not None and not all(math.isfinite(size) and size > 0 for size in options.spacing):
        faults.append(f"spacing is {options.spacing}, expected millimetres above 0")
    if options.tile_size is not None:
        stride = options.tile_stride or options.tile_size
        if not all(1 <= step <= size for step, size in zip(stride, options.tile_size, strict=True)):
            faults.append(f"tile_stride is {stride}, expected 1 to tile_size {options.tile_size} along each axis")
    elif options.tile_stride is not None:
        faults.append("tile_stride is set without tile_size")
    if not 0 <= options.minimum_foreground < 1:
        faults.append(f"minimum_foreground is {options.minimum_foreground}, expected a share from 0 to below 1")
    if not options.ct_window[0] < options.ct_window[1]:
        faults.append(f"ct_window is {options.ct_window}, expected (low, high) in HU")
    for name, known in (("stored_type", STORED_TYPES), ("fourth_axis", FOURTH_AXES), ("image_form", IMAGE_FORMS)):
        if getattr(options, name) not in known:
            faults.append(f"{name} is {getattr(options, name)!r}, expected one of {', '.join(known)}")
    if options.patch_size is not None and min(options.patch_size) < 1:
        faults.append(f"patch_size is {options.patch_size}, expected voxels from 1")
    if options.image_size is not None and options.image_size < 1:
        faults.append(f"image_size is {options.image_size}, expected pixels from 1")
    if not 0 <= options.percentiles[0] < options.percentiles[1] <= 100:
        faults.append(f"percentiles is {options.percentiles}, expected (low, high) from 0 to 100")
    return faults


def _source_faults(sources: tuple[Source, ...], options: Options) -> list[str]:
    faults = [
        f"source id {id!r} occurs {count} times" for id, count in Counter(s.id for s in sources).items() if count > 1
    ]
    for source in sources:
        if not source.id or not all(letter.isalnum() or letter in "-_." for letter in source.id) or source.id[0] == ".":
            faults.append(f"source id {source.id!r} cannot name a file: use letters, digits, - and _")
        if source.kind not in KINDS:
            faults.append(f"source {source.id!r} has kind {source.kind!r}, expected one of {', '.join(KINDS)}")
        if source.split is not None and source.split not in SPLITS:
            faults.append(f"source {source.id!r} has split {source.split!r}, expected one of {', '.join(SPLITS)}")
        if source.patches and options.patch_size is None:
            faults.append(f"source {source.id!r} has patches, but patch_size is not set")
        if source.label_path is not None and source.plane_paths:
            faults.append(f"source {source.id!r} has a label map and label planes, expected one of them")
        if source.kind == "volume" and source.boxes is not None:
            faults.append(f"source {source.id!r} is a volume with boxes, which only images can have")
        if source.kind == "image" and (source.patches or source.channel_paths or source.files):
            faults.append(f"source {source.id!r} is an image with patches, channels or slices: only volumes have them")
        if source.array_names is not None and len(source.inputs) > 1:
            faults.append(f"source {source.id!r} names arrays of a .npz and other files, expected one of them")
    return faults + _split_faults(sources)


def _split_faults(sources: tuple[Source, ...]) -> list[str]:
    first: dict[str, str] = {}
    faults = []
    for source in sources:
        if source.split is None or source.array_names is not None:  # samples of arrays are patients of their own
            continue
        other = first.setdefault(source.patient, source.split)
        if other != source.split:
            faults.append(f"source {source.id!r} is in split {source.split!r}, and another of its patient in {other!r}")
    return faults
