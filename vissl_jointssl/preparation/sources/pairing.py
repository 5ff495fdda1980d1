"""Which files of a plain folder are label maps and which scan each belongs to, by conventions of names alone.

A label map is a file
* below a folder called labels, masks or segmentations, or labelsTr, ...: of the file of the same name in the folder
  images (imagesTr, ...) beside it, or in the folder above it;
* or called NAME_seg, NAME_label, NAME_labels, NAME_mask or NAME_segmentation, also with - or . in place of _: of NAME
  or NAME_image in the same folder;
* or called just that (segmentation.nii.gz): of the only scan in the same folder.

nnU-Net's NAME_0000, NAME_0001, ... in a folder of images are the channels of one volume NAME.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from vissl_jointssl.preparation.sources.path_names import NNUNET_FOLDER, stem_of

_MOST_CHANNELS = 10
_ANY = re.IGNORECASE | re.DOTALL  # names may hold line breaks
_IMAGE_FOLDER = re.compile(r"(?:images?|imgs?|scans?|volumes?)(tr|ts|va|val)?", re.IGNORECASE)
_LABEL_FOLDER = re.compile(r"(?:labels?|masks?|segmentations?)(tr|ts|va|val)?", re.IGNORECASE)
_LABEL_NAME = re.compile(r"(?:(?P<scan>.+)[-_.])?(?:seg|labels?|mask|segmentation)", _ANY)
_IMAGE_NAME = re.compile(r"(?P<scan>.+)[-_.](?:image|img)", _ANY)
_CHANNEL_NAME = re.compile(r"(?P<scan>.+)_(?P<number>[0-9]{4})", _ANY)

Key = tuple[tuple[str, ...], str, str]  # where, as of `_place`; name of the scan; kind


@dataclass(frozen=True)
class Candidate:
    """A file that may be a scan, part of one, or a label map.

    Attributes:
        path: Relative to the folder that was given.
        kind: "volume" or "image".
    """

    path: PurePosixPath
    kind: str

    @property
    def stem(self) -> str:
        """The name without suffix."""
        return stem_of(self.path.name)


@dataclass(frozen=True)
class Case:
    """A scan with what belongs to it.

    Attributes:
        path: The file, of several channels the first.
        kind: "volume" or "image".
        name: The stem; of several channels, what their stems share.
        channel_paths: The second and further channels.
        label_path: The label map, or None.
    """

    path: PurePosixPath
    kind: str
    name: str
    channel_paths: tuple[PurePosixPath, ...] = ()
    label_path: PurePosixPath | None = None


@dataclass(frozen=True)
class Pairing:
    """Every candidate, sorted.

    Attributes:
        cases: In order of path.
        alone: What looks like a label map and belongs to no scan.
        unclear: Label maps that fit several scans, or of which several fit one scan; none of them is used.
    """

    cases: tuple[Case, ...]
    alone: tuple[PurePosixPath, ...]
    unclear: tuple[PurePosixPath, ...]


def pair(candidates: Iterable[Candidate]) -> Pairing:
    """Sort candidates into scans with their channels and label maps, and label maps that belong to none."""
    labels: list[Candidate] = []
    scans: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.path.as_posix()):
        in_folder = _special(candidate.path.parent.parts)[1] == "label"
        (labels if in_folder or _LABEL_NAME.fullmatch(candidate.stem) else scans).append(candidate)
    keys = {label.path: _keys(label) for label in labels}
    cases = _with_channels(scans, {key for found in keys.values() for key in found})
    index: dict[Key, list[Case]] = defaultdict(list)
    for case in cases:
        place = _place(case.path.parent.parts)
        index[place, case.name, case.kind].append(case)
        index[place, "", case.kind].append(case)  # for label maps without a name of their own
        image = _IMAGE_NAME.fullmatch(case.name)
        if image is not None:
            index[place, image["scan"], case.kind].append(case)

    alone: list[PurePosixPath] = []
    unclear: list[PurePosixPath] = []
    owned: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for label in labels:
        fits = next((index[key] for key in keys[label.path] if key in index), [])
        if len(fits) > 1:  # a scan in two formats: its label map is most likely in the same one
            suffix = label.path.name[len(label.stem) :]
            fits = [case for case in fits if case.path.name.endswith(suffix)] or fits
        if len(fits) == 1:
            owned[fits[0].path].append(label.path)
        else:
            (unclear if fits else alone).append(label.path)
    paired = []
    for case in cases:
        found = owned[case.path]
        paired.append(replace(case, label_path=found[0]) if len(found) == 1 else case)
        unclear += found if len(found) > 1 else []
    return Pairing(tuple(paired), tuple(alone), tuple(sorted(unclear)))


def _special(folders: Sequence[str]) -> tuple[int, str, str]:
    """The deepest folder that is called after images or labels: its place, "image", "label" or "", and Tr, Ts, ..."""
    for number in reversed(range(len(folders))):
        for kind, pattern in (("image", _IMAGE_FOLDER), ("label", _LABEL_FOLDER)):
            match = pattern.fullmatch(folders[number])
            if match is not None:
                return number, kind, (match[1] or "").lower()
    return len(folders), "", ""


def _place(folders: tuple[str, ...]) -> tuple[str, ...]:
    """A folder under a name that is the same for images and labels: a/imagesTr/b and a/labelsTr/b are a/*tr/b."""
    number, kind, tail = _special(folders)
    return (*folders[:number], f"*{tail}", *folders[number + 1 :]) if kind else folders


def _keys(label: Candidate) -> list[Key]:
    """Where the scan of a label map may be, most likely place first."""
    folders = label.path.parent.parts
    number, kind, _ = _special(folders)
    places, names = [_place(folders)], [label.stem]
    match = _LABEL_NAME.fullmatch(label.stem)
    if kind == "label":
        places.append(_place((*folders[:number], *folders[number + 1 :])))
        names += [match["scan"]] if match is not None and match["scan"] else []
    elif match is not None:
        names = [match["scan"] or ""]
    return [(place, name, label.kind) for place in places for name in names]


def _with_channels(scans: Sequence[Candidate], labelled: set[Key]) -> list[Case]:
    """Scans as cases, the channels of nnU-Net joined where names or label maps leave no doubt."""
    folders: dict[PurePosixPath, list[Candidate]] = defaultdict(list)
    for scan in scans:
        folders[scan.path.parent].append(scan)
    cases = []
    for folder, inside in folders.items():
        place = _place(folder.parts)
        parts: dict[str, dict[int, Candidate]] = defaultdict(dict)
        for scan in inside:
            match = _CHANNEL_NAME.fullmatch(scan.stem)
            if match is not None and scan.kind == "volume" and (place, scan.stem, "volume") not in labelled:
                parts[match["scan"]].setdefault(int(match["number"]), scan)
        single = sum(map(len, parts.values())) == len(inside) and _is_nnunet(folder, list(parts.values()))
        for name, channels in parts.items():
            if single or (place, name, "volume") in labelled:
                first, *others = [channels[number].path for number in sorted(channels)]
                cases.append(Case(first, "volume", name, tuple(others)))
        joined = {path for case in cases for path in (case.path, *case.channel_paths)}
        cases += [Case(scan.path, scan.kind, scan.stem) for scan in inside if scan.path not in joined]
    return sorted(cases, key=lambda case: case.path.as_posix())


def _is_nnunet(folder: PurePosixPath, parts: Sequence[dict[int, Candidate]]) -> bool:
    """Whether the cases of imagesTr all have channels 0 to n; liver_0000 to liver_0099 are 100 cases, not channels."""
    channels = {tuple(sorted(numbers)) for numbers in parts}
    if NNUNET_FOLDER.fullmatch(folder.name) is None or len(channels) != 1:
        return False
    (numbers,) = channels
    alike = numbers == tuple(range(len(numbers)))
    return alike and (len(numbers) == 1 or (len(parts) > 1 and len(numbers) <= _MOST_CHANNELS))
