"""Going on from the newest whole checkpoint of a run; a damaged one is set aside, never deleted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from vissl_jointssl.checkpoints.finding import ITERATION_NAME, PHASE_NAME, newest_whole, pass_over
from vissl_jointssl.checkpoints.integrity import sidecar_of
from vissl_jointssl.checkpoints.reading import FINAL_NAME
from vissl_jointssl.checkpoints.record import CheckpointError
from vissl_jointssl.checkpoints.writing import LINK_NAME, point_link

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"
UNFINISHED = ".part-*.part"  # of `atomic_file`; a killed writer cannot remove its own
_STALE_SECONDS = 600  # a file that is still being written was touched later than this


def checkpoint_to_resume(
    directory: Path | str,
    *,
    final: bool = True,
    within_epochs: bool = True,
    nth: int = 1,
    sets_aside: bool = True,
) -> Path | None:
    """The checkpoint that training goes on from; None where none was ever written.

    Damaged files that are newer are renamed to ``NAME.torch.damaged``, one log line each, and what writers that were
    killed left unfinished is removed. Nothing else is deleted: VISSL and this package keep every checkpoint.

    Args:
        directory: VISSL's ``CHECKPOINT.DIR``; it need not exist.
        final: As in ``newest_whole``.
        within_epochs: As in ``newest_whole``.
        nth: As in ``newest_whole``.
        sets_aside: Whether files may be renamed and removed; only one process of a run may.

    Raises:
        CheckpointError: If every checkpoint is damaged: a run does not start from the beginning without a word. Also
            if a damaged one cannot be renamed, or a checkpoint cannot be opened.
    """
    directory = Path(directory)
    met: list[Path] = []

    def on_damage(path: Path, cause: str) -> None:
        if sets_aside:
            met.append(_set_aside(path, cause))
        else:
            met.append(path)
            pass_over(path, cause)

    found = newest_whole(directory, on_damage, final=final, within_epochs=within_epochs, nth=nth)
    if found is None:
        lost = sorted({*met, *_set_aside_before(directory, final, within_epochs)})
        if lost:
            raise CheckpointError(
                f"{directory}: every checkpoint is damaged ({', '.join(path.name for path in lost)}), so there is "
                "nothing to resume from; copy a whole one back into the folder, or move the folder away or delete it "
                "to begin anew"
            )
    elif sets_aside:
        link = directory / LINK_NAME
        if link.is_symlink() and link.resolve() != found.resolve():  # set aside, or its writer was killed just before
            point_link(directory, found.name)
    if sets_aside:
        _remove_unfinished(directory)
    return found


def _set_aside(path: Path, cause: str) -> Path:
    aside = _free_name(path)
    try:
        path.rename(aside)
        if sidecar_of(path).exists():
            sidecar_of(path).rename(sidecar_of(aside))
    except OSError as error:
        raise CheckpointError(
            f"{path}: is damaged ({cause}) and cannot be renamed to {aside.name} ({error.strerror}); "
            "make its folder writable, or move the file away"
        ) from error
    logger.warning("%s is damaged (%s); set aside as %s", path, cause, aside.name)
    return aside


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}{DAMAGED}{number if number > 1 else ''}")).exists():
        number += 1
    return aside


def _set_aside_before(directory: Path, final: bool, within_epochs: bool) -> Iterator[Path]:
    """Files that an earlier resume set aside, of the kinds that count."""
    kinds = [PHASE_NAME, *([FINAL_NAME] if final else []), *([ITERATION_NAME] if within_epochs else [])]
    for path in directory.glob(f"*{DAMAGED}*"):
        name, _, number = path.name.partition(DAMAGED)
        if number.isdecimal() or not number:
            yield from (path for kind in kinds if kind.fullmatch(name))


def _remove_unfinished(directory: Path) -> None:
    for path in directory.glob(UNFINISHED):
        status = path.lstat()
        if time.time() - status.st_mtime > _STALE_SECONDS:
            path.unlink()
            logger.info("%s was left unfinished by a writer that was killed; removed (%d bytes)", path, status.st_size)
