"""Writing weights and training checkpoints so that a file is either whole or as it was before."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import BinaryIO, cast

import torch

from vissl_jointssl.atomic_file import replaced_at_once
from vissl_jointssl.checkpoints.finding import newest_checkpoint
from vissl_jointssl.checkpoints.integrity import note_of, sidecar_of

logger = logging.getLogger(__name__)

LINK_NAME = "checkpoint.torch"
_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "raise the quota or make room within it",
    errno.EFBIG: "raise the largest size of a file (ulimit -f)",
    errno.EROFS: "mount the file system for writing",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
}
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # how some network file systems say that they need none


class CheckpointWriteError(OSError):
    """A checkpoint was not written; the message names the file, the cause, what is still there and what to do next."""


def save_atomically(obj: object, path: Path | str) -> None:
    """``torch.save`` that leaves either the whole new file or the old one, also when killed or out of disk."""
    with replaced_at_once(path) as stream:
        torch.save(obj, stream)


def save_checkpoint(content: object, path: Path | str) -> None:
    """Write a training checkpoint, and its SHA-256 beside it, so that no kill, crash or full disk can harm either.

    Both are written beside their names and are on the disk before the first of them takes its name. A kill between
    the two leaves a checkpoint without a hash, never one with the hash of another.

    Args:
        content: What ``torch.save`` takes.
        path: The ``.torch`` file; an older one of this name is replaced at once.

    Raises:
        CheckpointWriteError: If it cannot be written: full disk, quota, read-only folder. What was there before is
            untouched.
    """
    path = Path(path)
    try:
        _write(content, path)
    except OSError as error:
        raise CheckpointWriteError(_explanation(error, content, path)) from error


def point_link(directory: Path | str, name: str) -> None:
    """Point a folder's ``checkpoint.torch`` at a checkpoint beside it; at no moment is there no link.

    The link is relative, so that the folder can be moved. It is for the user and for
    ``CHECKPOINT.USE_SYMLINK_CHECKPOINT_FOR_RESUME``; without it, a run resumes by the names of the files.
    """
    link = Path(directory) / LINK_NAME
    beside = link.with_name(".part-link.part")
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(name)
        beside.replace(link)
        _sync_folder(link.parent)
    except OSError as error:
        logger.warning("%s could not be pointed at %s (%s); the run goes on without", link, name, error.strerror)


class _Measured:
    """A stream that hashes and counts what goes through it, and keeps its failure, which PyTorch replaces."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.hash = hashlib.sha256()
        self.size = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            count = self.stream.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.hash.update(data)
        self.size += len(data)
        return count

    def flush(self) -> None:
        self.stream.flush()


def _write(content: object, path: Path) -> None:
    sidecar = sidecar_of(path)
    with replaced_at_once(sidecar) as note:
        with replaced_at_once(path) as stream:
            measured = _save(content, stream)
            note.write(note_of(path, measured.hash.hexdigest()))
            for written in (stream, note):
                written.flush()
                os.fsync(written.fileno())
            if sidecar.exists():  # of an older file of this name; it would call the new one damaged
                sidecar.unlink()
                _sync_folder(path.parent)
        _sync_folder(path.parent)
    _sync_folder(path.parent)


def _save(content: object, stream: BinaryIO) -> _Measured:
    measured = _Measured(stream)
    try:
        torch.save(content, cast(BinaryIO, measured))
    except RuntimeError:
        # PyTorch wants to finish its archive when a write has failed, and then says "unexpected pos 768 vs 662".
        if measured.failure is not None:
            raise measured.failure from None
        raise
    return measured


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, not only what they name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _explanation(error: OSError, content: object, path: Path) -> str:
    with Path(os.devnull).open("wb") as nowhere:
        needed = _save(content, nowhere).size
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    last = newest_checkpoint(path.parent)
    kept = "no checkpoint was there yet" if last is None else f"the last good checkpoint, {last.name}, is intact"
    return (
        f"{path}: the checkpoint was not written ({error.strerror}): it needs {needed} bytes, "
        f"{shutil.disk_usage(folder).free} are free; {_REMEDIES.get(error.errno or 0, 'mend that')}; {kept}, and the "
        f"same command {'starts anew' if last is None else 'resumes from it'}"
    )
