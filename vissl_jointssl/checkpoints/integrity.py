"""Whether a checkpoint is whole: its end, the hash that its writer noted beside it, and the sums inside it."""

from __future__ import annotations

import errno
import hashlib
import pickle
import re
import zipfile
from io import BufferedReader
from pathlib import Path

from vissl_jointssl.checkpoints.loading import BAD_ZIP, DamagedFileError, first_line, load_plain
from vissl_jointssl.checkpoints.record import CheckpointError

EMPTY = "it is empty (0 bytes)"
NO_END = "its end is missing"
_NOTE = re.compile(r"([0-9a-f]{64})  ")


def sidecar_of(path: Path) -> Path:
    """Where the hash of a checkpoint is noted, as `sha256sum` writes it: ``NAME.torch.sha256``."""
    return path.with_name(f"{path.name}.sha256")


def note_of(path: Path, digest: str) -> bytes:
    """The content of a checkpoint's sidecar, which ``sha256sum --check`` reads too."""
    return f"{digest}  {path.name}\n".encode()


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, in words; None where it is whole.

    A file with a hash beside it must have that hash. One without (stock VISSL's, an older one, or one whose writer was
    killed just before it took down the hash) is judged by the CRC-32 that the archive holds of each of its parts, and
    by PyTorch's finding them.

    Args:
        path: A ``.torch`` file.

    Raises:
        CheckpointError: If it cannot be opened for a reason that is no damage, such as its permissions.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if size == 0:
                return EMPTY
            noted = _noted_hash(path)
            if not _has_an_end(stream):
                return f"{NO_END} after {size} bytes"
            return _wrong_part(path, stream) if noted is None else _wrong_hash(path, stream, noted)
    except FileNotFoundError:  # on several nodes, the first one moves a damaged file while the others look at it
        return "it was moved or deleted just now"
    except OSError as error:
        if error.errno == errno.EIO:
            return f"it cannot be read ({error.strerror})"
        raise CheckpointError(f"{path}: cannot be opened ({error.strerror}); make it readable and repeat") from error


def _noted_hash(path: Path) -> str | None:
    """The hash beside a file; None where there is none, or where the note itself is damaged and says nothing."""
    sidecar = sidecar_of(path)
    if not sidecar.is_file():
        return None
    note = _NOTE.match(sidecar.read_text(encoding="utf-8", errors="replace"))
    return note[1] if note else None


def _has_an_end(stream: BufferedReader) -> bool:
    try:
        return zipfile.is_zipfile(stream)
    except BAD_ZIP:
        return False


def _wrong_hash(path: Path, stream: BufferedReader, noted: str) -> str | None:
    stream.seek(0)
    if hashlib.file_digest(stream, "sha256").hexdigest() == noted:
        return None
    return f"its SHA-256 is not the one in {sidecar_of(path).name}"


def _wrong_part(path: Path, stream: BufferedReader) -> str | None:
    try:
        with zipfile.ZipFile(stream) as archive:
            bad = archive.testzip()
        if bad is not None:
            return f"a wrong checksum in {bad}"
        load_plain(path, mmap=True)  # reads no weights yet
    except pickle.UnpicklingError:
        return None  # whole, but of a kind that is not opened: whoever loads it says why
    except (DamagedFileError, *BAD_ZIP) as error:
        return f"it is no whole archive ({first_line(error)})"
    return None
