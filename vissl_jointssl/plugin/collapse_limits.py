"""`config.JOINT_SSL.COLLAPSE`: when the monitor of stage 3 looks, from where on it warns, and in which words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vissl_jointssl.objectives.collapse import CollapseMeasures

_RATE = "lower the learning rate (OPTIMIZER.param_schedulers.lr)"
_VIEWS = "draw gentler views (DATA.TRAIN.TRANSFORMS)"
_GREY_VALUES = f"{_VIEWS}, first of all in gamma, contrast and brightness"
_SHARPEN = "sharpen the scores (LOSS.inter_deepclusterv2_loss.temperature, about one minus the mean cosine)"
REMEDIES = {
    "mean_cosine": f"{_RATE}, {_SHARPEN}, or lower K (LOSS.inter_deepclusterv2_loss.num_clusters)",
    "effective_rank": f"{_RATE}, or raise K (LOSS.inter_deepclusterv2_loss.num_clusters)",
    "usage_entropy": f"lower K (LOSS.inter_deepclusterv2_loss.num_clusters), or {_RATE}",
    "agreement_above_chance": (
        f"{_SHARPEN}, lower K (LOSS.inter_deepclusterv2_loss.num_clusters), {_RATE}, or {_VIEWS}"
    ),
    "recognition": _GREY_VALUES,
}
"""What to do, by measure, with clusters from k-means."""
_CLUSTERS = "K (num_clusters in MODEL.HEAD.PARAMS)"
_QUEUE = (
    "balance the codes over more volumes, with a larger batch in parts (JOINT_SSL.MICRO_BATCHES) or a queue "
    "(LOSS.inter_swav_loss.queue_length, from queue_start_iter on)"
)
_EPSILON = "LOSS.inter_swav_loss.epsilon"
SWAV_REMEDIES = {
    "mean_cosine": f"{_RATE}, {_QUEUE}, sharpen the codes ({_EPSILON}, 0.005 for 0.05), or lower {_CLUSTERS}",
    "effective_rank": f"{_RATE}, {_QUEUE}, or raise {_CLUSTERS}",
    "usage_entropy": f"{_QUEUE}, lower {_CLUSTERS}, or sharpen the codes ({_EPSILON}, 0.005 for 0.05)",
    "marginal_error": f"soften the codes ({_EPSILON}, 0.1 for 0.05), raise num_iters beside it, or lower {_CLUSTERS}",
    "agreement_above_chance": f"lower {_CLUSTERS}, {_RATE}, or {_VIEWS}",
    "recognition": _GREY_VALUES,
}
"""The same with codes from Sinkhorn."""

_SHARES = ("mean_cosine", "marginal_error", "agreement_above_chance", "recognition")  # measures of at most 1


@dataclass(frozen=True)
class CollapseOptions:
    """Limits of the measures in `objectives.collapse`, and what is looked at how often.

    Limits lie close to full collapse, so that a warning can be trusted; its approach shows in the curves. Nothing is
    judged in the beginning: embeddings start alike (mean cosine about 0.95) and prototypes start frozen.
    """

    every: int = 0  # steps between two looks; 0 looks where VISSL logs the loss, LOG_FREQUENCY and the first steps
    volumes: int = 256  # the last so many of each rank; the effective rank of fewer says little, of more costs n^3
    warm_up: float = 0.15  # share of the run's steps without judging; the learning rate rises over the first 0.1
    warm_up_steps: int = 100  # and at least so many steps: shorter runs are trials, and have not begun to learn
    patience: int = 5  # looks in a row beyond a limit before it is said; one look is a draw of volumes
    mean_cosine: float = 0.995  # at most; untrained 0.95, runs whose views agree up to 0.991, collapsed from 0.998
    effective_rank: float = 2.0  # at least; equal volumes have 1, and two clusters without any spread 2
    usage_entropy: float = 0.3  # at least, as a share of ln(min(n, K)); 8 of 1000 prototypes in use have 0.3
    marginal_error: float = 0.5  # at most; half of the codes' mass is with the wrong prototypes
    agreement_above_chance: float = 0.02  # at least, Cohen's kappa; 0 is chance, give or take 0.02 for K = 8
    recognition: float = 0.55  # at least; 0.5 is chance, give or take 0.02 for batches of 8

    def faults(self) -> list[str]:
        """Everything wrong with these values, in words."""
        where = "JOINT_SSL.COLLAPSE"
        found = []
        for name, least in (("every", 0), ("volumes", 2), ("warm_up_steps", 0), ("patience", 1)):
            if getattr(self, name) < least:
                found.append(f"{where}.{name.upper()} is {getattr(self, name)}; it must be at least {least}")
        for name in ("warm_up", "usage_entropy", *_SHARES):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{where}.{name.upper()} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.effective_rank < 1:
            found.append(f"{where}.EFFECTIVE_RANK is {self.effective_rank}; no embeddings have less than 1")
        return found

    def limits(self) -> dict[str, float]:
        """The limits alone, for whoever draws the measures."""
        return {name: getattr(self, name) for name in ("effective_rank", "usage_entropy", *_SHARES)}

    def first_judged_step(self, steps: int) -> int:
        """Steps before this one are warm-up, in a run of so many steps."""
        return max(self.warm_up_steps, math.ceil(self.warm_up * steps))


def beyond_limits(measures: CollapseMeasures, options: CollapseOptions, loss: str) -> dict[str, str]:
    """What is wrong in one look, by the measure that shows it.

    Args:
        measures: Of this look.
        options: The limits.
        loss: Name of the loss, whose options the remedy names.

    Returns:
        Measure -> what is the matter and what to do, in words; empty for a healthy run.
    """
    over = f"over the last {measures.volumes} volumes"
    if math.isnan(measures.effective_rank) or math.isnan(measures.marginal_error or 0.0):
        said = f"embeddings or codes hold NaN or infinity {over}"
        return {"not_finite": f"{said}; {_RATE}, or turn mixed precision off (MODEL.AMP_PARAMS.USE_AMP)"}
    found = {}
    if measures.mean_cosine > options.mean_cosine:
        found["mean_cosine"] = (
            f"all volumes look alike: mean cosine {measures.mean_cosine:.3f} {over} (limit {options.mean_cosine:g})"
        )
    if measures.effective_rank < options.effective_rank:
        found["effective_rank"] = (
            f"volumes differ along almost no direction: effective rank {measures.effective_rank:.2f} {over} "
            f"(limit {options.effective_rank:g})"
        )
    least = options.usage_entropy * measures.usage_bound
    if measures.usage_entropy < least:
        found["usage_entropy"] = (
            f"few of the {measures.prototypes} prototypes are in use, about {math.exp(measures.usage_entropy):.1f}: "
            f"entropy {measures.usage_entropy:.2f} {over} (limit {least:.2f}, {options.usage_entropy:g} of what they "
            "can reach)"
        )
    if measures.marginal_error is not None and measures.marginal_error > options.marginal_error:
        found["marginal_error"] = (
            f"the codes are not balanced over the prototypes: {measures.marginal_error:.0%} of their mass is with the "
            f"wrong ones (limit {options.marginal_error:.0%})"
        )
    above = measures.agreement_above_chance
    if above is not None and above < options.agreement_above_chance:
        found["agreement_above_chance"] = (
            f"two views of a volume agree hardly more often than strangers: {measures.agreement:.1%} have the same "
            f"prototype {over}, chance gives {measures.agreement_by_chance:.1%}"
        )
    if measures.recognition is not None and (said := unrecognised(measures.recognition, over, options.recognition)):
        found["recognition"] = said
    remedies = SWAV_REMEDIES if loss == "inter_swav_loss" else REMEDIES
    return {name: f"{said}; {remedies[name]}" for name, said in found.items()}


def unrecognised(recognition: float, over: str, least: float) -> str:
    """What is the matter where views are not told from strangers', in words; empty where they are.

    Args:
        recognition: Mean of `objectives.collapse.recognised` over volumes.
        over: Which volumes, in words.
        least: The limit.
    """
    if recognition < least:
        return (
            f"two views of a volume are hardly more alike than views of two volumes: a volume is told from another one "
            f"in {recognition:.0%} of comparisons {over}, chance gives 50% (limit {least:.0%}), "
            "so its cluster says how a view was drawn"
        )
    return ""
