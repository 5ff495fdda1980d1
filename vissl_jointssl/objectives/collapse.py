"""How far a clustering of volumes is from collapse: six measures of a sample of embeddings and assignments.

Collapse has several faces, and the loss shows none of them: all volumes may get one embedding (`mean_cosine`), or
embeddings in few directions (`effective_rank`); few prototypes may be in use (`usage_entropy`); the codes may not be
balanced (`marginal_error`); or the two views of a volume may agree only as often as any two would (`agreement`). And
where two views of a volume are no more alike than two volumes (`recognised`), there is nothing to learn from in the
first place: its cluster says how the view was drawn.

Every function returns a plain number, which waits for the device: meant for tensors on the CPU, once every so many
steps. An embedding or code that is not finite gives NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize


class Agreement(NamedTuple):
    """How often the two views of a volume are most like the same prototype, and how often two strangers would be."""

    share: float
    chance: float

    @property
    def above_chance(self) -> float:
        """Cohen's kappa: 1 for views that always agree, 0 for views that agree as often as strangers.

        Where strangers always agree, because all are with one prototype, agreeing means nothing: 0.
        """
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0


@dataclass(frozen=True)
class CollapseMeasures:
    """One look at a sample of n volumes and K prototypes; see the functions of the same names."""

    volumes: int
    prototypes: int
    effective_rank: float
    mean_cosine: float
    usage_entropy: float
    usage_bound: float  # ln(min(n, K)), what n volumes can reach at most
    marginal_error: float | None  # None where there are no soft codes
    agreement: float | None  # None where there is one view, as the two below
    agreement_by_chance: float | None
    agreement_above_chance: float | None
    recognition: float | None  # None where no volume had a stranger to be told from


def measure_collapse(
    embeddings: Tensor,
    assignments: Tensor,
    pairs: Tensor | None,
    codes: Tensor | None,
    prototypes: int,
    shares_beaten: Tensor | None = None,
) -> CollapseMeasures:
    """All measures of one sample.

    Args:
        embeddings: One view of each volume, ``(n, D)``.
        assignments: Their most likely prototypes, ``(n,)``.
        pairs: Most likely prototypes of two views of each volume, ``(n, 2)``; None if there is one view.
        codes: As in `marginal_error`; None if the method has no soft codes.
        prototypes: K.
        shares_beaten: Of `recognised`, of any volumes; None if there is one view.

    Raises:
        ValueError: As the measures.
    """
    compared = None if shares_beaten is None else shares_beaten[~shares_beaten.isnan()]
    agreed = None if pairs is None else agreement(pairs[:, 0], pairs[:, 1])
    return CollapseMeasures(
        volumes=len(embeddings),
        prototypes=prototypes,
        effective_rank=effective_rank(embeddings),
        mean_cosine=mean_cosine(embeddings),
        usage_entropy=usage_entropy(assignments, prototypes),
        usage_bound=math.log(min(len(assignments), prototypes)),
        marginal_error=None if codes is None else marginal_error(codes),
        agreement=None if agreed is None else agreed.share,
        agreement_by_chance=None if agreed is None else agreed.chance,
        agreement_above_chance=None if agreed is None else agreed.above_chance,
        recognition=None if compared is None or not len(compared) else float(compared.double().mean()),
    )


def recognised(first: Tensor, second: Tensor) -> Tensor:
    """How surely each volume is told from the others by one of its views, from the other one.

    It is the share of strangers in the batch whose second view is less like a volume's first view than its own second
    view is, by cosine; an equal one counts half. The mean over volumes is the area under the ROC curve of telling own
    views from strangers', volume by volume: 1 if always, 0.5 by chance. Take both views from one step: from one step to
    the next all volumes may move further than volumes are apart.

    Args:
        first: One row per volume, ``(n, D)``; need not be normalised.
        second: The same volumes' other views.

    Returns:
        ``(n,)``; NaN for a volume without strangers, or with a view that is not finite.
    """
    cosines = normalize(first.double(), dim=1) @ normalize(second.double(), dim=1).T
    own = cosines.diagonal()[:, None]
    beaten = (cosines < own).double() + (cosines == own).double() / 2
    shares = (beaten.sum(dim=1) - 0.5) / (len(cosines) - 1)  # it equals itself
    return shares.where(own[:, 0].isfinite(), math.nan)


def effective_rank(embeddings: Tensor) -> float:
    """The number of directions that embeddings really use: exp of the entropy of their singular values.

    With s the singular values of the matrix and p = s / sum(s), it is exp(-sum(p ln p)) (Roy and Vetterli, "The
    effective rank", EUSIPCO 2007, Def. 1). Not centred, so that equal embeddings have rank 1. It lies between 1 and
    min(n, D) and grows with n: compare only numbers of the same n. Noise counts like signal: a high rank proves
    nothing, a low one does. Zero embeddings only: 0.

    Args:
        embeddings: One row per volume, ``(n, D)``; n may be far below D.

    Raises:
        ValueError: If it is not a matrix, or has no row.
    """
    _check_matrix(embeddings, at_least=1)
    rows = embeddings.double()  # singular values are roots of the Gram matrix's: in float32 its noise would be 3e-4
    if not rows.isfinite().all():
        return math.nan
    gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = values.sum()
    if total == 0:
        return 0.0
    return math.exp(_entropy(values / total))


def mean_cosine(embeddings: Tensor) -> float:
    """Cosine of the angle between two embeddings, averaged over all pairs of different rows: 1 when all are alike.

    Args:
        embeddings: One row per volume, ``(n, D)``; need not be normalised.

    Raises:
        ValueError: If it is not a matrix of at least two rows.
    """
    _check_matrix(embeddings, at_least=2)
    units = normalize(embeddings.double(), dim=1)
    count = len(units)
    # The sum over all pairs is the squared length of the sum; a row with itself is left out.
    pairs = units.sum(dim=0).square().sum() - units.square().sum()
    return float(pairs / (count * (count - 1)))


def usage_entropy(assignments: Tensor, prototypes: int) -> float:
    """Entropy of how often each prototype is the most likely one: ln K when all are used alike, 0 when one takes all.

    n volumes use at most n prototypes, so that it cannot exceed ln(min(n, K)).

    Args:
        assignments: Most likely prototype of each volume, ``(n,)``, int64 in [0, K).
        prototypes: K.

    Raises:
        ValueError: If there is no assignment, or one lies outside [0, K).
    """
    return _entropy(_usage(assignments, prototypes))


def marginal_error(codes: Tensor) -> float:
    """How far the prototypes' shares of the codes are from 1/K each: total variation distance, 0 to 1 - 1/K.

    It is the share of the codes' mass that would have to move to another prototype. Sinkhorn ends with normalising
    the samples, so what its rounds have not evened out remains here. Codes balanced together with a queue are even
    over batch and queue, not over the batch.

    Args:
        codes: Rows of one sum each, ``(..., K)``: codes of a batch ``(A, B, K)``, or their means on each rank.

    Raises:
        ValueError: If there is no code.
    """
    if codes.ndim < 2 or codes.numel() == 0:
        raise ValueError(f"codes must be (..., K) with at least one row, got {tuple(codes.shape)}")
    shares = codes.double().flatten(end_dim=-2).mean(dim=0)
    return float((shares - 1 / len(shares)).abs().sum() / 2)


def agreement(first: Tensor, second: Tensor) -> Agreement:
    """Share of volumes whose two views have the same most likely prototype, and the share that chance alone gives.

    Chance is the probability that views of two volumes drawn at random agree: the sum over prototypes of the products
    of their frequencies in the two views. It is near 1/K when prototypes are used alike, and 1 when one takes all.

    Args:
        first: Most likely prototype of each volume's first view, ``(n,)``.
        second: Of its second view, ``(n,)``.

    Raises:
        ValueError: If there is no volume, or the views have different numbers of them.
    """
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(
            f"both views need one prototype per volume, (n,), got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    prototypes = int(torch.stack([first, second]).max()) + 1
    chance = (_usage(first, prototypes) * _usage(second, prototypes)).sum()
    return Agreement(float((first == second).double().mean()), float(chance))


def _usage(assignments: Tensor, prototypes: int) -> Tensor:
    """Share of each prototype, ``(n,)`` -> ``(K,)``."""
    if assignments.ndim != 1 or not len(assignments):
        raise ValueError(f"assignments must be (n,) with at least one volume, got {tuple(assignments.shape)}")
    if not 0 <= int(assignments.min()) <= int(assignments.max()) < prototypes:
        raise ValueError(
            f"assignments go from {int(assignments.min())} to {int(assignments.max())}, "
            f"but there are {prototypes} prototypes, from 0 on"
        )
    return torch.bincount(assignments, minlength=prototypes).double() / len(assignments)


def _entropy(shares: Tensor) -> float:
    """In nats; 0 ln 0 is 0."""
    return abs(float(torch.special.entr(shares).sum()))  # never -0


def _check_matrix(embeddings: Tensor, at_least: int) -> None:
    if embeddings.ndim != 2 or len(embeddings) < at_least:
        raise ValueError(
            f"embeddings must be (n, D) with n of at least {at_least}, got {tuple(embeddings.shape)}; "
            "gather more volumes first"
        )
