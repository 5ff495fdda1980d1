"""The files of a public data set by the case that their names hold; no file is opened, so thousands take no time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vissl_jointssl.preparation.data_set import WrongFolder
from vissl_jointssl.preparation.errors import PreparationError, printable

_SHOWN = 12


def look_for(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Every file below `root` that matches one of the patterns, in order of path; hidden ones are none.

    Args:
        root: The folder that was given.
        patterns: As in `Path.glob`; several where a home's archives and people's copies nest differently.
    """
    found = {path for pattern in patterns for path in root.glob(pattern) if not path.name.startswith(".")}
    return sorted(found)


def find_any(root: Path, patterns: Sequence[str]) -> list[Path]:
    """`look_for`, which must find something.

    Raises:
        WrongFolder: If there is none.
    """
    found = look_for(root, patterns)
    if not found:
        raise WrongFolder(root, patterns)
    return found


def by_case(paths: Iterable[Path], name: str) -> dict[str, Path]:
    """Files by case.

    Args:
        paths: As found.
        name: Regular expression of how a path ends; its first group is the case.

    Raises:
        PreparationError: If a path ends otherwise, or two have the same case, with the paths.
    """
    cases: dict[str, Path] = {}
    faults = []
    for path in paths:
        match = re.search(rf"(?:^|/){name}\Z", path.as_posix())
        if match is None:
            faults.append(f"{printable(path)}: the name is none that the data set has")
        elif cases.setdefault(match[1], path) != path:
            faults.append(f"{printable(path)}: the same case as {printable(cases[match[1]])}")
    refuse(faults, "take what does not belong to the data set out of the folder, or give one copy of it")
    return cases


def check_pairs(images: Mapping[str, Path], labels: Mapping[str, Path]) -> None:
    """Raise `PreparationError` with the path of every image without a label, and of every label without an image."""
    faults = [f"{printable(path)}: no label belongs to it" for case, path in images.items() if case not in labels]
    faults += [f"{printable(path)}: no image belongs to it" for case, path in labels.items() if case not in images]
    refuse(faults, "unpack the archive again, or take out what has no partner")


def refuse(faults: Sequence[str], next_step: str) -> None:
    """Raise `PreparationError` with the first faults and how many there are, one a line; nothing if there is none."""
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        head = f"the folder is not as the data set's home ships it ({len(faults)} found). Next: {next_step}:"
        raise PreparationError("\n  - ".join([head, *faults[:_SHOWN], *more]))
