"""Our sections of a VISSL config as frozen dataclasses: what exists, its type, its default, its limits.

VISSL's classes read an untyped tree; ours get keyword arguments from here. YAML writes the names in capitals, as
VISSL does. Every reader returns its faults instead of raising, so that a config's faults are reported together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch

from vissl_jointssl.models.attention_axis import (
    ATTENTION_AXES,
    PRESETS,
    build_volume_encoder,
    volume_encoder_options,
)
from vissl_jointssl.models.slice_encoder import LEVEL_CHANNELS, PAPER_LEVELS
from vissl_jointssl.plugin.collapse_limits import CollapseOptions
from vissl_jointssl.plugin.number_limits import NumberOptions
from vissl_jointssl.plugin.recompute_choice import RECOMPUTE
from vissl_jointssl.spelling import nearest

STAGES = (1, 2, 3)
FLAVOURS = ("swav", "deepclusterv2")
PURPOSES = ("pretrain", "baseline", "evaluate")
VIEW_MAKERS = ("auto", "device", "workers")


@dataclass(frozen=True)
class RunOptions:
    """`config.JOINT_SSL`: what the run is for.

    `stage` is the recipe's stage for `purpose: pretrain` and must stay None for the others: a `baseline` is another
    method's training on our data, an evaluation trains nothing of ours.
    """

    purpose: str = "pretrain"
    stage: int | None = None
    flavour: str = "swav"
    skip_stage_2: bool = False  # Table 6, "w/o mask prediction": stage 3 starts from stage 1
    mixed_flavours: bool = False  # start from a parent of the other flavour
    allow_unrecorded_parent: bool = False  # e.g. a stock VISSL checkpoint, whose stage nobody wrote down
    micro_batches: int = 1  # parts that a batch goes through the model in; the step stays that of the whole batch
    views_on: str = "auto"  # who makes the views of volumes: `device` that trains, loader `workers`; auto: a GPU does
    loader_timeout: int = 600  # seconds to wait for a loader worker's batch before the run stops; 0 waits for ever
    collapse: Mapping[str, Any] = field(default_factory=dict)  # `CollapseOptions`: the monitor of stage 3
    numbers: Mapping[str, Any] = field(default_factory=dict)  # `NumberOptions`: steps that may be skipped

    def faults(self) -> list[str]:
        """Everything wrong with these values, in words."""
        found = []
        if self.purpose not in PURPOSES:
            found.append(f"JOINT_SSL.PURPOSE is {self.purpose!r}; it must be one of {PURPOSES}")
        elif self.purpose == "pretrain" and self.stage not in STAGES:
            found.append(f"JOINT_SSL.STAGE is {self.stage!r}; pre-training has stages {STAGES}")
        elif self.purpose != "pretrain" and self.stage is not None:
            found.append(f"JOINT_SSL.STAGE is {self.stage!r}; purpose {self.purpose} has no stage: leave it out")
        if self.flavour not in FLAVOURS:
            found.append(f"JOINT_SSL.FLAVOUR is {self.flavour!r}; known flavours: {FLAVOURS}")
        if self.micro_batches < 1:
            found.append(f"JOINT_SSL.MICRO_BATCHES is {self.micro_batches}; 1 takes the batch whole")
        if self.views_on not in VIEW_MAKERS:
            found.append(f"JOINT_SSL.VIEWS_ON is {self.views_on!r}{nearest(self.views_on, VIEW_MAKERS)}")
        if self.loader_timeout < 0:
            found.append(f"JOINT_SSL.LOADER_TIMEOUT is {self.loader_timeout}; it must be at least 0: no limit")
        _, number_faults = read_options(NumberOptions, self.numbers, "JOINT_SSL.NUMBERS")
        return found + number_faults


@dataclass(frozen=True)
class TrunkOptions:
    """`config.MODEL.TRUNK.JOINT_SSL`: the parts that `joint_trunk` adds to VISSL's ResNet.

    `preset` chooses the defaults of `levels` and `attention_axis`; what is named beside it wins.
    """

    stage: int | None = None  # copied from JOINT_SSL.STAGE: a trunk sees only config.MODEL
    preset: str = "paper"
    levels: tuple[str, ...] = PAPER_LEVELS
    slice_projection: bool = True  # False: Z straight from E, the evaluation of a checkpoint that has no map E -> D
    embedding_width: int = 640
    mask_ratio: float = 0.1
    attention_axis: str = "slice"
    volume_encoder: Mapping[str, Any] = field(default_factory=dict)  # over the defaults of the axis' class
    recompute: str = "auto"  # f_intra's `blocks` again in the backward pass, or `none`; auto: if memory asks for it

    def faults(self) -> list[str]:
        """Everything wrong with these values, in words."""
        where = "MODEL.TRUNK.JOINT_SSL"
        found = [
            f"{where}.LEVELS names {level!r}{nearest(level, LEVEL_CHANNELS)}"
            for level in self.levels
            if level not in LEVEL_CHANNELS
        ]
        if not self.levels:
            found.append(f"{where}.LEVELS is empty; the paper's are res1 to res5")
        if self.embedding_width < 1:
            found.append(f"{where}.EMBEDDING_WIDTH is {self.embedding_width}; it must be positive (the paper's is 640)")
        if not 0 < self.mask_ratio < 1:
            found.append(f"{where}.MASK_RATIO is {self.mask_ratio}; it must lie between 0 and 1 (the paper's is 0.1)")
        if self.preset not in PRESETS:
            found.append(f"{where}.PRESET is {self.preset!r}{nearest(self.preset, PRESETS)}")
        if self.recompute not in RECOMPUTE:
            found.append(f"{where}.RECOMPUTE is {self.recompute!r}{nearest(self.recompute, RECOMPUTE)}")
        if self.attention_axis not in ATTENTION_AXES:
            axes = nearest(self.attention_axis, ATTENTION_AXES)
            return [*found, f"{where}.ATTENTION_AXIS is {self.attention_axis!r}{axes}"]
        if not self.slice_projection and self.attention_axis != "none":
            found.append(f"{where}.SLICE_PROJECTION is False, but f_inter reads projected slices; leave it out")
        return found + self._volume_encoder_faults(f"{where}.VOLUME_ENCODER")

    def _volume_encoder_faults(self, where: str) -> list[str]:
        known = volume_encoder_options(self.attention_axis, {})
        found = []
        for key, value in self.volume_encoder.items():
            if key not in known:
                near = nearest(key, known) if known else ""
                found.append(f"{where}.{key} is read by nothing along the axis {self.attention_axis!r}{near}")
            elif not _fits(value, known[key]):
                found.append(f"{where}.{key} is {value!r} ({type(value).__name__}); expected {_describe(known[key])}")
        if not found and self.embedding_width > 0:
            try:
                with torch.device("meta"):  # sizes only, no weights
                    build_volume_encoder(self.attention_axis, width=self.embedding_width, **self.volume_encoder)
            except ValueError as error:
                found.append(f"{where}: {error}")
        return found


Options = TypeVar("Options", RunOptions, TrunkOptions, CollapseOptions, NumberOptions)


def read_options(kind: type[Options], section: Mapping[str, Any], where: str) -> tuple[Options, list[str]]:
    """Build options from a section of the config.

    Args:
        kind: `RunOptions`, `TrunkOptions`, `CollapseOptions` or `NumberOptions`.
        section: The mapping found there, keys in capitals.
        where: Its path below `config`, for the messages.

    Returns:
        The options, defaults in place of what was wrong or null, and the faults.
    """
    defaults = {item.name: getattr(kind(), item.name) for item in fields(kind)}
    preset = PRESETS.get(str(section.get("PRESET")))
    if kind is TrunkOptions and preset is not None:
        defaults |= {"levels": preset.levels, "attention_axis": preset.attention_axis}
    values: dict[str, Any] = {}
    faults = []
    for key, value in section.items():
        name = key.lower()
        if name not in defaults or key != key.upper():
            faults.append(f"{where}.{key} is read by nothing{nearest(key, [known.upper() for known in defaults])}")
            continue
        if value is None:
            continue
        expected = defaults[name]
        if isinstance(expected, tuple) and isinstance(value, list | tuple):
            values[name] = tuple(value)
        elif isinstance(expected, Mapping) and isinstance(value, Mapping):
            values[name] = dict(value)
        elif _fits(value, expected) or (expected is None and type(value) is int):
            values[name] = value
        else:
            faults.append(f"{where}.{key} is {value!r} ({type(value).__name__}); expected {_describe(expected)}")
    options = kind(**{**defaults, **values})
    return options, faults + options.faults()


def _fits(value: Any, example: Any) -> bool:
    return type(value) is type(example) or (isinstance(example, float) and type(value) is int)


def _describe(example: Any) -> str:
    if example is None:
        return "an integer"
    if isinstance(example, tuple | list):
        return "a list"
    if isinstance(example, Mapping):
        return "a mapping"
    return f"a value like {example!r}"
