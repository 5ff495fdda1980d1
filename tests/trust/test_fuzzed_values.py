"""Odd values anywhere in a config: it is found right, or its faults are named; no check of ours stumbles over them."""

from __future__ import annotations

import copy
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError, _vissl_defaults, misspelt_keys, refuse_missing_values
from vissl_jointssl.plugin.kind_faults import kind_faults
from vissl_jointssl.plugin.launch import compose

# isort: split
from vissl.config import AttrDict
from vissl.utils.hydra_config import convert_to_attrdict

FAST, SECONDS = 100, 20.0
# Not `{}`: a section merged with VISSL's defaults has all its keys.
ODD = (None, "", -1, 0, 1, 1e99, float("nan"), float("inf"), [], [None], "x" * 50, "../..", True, [[]], {"name": "x"},
       {"a": 1}, "None", 2**70, [1, 2, 3], "1", ["x"], "uint8")  # fmt: skip
OUR_SECTIONS = ("JOINT_SSL", "LOSS", "CHECKPOINT")

Place = tuple[str | int, ...]


def _places(node: Any, at: Place = ()) -> Iterator[Place]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*at, key)
        yield from _places(value, (*at, key))


def _changed(config: AttrDict, places: list[Place], draw: random.Random) -> tuple[AttrDict, list[Any]]:
    """A copy with an odd value in one place or two, half the time in a section that our own checks read."""
    changed, what = copy.deepcopy(config), []
    ours = [at for at in places if at[0] in OUR_SECTIONS or at[:2] == ("MODEL", "TRUNK") or "TRANSFORMS" in at]
    for _ in range(draw.choice((1, 1, 2))):
        at, value = draw.choice(draw.choice((places, ours))), copy.deepcopy(draw.choice(ODD))
        node: Any = changed
        for key in at[:-1]:
            inside = (isinstance(node, dict) and key in node) or (isinstance(node, list) and isinstance(key, int))
            node = node[key] if inside and (isinstance(node, dict) or key < len(node)) else None
        if isinstance(node, dict) or (isinstance(node, list) and isinstance(at[-1], int) and at[-1] < len(node)):
            node[at[-1]] = value
            what.append((at, value))
    return changed, what


def _checked(config: AttrDict) -> None:
    """The checks of a run in their order, without VISSL's inference between them."""
    faults = kind_faults(config, _vissl_defaults()) or misspelt_keys(config)
    if faults:
        raise ConfigError(faults)
    prepare(config)


def _fuzz(config: AttrDict, inputs: int, seconds: float) -> Counter[str]:
    tried: Counter[str] = Counter()
    places, start = list(_places(config)), time.monotonic()
    _checked(copy.deepcopy(config))
    for attempt in itertools.count():
        if attempt == inputs or time.monotonic() - start > seconds:
            return tried
        changed, what = _changed(config, places, random.Random(attempt))
        try:
            _checked(changed)
        except ConfigError:
            tried["refused"] += 1
        except Exception as error:
            raise AssertionError(f"input {attempt}, {what}: {type(error).__name__}: {error}") from error
        else:
            tried["found right"] += 1
    raise AssertionError


@pytest.fixture
def config(tiny_manifest: Path, tmp_path: Path) -> AttrDict:
    """Stage 1's: its data, views, head, loss and schedules pass the most checks."""
    overrides = ["config=jointssl/stage1_swav", f"config.CHECKPOINT.DIR='{tmp_path}'"]
    overrides += [f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']", "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"]
    overrides += ["config.DISTRIBUTED.NUM_PROC_PER_NODE=1"]
    return convert_to_attrdict(compose(overrides), dump_config=False)[1]


def test_a_hundred_odd_values_are_found_right_or_named(config: AttrDict) -> None:
    tried = _fuzz(config, FAST, 60)
    assert tried["refused"] > FAST // 5
    assert tried.total() == FAST


@pytest.mark.slow
def test_as_many_odd_values_as_fit_into_twenty_seconds(config: AttrDict, capsys: pytest.CaptureFixture[str]) -> None:
    tried = _fuzz(config, 10**9, SECONDS)
    with capsys.disabled():
        sys.stdout.write(f"\nfuzzing values of a config: {tried.total()} inputs, {tried['refused']} refused\n")
    assert tried.total() > FAST


@cache
def _stage_1() -> DictConfig:
    return compose(["config=jointssl/stage1_swav"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("DISTRIBUTED", 3, r"config\.DISTRIBUTED is '3', expected a section \{key: value\}"),
        ("DISTRIBUTED.NUM_NODES", "two", r"config\.DISTRIBUTED\.NUM_NODES is 'two', expected a number"),
        ("DATA.TRAIN.TRANSFORMS", "volume_views", r"TRANSFORMS is 'volume_views', expected a list"),
        ("DATA.TRAIN.TRANSFORMS", ["ToTensor"], r"TRANSFORMS\.0 is 'ToTensor', expected a section"),
        ("DATA.TRAIN.TRANSFORMS", [{"name": ["x"]}], r"TRANSFORMS\.0\.name is .* expected a single value"),
        ("DATA.TRAIN.DATA_SOURCES", [3], r"config\.DATA\.TRAIN\.DATA_SOURCES\.0 is '3', expected a word"),
        ("MODEL.HEAD.PARAMS", [["swav_head"]], r"PARAMS\.0 is .* expected \[name, \{key: value\}\]"),
        ("MODEL.HEAD.PARAMS", [[["mlp", {"dims": [1]}], ["mlp", 3]]], r"PARAMS\.0\.1 is .* expected \[name, "),
        ("MODEL.WEIGHTS_INIT.PARAMS_FILE", 3, r"PARAMS_FILE is '3', expected a word"),
        ("OPTIMIZER.param_schedulers.lr.schedulers", [1], r"schedulers\.0 is '1', expected a section"),
        ("JOINT_SSL", "stage 1", r"config\.JOINT_SSL is 'stage 1', expected a section"),
    ],
)
def test_a_value_of_another_kind_is_named_before_vissl_reads_it(path: str, value: Any, message: str) -> None:
    composed = copy.deepcopy(_stage_1())
    OmegaConf.set_struct(composed, False)
    OmegaConf.update(composed.config, path, value, merge=False)
    with pytest.raises(ConfigError, match=message):
        refuse_missing_values(composed)
