"""Limits of the collapse monitor, and what it says when one is crossed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vissl_jointssl.objectives.collapse import CollapseMeasures
from vissl_jointssl.plugin.collapse_limits import REMEDIES, SWAV_REMEDIES, CollapseOptions, beyond_limits
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.options import read_options

HEALTHY = CollapseMeasures(
    volumes=256,
    prototypes=3000,
    effective_rank=60.0,
    mean_cosine=0.3,
    usage_entropy=5.0,
    usage_bound=math.log(256),
    marginal_error=0.2,
    agreement=0.4,
    agreement_by_chance=0.01,
    agreement_above_chance=0.39,
    recognition=0.9,
)
SICK = [
    (
        {"mean_cosine": 0.998},
        "mean_cosine",
        "all volumes look alike: mean cosine 0.998 over the last 256 volumes (limit 0.995); lower the learning rate "
        "(OPTIMIZER.param_schedulers.lr), balance the codes over more volumes, with a larger batch",
    ),
    (
        {"effective_rank": 1.3},
        "effective_rank",
        "volumes differ along almost no direction: effective rank 1.30 over the last 256 volumes (limit 2); lower",
    ),
    (
        {"usage_entropy": 1.0},
        "usage_entropy",
        "few of the 3000 prototypes are in use, about 2.7: entropy 1.00 over the last 256 volumes (limit 1.66, 0.3 of "
        "what they can reach); balance the codes over more volumes, with a larger batch in parts",
    ),
    (
        {"marginal_error": 0.8},
        "marginal_error",
        "the codes are not balanced over the prototypes: 80% of their mass is with the wrong ones (limit 50%); soften "
        "the codes (LOSS.inter_swav_loss.epsilon",
    ),
    (
        {"agreement": 0.011, "agreement_above_chance": 0.001},
        "agreement_above_chance",
        "two views of a volume agree hardly more often than strangers: 1.1% have the same prototype over the last 256 "
        "volumes, chance gives 1.0%; lower K (num_clusters in MODEL.HEAD.PARAMS)",
    ),
    (
        {"recognition": 0.52},
        "recognition",
        "two views of a volume are hardly more alike than views of two volumes: a volume is told from another one in "
        "52% of comparisons over the last 256 volumes, chance gives 50% (limit 55%), so its cluster says how a view "
        "was drawn; draw gentler views (DATA.TRAIN.TRANSFORMS), first of all in gamma",
    ),
    ({"effective_rank": math.nan, "mean_cosine": math.nan}, "not_finite", "embeddings or codes hold NaN or infinity"),
    ({"marginal_error": math.nan}, "not_finite", "turn mixed precision off (MODEL.AMP_PARAMS.USE_AMP)"),
]


def test_a_healthy_look_has_nothing_to_say() -> None:
    assert beyond_limits(HEALTHY, CollapseOptions(), "inter_swav_loss") == {}


@pytest.mark.parametrize(("changed", "name", "words"), SICK)
def test_each_kind_of_collapse_is_said_in_words_with_its_remedy(
    changed: dict[str, float], name: str, words: str
) -> None:
    found = beyond_limits(dataclasses.replace(HEALTHY, **changed), CollapseOptions(), "inter_swav_loss")
    assert list(found) == [name]
    assert words in found[name]


def test_a_value_at_its_limit_is_not_beyond_it() -> None:
    options = CollapseOptions()
    at_limits = {**options.limits(), "usage_entropy": options.usage_entropy * HEALTHY.usage_bound}
    assert beyond_limits(dataclasses.replace(HEALTHY, **at_limits), options, "inter_swav_loss") == {}


def test_what_is_not_measured_is_not_judged() -> None:
    look = dataclasses.replace(
        HEALTHY,
        marginal_error=None,
        agreement=None,
        agreement_by_chance=None,
        agreement_above_chance=None,
        recognition=None,
    )
    assert beyond_limits(look, CollapseOptions(), "inter_deepclusterv2_loss") == {}


def test_remedies_name_options_of_the_loss_that_runs() -> None:
    assert set(REMEDIES) == set(SWAV_REMEDIES) - {"marginal_error"}  # k-means has no soft codes
    sick = dataclasses.replace(HEALTHY, mean_cosine=1.0, effective_rank=1.0, usage_entropy=0.0)
    for loss, other in (("inter_swav_loss", "deepclusterv2"), ("inter_deepclusterv2_loss", "inter_swav_loss")):
        said = " ".join(beyond_limits(sick, CollapseOptions(), loss).values())
        assert "all volumes look alike" in said
        assert other not in said


@pytest.mark.parametrize(("steps", "first"), [(38, 100), (1000, 150), (6350, 953)])
def test_the_beginning_is_not_judged(steps: int, first: int) -> None:
    assert CollapseOptions().first_judged_step(steps) == first


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"MEAN_COSIN": 0.9}, "COLLAPSE.MEAN_COSIN is read by nothing; did you mean MEAN_COSINE?"),
        ({"VOLUMES": 1}, "COLLAPSE.VOLUMES is 1; it must be at least 2"),
        ({"EVERY": -1}, "COLLAPSE.EVERY is -1; it must be at least 0"),
        ({"PATIENCE": 0}, "COLLAPSE.PATIENCE is 0; it must be at least 1"),
        ({"WARM_UP_STEPS": -5}, "COLLAPSE.WARM_UP_STEPS is -5; it must be at least 0"),
        ({"WARM_UP": 1.5}, "COLLAPSE.WARM_UP is 1.5; it must lie between 0 and 1"),
        ({"EFFECTIVE_RANK": 0.5}, "COLLAPSE.EFFECTIVE_RANK is 0.5; no embeddings have less than 1"),
        ({"MEAN_COSINE": "high"}, "COLLAPSE.MEAN_COSINE is 'high' (str); expected a value like 0.995"),
    ],
)
def test_a_wrong_option_is_named(section: dict[str, Any], fault: str) -> None:
    _, faults = read_options(CollapseOptions, section, "JOINT_SSL.COLLAPSE")
    assert faults == [f"JOINT_SSL.{fault}"]


def test_a_wrong_option_is_found_before_the_run(config_of: Callable[..., Any], stage1_checkpoint: Path) -> None:
    cfg = config_of("stage2_swav", "+config.JOINT_SSL.COLLAPSE={MEAN_COSINE: 2.0}", parent=stage1_checkpoint)
    with pytest.raises(ConfigError, match=r"JOINT_SSL\.COLLAPSE\.MEAN_COSINE is 2\.0; it must lie between 0 and 1"):
        prepare(cfg)
