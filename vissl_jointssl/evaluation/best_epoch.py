"""The weights of the epoch that did best on the validation rows, kept through a kill."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

SELECTIONS = ("best", "last")  # option `select` of tasks: the best epoch on the validation rows, or the last one


class BestEpoch:
    """A part of `training_loop.fit`, which asks for its state after each epoch.

    Attributes:
        score: The highest so far; -inf before the first.
        epoch: Whose it is, or None.
    """

    def __init__(self) -> None:
        self.score = -math.inf
        self.epoch: int | None = None
        self._weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, score: float, model: nn.Module) -> None:
        """Keep a copy of the weights, on the CPU, if the score is above all others; of equals the first stays."""
        if score > self.score:
            self.score, self.epoch = score, epoch
            self._weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Load the kept weights; if no epoch was offered, the model stays as it is."""
        if self._weights:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """All of it; numbers as tensors, which a state may hold without running code."""
        epoch = -1 if self.epoch is None else self.epoch
        return {"score": torch.tensor(self.score, dtype=torch.float64), "epoch": epoch, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.score, self._weights = float(state["score"]), dict(state["weights"])
        self.epoch = None if state["epoch"] < 0 else int(state["epoch"])
