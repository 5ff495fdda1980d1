"""What a source was made from: which files, in which state, with which options.

Names of files are hashed here, for folders often carry names of patients and records lie in the prepared folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.recipe import Options, Source

VERSION = 2  # raise it when the same source and options give other arrays than before

_WITHOUT_EFFECT = ("id", "patient", "split")  # names and the split are put in anew on every run
_ONLY_OF_IMAGES = ("image_size", "image_form")
_OF_IMAGES = ("percentiles", "stored_type", *_ONLY_OF_IMAGES)
_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", re.MULTILINE)
_HEADER_BYTES = 65536


def digest_of(source: Source, options: Options) -> str:
    """Of all that decides the arrays, apart from the files' content."""
    facts = {field.name: getattr(source, field.name) for field in fields(source) if field.name not in _WITHOUT_EFFECT}
    groups = source.label_groups
    facts["label_groups"] = None if groups is None else sorted((int(one), int(other)) for one, other in groups.items())
    facts["boxes"] = None if source.boxes is None else [asdict(box) for box in source.boxes]
    facts["patches"] = [asdict(patch) for patch in source.patches]
    chosen = {
        name: value
        for name, value in asdict(options).items()
        if (name in _OF_IMAGES if source.kind == "image" else name not in _ONLY_OF_IMAGES)
    }
    return hashlib.sha256(json.dumps([VERSION, facts, chosen], sort_keys=True).encode()).hexdigest()


def stamps_of(source: Source, root: Path) -> list[list[Any]]:
    """Hashed name, size and time of every file: equal stamps spare hashing terabytes on every run."""
    return [[_key(file, root), status.st_size, status.st_mtime_ns] for file, status in _files(source, root)]


def content_of(source: Source, root: Path) -> list[list[str]]:
    """Hashed name and sha256 of every file.

    Raises:
        ReadError: If one may not be read.
    """
    content = []
    for file, status in _files(source, root):
        try:
            content.append([_key(file, root), _hash(file, status.st_size, status.st_mtime_ns)])
        except PermissionError:
            raise ReadError(file, "may not be read", "give yourself permission to read it", "forbidden") from None
        except OSError:
            raise ReadError(file, "cannot be read from its disk", "copy it again from its source") from None
    return content


def _files(source: Source, root: Path) -> list[tuple[Path, os.stat_result]]:
    """Every plain file of a source; of the others, who reads them says what is wrong."""
    found = []
    for relative in source.inputs:
        path = root / relative
        inner = [path]
        with suppress(OSError):
            inner = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in inner:
            status = _plain(file)
            if status is None:
                continue
            found.append((file, status))
            data_file = _data_file(file) if file.suffix.lower() in (".mhd", ".nhdr") else None
            status = None if data_file is None else _plain(data_file)
            if data_file is not None and status is not None:
                found.append((data_file, status))
    return found


def _plain(file: Path) -> os.stat_result | None:
    """The state of a file that is no folder and no pipe, for to open a pipe is to wait."""
    with suppress(OSError, ValueError):  # a header may name a file with a zero byte
        status = file.stat()
        if stat.S_ISREG(status.st_mode):
            return status
    return None


def _data_file(header: Path) -> Path | None:
    """The file beside a header that holds its voxels."""
    found = None
    with suppress(OSError), header.open("rb") as file:
        found = _DATA_FILE.search(file.read(_HEADER_BYTES))
    if found is None or found[1].upper() in (b"LOCAL", b"LIST"):
        return None
    return header.parent / Path(found[1].decode("utf-8", "surrogateescape")).name  # what lies elsewhere is not read


def _key(file: Path, root: Path) -> str:
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _hash(path: Path, size: int, changed: int) -> str:
    """Content hash; several sources may share a file, such as the parts of a `.npz`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
