"""`torch.load` that runs nothing a file says, and fails in two ways only."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch

# What zipfile raises on an archive with flipped bytes, beside saying which part is wrong: OSError and OverflowError
# come from places outside the file.
BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
# What PyTorch's reader of plain containers raises as well, on a pickle inside a sound archive that nobody wrote.
_BAD_PICKLE = (*BAD_ZIP, AssertionError, AttributeError, LookupError, TypeError)

_FOLDER = 0x10  # of an archive's file attributes, in MS-DOS' words


class DamagedFileError(ValueError):
    """A file is none that PyTorch wrote, or not all of it; the message is the reader's reason alone, in one line."""


def load_plain(source: Path | IO[bytes], *, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """Tensors and plain containers out of a file that ``torch.save`` wrote; nothing else is ever built.

    Args:
        source: The file, or an open one.
        map_location: Where the tensors go, as in ``torch.load``.
        mmap: Whether weights are read when they are looked at, and not before.

    Raises:
        pickle.UnpicklingError: If it holds something else, which could run code.
        DamagedFileError: If it cannot be read as a file of PyTorch's.
    """
    try:
        _refuse_folders(source)
        return torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, DamagedFileError):
        raise
    except _BAD_PICKLE as error:
        raise DamagedFileError(first_line(error)) from error


def _refuse_folders(source: Path | IO[bytes]) -> None:
    """PyTorch's reader takes nothing out of a part that is marked as a folder, and gives whatever lay in the memory.

    One flipped bit makes the mark, and no checksum of the archive covers it.
    """
    if not isinstance(source, Path):
        place = source.tell()
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for part in archive.infolist():
                if part.is_dir() or part.external_attr & _FOLDER:
                    raise DamagedFileError(f"{part.filename} is marked as a folder")
    if not isinstance(source, Path):
        source.seek(place)


def first_line(error: Exception) -> str:
    """What an error says, without the advice that PyTorch adds; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
