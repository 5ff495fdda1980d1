"""Files of a prepared folder: inside of it, ordinary ones, and no larger than what they should hold.

A manifest may come from anywhere, so its paths are not trusted: a named pipe would hang whoever opens it, a link would
show a file that was never meant, and a claimed size would fill the memory.
"""

from __future__ import annotations

import stat
from pathlib import Path


class FileFault(ValueError):
    """A file that cannot be used; the message goes on from the file's name."""


def confined(root: Path, relative: str) -> Path:
    """The path of a file of the folder; the folder itself may be a link.

    Raises:
        FileFault: If the path or links on it lead out of the folder.
    """
    path = root / relative
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links is a RuntimeError, NUL a ValueError
        raise FileFault(f"is no path ({type(error).__name__})") from None
    if not inside:
        raise FileFault("is a link that leaves the manifest's folder")
    return path


def size_of(path: Path) -> int:
    """Bytes of an ordinary file.

    Raises:
        FileFault: If it is a folder, a named pipe, a device or a socket.
        FileNotFoundError: If it does not exist.
        OSError: If it cannot be looked at.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise FileFault("is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise FileFault("is a pipe, a device or a socket, not a file")
    return found.st_size


def read_text(path: Path, limit: int | None = None) -> str:
    """A text file; Excel's mark at the start of UTF-8 files is taken off.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        FileFault: If it is no ordinary file, larger than that, not UTF-8 or holds NUL characters.
        FileNotFoundError: If it does not exist.
        OSError: If it cannot be read.
    """
    size = size_of(path)
    if limit is not None and size > limit:
        raise FileFault(f"has {size} bytes, expected at most {limit}")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read_text() would turn carriage returns inside of cells
    except UnicodeDecodeError as error:
        raise FileFault(f"cannot be read as text: byte {error.start} is not UTF-8") from None
    if "\0" in text:
        raise FileFault("cannot be read as text: it holds NUL characters")
    return text
