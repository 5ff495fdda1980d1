"""Which checkpoint of a run's directory counts: names and resume rules of ``vissl/utils/checkpoint.py:503-620``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from vissl_jointssl.checkpoints.integrity import damage
from vissl_jointssl.checkpoints.reading import FINAL_NAME, read_checkpoint

logger = logging.getLogger(__name__)

PHASE_NAME = re.compile(r"model_phase(\d+)\.torch")
ITERATION_NAME = re.compile(r"model_iteration(\d+)\.torch")


def newest_checkpoint(directory: Path | str) -> Path | None:
    """The checkpoint a run should be continued or handed over from: the final one, else the one trained furthest.

    A damaged file is passed over and named in a warning; it stays where it is (``checkpoint_to_resume`` moves it).

    Args:
        directory: VISSL's ``CHECKPOINT.DIR``; it need not exist.
    """
    return newest_whole(directory, pass_over)


def newest_whole(
    directory: Path | str,
    on_damage: Callable[[Path, str], None],
    *,
    final: bool = True,
    within_epochs: bool = True,
    nth: int = 1,
) -> Path | None:
    """``newest_checkpoint`` with a choice of what counts and what is done about damage.

    Files are judged from the newest back, and no further than needed: a long run has hundreds of gigabytes.

    Args:
        directory: VISSL's ``CHECKPOINT.DIR``; it need not exist.
        on_damage: Called with each damaged file that was met, and what is wrong with it.
        final: Whether the final checkpoint counts.
        within_epochs: Whether those that were written between two ends of an epoch count.
        nth: 1 for the newest, 2 for the one before it; where there are fewer, the oldest. The final one is always 1.
    """
    found = _nth_whole(directory, FINAL_NAME, on_damage, 1) if final else None
    if found is not None:
        return found
    phase = _nth_whole(directory, PHASE_NAME, on_damage, nth)
    iteration = _nth_whole(directory, ITERATION_NAME, on_damage, nth) if within_epochs else None
    if phase is None or iteration is None:
        return phase or iteration
    # The names count different things (epochs, iterations); only the files say which one is further.
    return iteration if _iterations_done(iteration) > _iterations_done(phase) else phase


def is_finished(directory: Path | str) -> bool:
    """Whether a run left a whole final checkpoint; a damaged one is not a finished run."""
    return _nth_whole(directory, FINAL_NAME, lambda path, cause: None, 1) is not None


def pass_over(path: Path, cause: str) -> None:
    """What a reader does about a damaged checkpoint: it says so."""
    logger.warning("%s is damaged (%s); passing over it", path, cause)


def _nth_whole(
    directory: Path | str, pattern: re.Pattern[str], on_damage: Callable[[Path, str], None], nth: int
) -> Path | None:
    found = None
    for path in _newest_first(directory, pattern):
        cause = damage(path)
        if cause is not None:
            on_damage(path, cause)
            continue
        found = path
        nth -= 1
        if nth < 1:
            break
    return found


def _newest_first(directory: Path | str, pattern: re.Pattern[str]) -> list[Path]:
    directory = Path(directory)
    if not directory.is_dir():
        return []
    matches = ((pattern.fullmatch(file.name), file) for file in directory.iterdir())
    numbered = sorted((int(match[1]), file) for match, file in matches if match and file.is_file())
    return [file for _, file in reversed(numbered)]


def _iterations_done(path: Path) -> int:
    return read_checkpoint(path).iteration or 0
