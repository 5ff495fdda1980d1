"""Which checkpoint of a run's directory counts: names and resume rules of ``vissl/utils/checkpoint.py:503-620``."""

from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path

from vissl_jointssl.checkpoints.reading import FINAL_NAME, read_checkpoint

logger = logging.getLogger(__name__)

_PHASE = re.compile(r"model_phase(\d+)\.torch")
_ITERATION = re.compile(r"model_iteration(\d+)\.torch")


def newest_checkpoint(directory: Path | str) -> Path | None:
    """The checkpoint a run should be continued or handed over from: the final one, else the one trained furthest.

    A file that ends too early (the run was killed while VISSL wrote it, which is not atomic) is left out and named
    in a warning, see ``damaged_checkpoints``.

    Args:
        directory: VISSL's ``CHECKPOINT.DIR``; it need not exist.
    """
    for damaged in damaged_checkpoints(directory):
        logger.warning("%s is incomplete (killed while it was written?); passing over it", damaged)
    final, phase, iteration = (_last(directory, pattern) for pattern in (FINAL_NAME, _PHASE, _ITERATION))
    if final is not None:
        return final
    if phase is None or iteration is None:
        return phase or iteration
    # The names count different things (epochs, iterations); only the files say which one is further.
    return iteration if _iterations_done(iteration) > _iterations_done(phase) else phase


def is_finished(directory: Path | str) -> bool:
    """Whether a run left a complete final checkpoint; a truncated one is not a finished run."""
    return _last(directory, FINAL_NAME) is not None


def damaged_checkpoints(directory: Path | str) -> tuple[Path, ...]:
    """Checkpoints in ``directory`` whose end is missing; VISSL would stumble over them on resuming."""
    files = [file for pattern in (FINAL_NAME, _PHASE, _ITERATION) for _, file in _numbered(directory, pattern)]
    return tuple(sorted(file for file in files if not zipfile.is_zipfile(file)))


def _numbered(directory: Path | str, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    directory = Path(directory)
    if not directory.is_dir():
        return []
    matches = ((pattern.fullmatch(file.name), file) for file in directory.iterdir())
    return sorted((int(match[1]), file) for match, file in matches if match)


def _last(directory: Path | str, pattern: re.Pattern[str]) -> Path | None:
    complete = [file for _, file in _numbered(directory, pattern) if zipfile.is_zipfile(file)]
    return complete[-1] if complete else None


def _iterations_done(path: Path) -> int:
    return read_checkpoint(path).iteration or 0
