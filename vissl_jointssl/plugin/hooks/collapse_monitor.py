"""Watches stage 3 for collapse: measures on the last volumes, and says in words when one is beyond its limit."""

from __future__ import annotations

import logging
from dataclasses import asdict
from math import nan
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from einops import rearrange
from torch import Tensor

from vissl_jointssl.objectives.collapse import CollapseMeasures, measure_collapse, recognised
from vissl_jointssl.objectives.over_ranks import join_ranks
from vissl_jointssl.plugin.collapse_limits import CollapseOptions, beyond_limits
from vissl_jointssl.plugin.hooks.measure_log import MeasureLog, is_logging_step
from vissl_jointssl.plugin.hooks.progress import ProgressHook


class CollapseMonitorHook(ClassyHook):
    """Keeps the last volumes' embeddings and most likely prototypes, and looks at them where the loss is logged.

    A step costs a copy of B embeddings and their B x B cosines on the device. A look gathers what all ranks keep and
    computes the measures on rank 0's CPU; only then does anything wait for the device. Every look is a line of
    `collapse.jsonl`. What is beyond its limit for `patience` looks in a row after the warm-up is said once per measure
    and run, resumed or not: in the log, in `collapse.jsonl` and through the progress file.

    Embeddings are those that the loss sees, behind the projection where there is one. Where the data set has fewer
    volumes than are kept, some come twice and their likeness counts in the mean cosine.

    Args:
        options: When to look, and the limits.
        loss: Name of the loss, for the remedy.
        log: Where the measures go.
        progress: The run's progress file.
    """

    on_phase_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, options: CollapseOptions, loss: str, log: MeasureLog, progress: ProgressHook) -> None:
        super().__init__()
        self.state.said = []  # in the checkpoint: a resumed run does not repeat itself
        self._options = options
        self._loss = loss
        self._log = log
        self._progress = progress
        # Rings of one row for each of the last volumes: embeddings, most likely prototypes of a view and of two (or of
        # the one there is), and what `recognised` says.
        self._rings: tuple[Tensor, Tensor, Tensor] | None = None
        self._seen = 0  # volumes of this rank since the process began
        self._looks_beyond: dict[str, int] = {}

    def on_start(self, task: Any) -> None:
        """Write down the limits, for whoever draws the measures."""
        self._log.line({"limits": self._options.limits()})

    def on_update(self, task: Any) -> None:
        """After each training step: keep the batch, and look if the loss is logged now."""
        if not task.train:
            return
        embeddings, predictions, codes = _what_the_loss_saw(task)
        self._keep(embeddings, predictions, codes)
        if not is_logging_step(task.iteration, self._options.every or task.config["LOG_FREQUENCY"]):
            return
        measures = self._look(codes, predictions.shape[-1])
        if measures is not None:
            self._log.measures(task.iteration, asdict(measures))
            self._judge(measures, task.iteration, task.max_iteration)

    def on_end(self, task: Any) -> None:
        """Close what was opened."""
        self._log.close()

    @torch.no_grad()
    def _keep(self, embeddings: Tensor, predictions: Tensor, codes: Tensor | None) -> None:
        """Put a batch ``(V, B, D)``, ``(V, B, K)``, ``(A, B, K)`` into the rings; nothing here waits for the device."""
        if len(embeddings) < 2:
            likely, beaten = predictions, embeddings.new_full(embeddings.shape[1:2], nan)
        else:
            likely = torch.cat([predictions[:1], _two_views(predictions, codes)])
            beaten = recognised(embeddings[0], embeddings[1])
        rows = (embeddings[0].float(), likely.argmax(dim=-1).T, beaten.float())
        if self._rings is None:
            first, second, third = (row.new_zeros(self._options.volumes, *row.shape[1:]) for row in rows)
            self._rings = (first, second, third)
        for start in range(0, len(beaten), self._options.volumes):
            part = slice(start, start + self._options.volumes)
            count = len(beaten[part])
            places = torch.arange(self._seen, self._seen + count, device=beaten.device) % self._options.volumes
            for ring, row in zip(self._rings, rows, strict=True):
                ring[places] = row[part]
            self._seen += count

    @torch.no_grad()
    def _look(self, codes: Tensor | None, prototypes: int) -> CollapseMeasures | None:
        """Gather over ranks and measure, on rank 0; None on the others, and before there are two volumes."""
        assert self._rings is not None  # the caller has kept a batch
        filled = torch.arange(self._options.volumes, device=self._rings[0].device) < self._seen
        filled = join_ranks(filled.byte()).bool()
        gathered = [join_ranks(ring) for ring in self._rings]
        # Ranks have batches of one size, so the mean of their means is the mean.
        shares = None if codes is None else join_ranks(codes.float().mean(dim=(0, 1))[None])
        if not is_primary() or int(filled.sum()) < 2:
            return None
        filled = filled.cpu()
        embeddings, assigned, beaten = (one.cpu()[filled] for one in gathered)
        return measure_collapse(
            embeddings,
            assigned[:, 0],
            assigned[:, 1:] if assigned.shape[1] > 1 else None,
            None if shares is None else shares.cpu(),
            prototypes,
            beaten,
        )

    def _judge(self, measures: CollapseMeasures, iteration: int, steps: int) -> None:
        """Count looks beyond a limit, and say what has been beyond it for long enough."""
        if iteration < self._options.first_judged_step(steps):
            return
        found = beyond_limits(measures, self._options, self._loss)
        self._looks_beyond = {name: self._looks_beyond.get(name, 0) + 1 for name in found}
        for name, words in found.items():
            if self._looks_beyond[name] >= self._options.patience and name not in self.state.said:
                self.state.said.append(name)
                said = f"iteration {iteration}: {words}"
                logging.warning(said)
                self._log.line({"iteration": iteration, "warning": said})
                self._progress.warn(said)


def _what_the_loss_saw(task: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Embeddings ``(V, B, D)`` and predictions ``(V, B, K)`` of all views, soft codes ``(A, B, K)`` or None.

    Predictions and scores have the same most likely prototype, which is all that is asked of them.
    """
    output, loss = task.last_batch.model_output, task.loss
    if isinstance(output, Tensor):  # inter_deepclusterv2_loss scores the embeddings itself
        embeddings, predictions, codes = output, loss.last_predictions, None
    else:
        embeddings, scores, *_ = output
        predictions, codes = rearrange(scores, "(v b) k -> v b k", v=loss.num_views), loss.last_codes
    by_view = rearrange(embeddings, "(v b) d -> v b d", v=loss.num_views)
    return by_view.detach(), predictions.detach(), codes


def _two_views(predictions: Tensor, codes: Tensor | None) -> Tensor:
    """Codes of two views where two have some, else their predictions, ``(2, B, K)``."""
    return codes[:2].to(predictions.dtype) if codes is not None and len(codes) > 1 else predictions[:2]
