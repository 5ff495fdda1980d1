"""How much of a model a file of weights covers, and how much of the file the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vissl_jointssl.checkpoints.importing import COUNTER


@dataclass(frozen=True)
class LoadAccount:
    """What became of every tensor of a file, and of every weight of the model.

    Attributes:
        source: The file.
        model: `slice` or `volume`.
        matched: Weights of the model that the file gave.
        missing: Weights of the model that it did not give. Counters of BatchNorm are not among them: some libraries do
            not keep them, and no forward pass reads them.
        unfit: Weights that it gives with another shape, or NaN or infinite; they were not taken and are missing.
        extra: Weights of a larger network of the same kind.
        dropped: Tensors of the file that the model has no place for, such as a classifier or a head.
    """

    source: Path
    model: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unfit: tuple[str, ...]
    extra: tuple[str, ...]
    dropped: tuple[str, ...]

    def summary(self) -> str:
        """The account for a terminal or a log."""
        lines = [f"{self.source}: {self.model} model, {len(self.matched)} weights and buffers matched"]
        for what in ("missing", "unfit", "extra", "dropped"):
            names: tuple[str, ...] = getattr(self, what)
            shown = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
            lines.append(f"  {what:8} {len(names)}{shown}")
        return "\n".join(lines)


def coverage(
    source: Path,
    model: str,
    wanted: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    origin: Mapping[str, str],
    everything: Iterable[str],
) -> LoadAccount:
    """Compare a model with the weights that a file holds for it.

    Args:
        source: The file.
        model: `slice` or `volume`.
        wanted: State dict of the model.
        weights: By the model's names; a larger network of the kind has more.
        origin: The model's name -> the file's.
        everything: The file's name of every tensor in it.
    """
    shared = wanted.keys() & weights.keys()
    unfit = {
        name for name in shared if weights[name].shape != wanted[name].shape or not torch.isfinite(weights[name]).all()
    }
    matched = tuple(name for name in wanted if name in shared - unfit)
    placed = {origin[name] for name in weights}  # matched, unfit or extra
    return LoadAccount(
        source=source,
        model=model,
        matched=matched,
        missing=tuple(name for name in wanted if name not in matched and not name.endswith(COUNTER)),
        unfit=tuple(sorted(unfit)),
        extra=tuple(name for name in weights if name not in wanted),
        dropped=tuple(name for name in everything if name not in placed),
    )
