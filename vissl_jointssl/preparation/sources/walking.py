"""Every file below a folder that may be a scan, and a count of what is left out before any is looked at."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError, printable

_DATA_FILE = re.compile(rb"^(?:ElementDataFile[ \t]*=|data ?file[ \t]*:)[ \t]*(.+?)[ \t\r]*$", re.MULTILINE)
_HEADER_BYTES = 2**16


def files_below(folder: Path, skip: Path | None = None) -> tuple[list[Path], Counter[str]]:
    """The visible files below a folder in order of path, without those that hold the voxels of another.

    Links to folders are not followed. A link to a file counts as a file unless it leaves the folder or its target is
    found anyway.

    Args:
        folder: Where to look.
        skip: A folder to leave out, where prepared data go; other prepared folders are told by what they hold.

    Returns:
        The files; and how many files or folders were left out, by what they are.

    Raises:
        PreparationError: If prepared data would go into the very folder that is looked through.
    """
    if skip is not None and skip.resolve() == folder.resolve():
        raise PreparationError(
            f"{printable(folder)}: prepared data cannot go where the scans lie. Next: give --out another folder; one "
            "below it will do"
        )
    left_out: Counter[str] = Counter()
    files: list[Path] = []
    links: list[Path] = []

    def unreadable(_: OSError) -> None:
        left_out["folders that may not be read"] += 1

    for name, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(name)
        folders[:] = [inner for inner in sorted(folders) if _enters(here / inner, skip, left_out)]
        for file in names:
            path = here / file
            if file.startswith("."):
                left_out["hidden files"] += 1
            elif path.is_symlink():
                links.append(path)
            elif path.is_file():
                files.append(path)
            else:
                left_out["pipes, sockets and devices"] += 1
    files += _links_worth_following(folder, sorted(links), files, left_out)
    data = {path for header in files if header.suffix.lower() in (".mhd", ".nhdr") for path in _data_file_of(header)}
    pairs = {path.with_suffix("") for path in files if path.suffix.lower() == ".hdr"}
    data |= {path for path in files if path.suffix.lower() == ".img" and path.with_suffix("") in pairs}
    return sorted(path for path in files if path not in data), left_out


def _enters(path: Path, skip: Path | None, left_out: Counter[str]) -> bool:
    if path.name.startswith("."):
        left_out["hidden folders"] += 1
    elif path.is_symlink():
        left_out["links to folders"] += 1
    elif skip is not None and path.resolve() == skip.resolve():
        return False
    elif (path / ".records").is_dir():
        left_out["prepared folders"] += 1
    else:
        return True
    return False


def _links_worth_following(folder: Path, links: list[Path], files: list[Path], left_out: Counter[str]) -> list[Path]:
    """Links to files of the folder that are not found themselves, such as those of git-annex into a hidden folder."""
    root = folder.resolve()
    seen = {path.resolve() for path in files} if links else set()
    kept = []
    for link in links:
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError is pathlib's word for a circle of links
            left_out["broken links"] += 1
            continue
        if not target.is_relative_to(root):
            left_out["links that leave the folder"] += 1
        elif target in seen or not target.is_file():
            left_out["links to what is found anyway"] += 1
        else:
            seen.add(target)
            kept.append(link)
    return kept


def _data_file_of(header: Path) -> list[Path]:
    """The file with the voxels of a `.mhd` or `.nhdr`; none where they lie in several or the header is damaged."""
    try:
        with header.open("rb") as file:
            match = _DATA_FILE.search(file.read(_HEADER_BYTES))
    except OSError:
        return []
    return [] if match is None else [header.parent / os.fsdecode(match[1])]
