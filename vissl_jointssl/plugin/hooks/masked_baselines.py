"""Stage 2's loss beside two guesses that need no learning, at the steps where VISSL logs the loss."""

from __future__ import annotations

import logging
from typing import Any

import torch
from classy_vision.generic.distributed_util import all_reduce_mean, is_primary
from classy_vision.hooks import ClassyHook

from vissl_jointssl.objectives.masked_baselines import mean_embedding_distance, neighbour_distance
from vissl_jointssl.objectives.masked_embedding import weight_of_rank
from vissl_jointssl.plugin.hooks.measure_log import MeasureLog, is_logging_step
from vissl_jointssl.plugin.hooks.progress import ProgressHook


class MaskedBaselinesHook(ClassyHook):
    """Writes `{"iteration", "loss", "mean_embedding", "neighbours"}`, over the hidden slices of all ranks.

    All three are of the same batch and the same hidden slices. They go to the run's log, to `masked_baselines.jsonl`,
    to TensorBoard and to the progress bar.

    Args:
        log: Where the numbers go.
        progress: The run's progress file.
    """

    on_start = ClassyHook._noop
    on_phase_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, log: MeasureLog, progress: ProgressHook) -> None:
        super().__init__()
        self._log = log
        self._progress = progress

    def on_update(self, task: Any) -> None:
        """After a training step; VISSL counts it with the next one, and logs it under the number it has now."""
        if not task.train or not is_logging_step(task.iteration, task.config["LOG_FREQUENCY"]):
            return
        _, target, mask = task.last_batch.model_output
        valid = (target != 0).any(dim=-1)  # encode_slices gives zeros where a slice does not exist, unit levels else
        with torch.no_grad():
            guesses = torch.stack(
                [mean_embedding_distance(target, mask, valid), neighbour_distance(target, mask, valid)]
            )
            guesses *= weight_of_rank(mask).to(guesses.dtype)
        mean_embedding, neighbours = all_reduce_mean(guesses).tolist()
        if not is_primary():
            return
        loss = task.last_batch.loss.item()
        logging.info(
            f"iteration {task.iteration}: loss {loss:.4f}; the mean embedding would have {mean_embedding:.4f}, the "
            f"average of the neighbours {neighbours:.4f}"
        )
        measures = {"mean_embedding": mean_embedding, "neighbours": neighbours}
        self._log.measures(task.iteration, {"loss": loss, **measures})
        self._progress.show_beside_loss(measures)

    def on_end(self, task: Any) -> None:
        """Close what was opened."""
        self._log.close()
