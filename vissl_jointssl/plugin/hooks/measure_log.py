"""Where hooks write what they measure: JSON lines beside VISSL's logs, and TensorBoard where VISSL writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classy_vision.generic.distributed_util import is_primary
from vissl.config import AttrDict
from vissl.utils.checkpoint import get_checkpoint_folder
from vissl.utils.tensorboard import get_tensorboard_dir


def is_logging_step(iteration: int, every: int) -> bool:
    """Whether VISSL logs the loss of this iteration (vissl/hooks/log_hooks.py:215), so that numbers stand beside it."""
    return iteration == 1 or iteration % every == 0 or (iteration <= 100 and iteration % 5 == 0)


class MeasureLog:
    """Appends to a file in the checkpoint folder, and to TensorBoard if the run uses it; rank 0 only.

    A resumed run appends too: of one iteration, the last line counts. Numbers that are not finite become null, since
    JSON has none.

    Args:
        cfg: The run's config.
        file: Name of the file of JSON lines.
        group: What TensorBoard files the measures under.
    """

    def __init__(self, cfg: AttrDict, file: str, group: str) -> None:
        self._cfg = cfg
        self._path = Path(get_checkpoint_folder(cfg)) / file
        self._group = group
        self._writer: Any = None

    def measures(self, iteration: int, values: Mapping[str, float | None]) -> None:
        """Write the measures of one iteration, by name."""
        finite = {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        self.line({"iteration": iteration, **finite})
        if self._cfg.HOOKS.TENSORBOARD_SETUP.USE_TENSORBOARD and is_primary():
            for name, value in finite.items():
                if value is not None:
                    self._tensorboard().add_scalar(f"{self._group}/{name}", value, global_step=iteration)

    def line(self, content: Mapping[str, Any]) -> None:
        """Write one JSON line of any content."""
        if is_primary():
            # Opened anew for each of a few lines a minute: a killed run loses none.
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content, allow_nan=False) + "\n")

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        # A writer of our own: VISSL's belongs to its hook, which does not show it; TensorBoard reads both files as one.
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            setup = self._cfg.HOOKS.TENSORBOARD_SETUP
            self._writer = SummaryWriter(get_tensorboard_dir(self._cfg), flush_secs=setup.FLUSH_EVERY_N_MIN * 60)
        return self._writer
