"""Our sections of a VISSL config as frozen dataclasses: what exists, its type, its default, its limits.

VISSL's classes read an untyped tree; ours get keyword arguments from here. YAML writes the names in capitals, as
VISSL does. Every reader returns its faults instead of raising, so that a config's faults are reported together.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from vissl_jointssl.models.slice_encoder import LEVEL_CHANNELS
from vissl_jointssl.models.volume_encoder import VolumeEncoder
from vissl_jointssl.spelling import nearest

STAGES = (1, 2, 3)
FLAVOURS = ("swav",)
PURPOSES = ("pretrain", "evaluate")


@dataclass(frozen=True)
class RunOptions:
    """`config.JOINT_SSL`: what the run is for.

    `stage` is the recipe's stage for `purpose: pretrain` and must stay None for `purpose: evaluate`.
    """

    purpose: str = "pretrain"
    stage: int | None = None
    flavour: str = "swav"
    skip_stage_2: bool = False  # Table 6, "w/o mask prediction": stage 3 starts from stage 1
    allow_unrecorded_parent: bool = False  # e.g. a stock VISSL checkpoint, whose stage nobody wrote down

    def faults(self) -> list[str]:
        """Everything wrong with these values, in words."""
        found = []
        if self.purpose not in PURPOSES:
            found.append(f"JOINT_SSL.PURPOSE is {self.purpose!r}; it must be one of {PURPOSES}")
        elif self.purpose == "pretrain" and self.stage not in STAGES:
            found.append(f"JOINT_SSL.STAGE is {self.stage!r}; pre-training has stages {STAGES}")
        elif self.purpose == "evaluate" and self.stage is not None:
            found.append(f"JOINT_SSL.STAGE is {self.stage!r}; an evaluation has no stage: leave it out")
        if self.flavour not in FLAVOURS:
            found.append(f"JOINT_SSL.FLAVOUR is {self.flavour!r}; known flavours: {FLAVOURS}")
        return found


@dataclass(frozen=True)
class TrunkOptions:
    """`config.MODEL.TRUNK.JOINT_SSL`: the parts that `joint_trunk` adds to VISSL's ResNet."""

    stage: int | None = None  # copied from JOINT_SSL.STAGE: a trunk sees only config.MODEL
    levels: tuple[str, ...] = ("res1", "res2", "res3", "res4", "res5")
    embedding_width: int = 640
    mask_ratio: float = 0.1
    volume_encoder: Mapping[str, Any] = field(default_factory=dict)

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
        known = set(inspect.signature(VolumeEncoder).parameters) - {"width"}
        found += [
            f"{where}.VOLUME_ENCODER.{key} is read by nothing{nearest(key, known)}"
            for key in self.volume_encoder
            if key not in known
        ]
        return found


Options = TypeVar("Options", RunOptions, TrunkOptions)


def read_options(kind: type[Options], section: Mapping[str, Any], where: str) -> tuple[Options, list[str]]:
    """Build options from a section of the config.

    Args:
        kind: `RunOptions` or `TrunkOptions`.
        section: The mapping found there, keys in capitals.
        where: Its path below `config`, for the messages.

    Returns:
        The options, defaults in place of what was wrong, and the faults.
    """
    defaults = {item.name: getattr(kind(), item.name) for item in fields(kind)}
    values: dict[str, Any] = {}
    faults = []
    for key, value in section.items():
        name = key.lower()
        if name not in defaults or key != key.upper():
            faults.append(f"{where}.{key} is read by nothing{nearest(key, [known.upper() for known in defaults])}")
            continue
        expected = defaults[name]
        fits = type(value) is type(expected) or (isinstance(expected, float) and type(value) is int)
        if isinstance(expected, tuple) and isinstance(value, list | tuple):
            values[name] = tuple(value)
        elif isinstance(expected, Mapping) and isinstance(value, Mapping):
            values[name] = dict(value)
        elif fits or (expected is None and type(value) is int):
            values[name] = value
        else:
            faults.append(f"{where}.{key} is {value!r} ({type(value).__name__}); expected {_describe(expected)}")
    options = kind(**values)
    return options, faults + options.faults()


def _describe(example: Any) -> str:
    if example is None:
        return "an integer"
    if isinstance(example, tuple):
        return "a list"
    if isinstance(example, Mapping):
        return "a mapping"
    return f"a value like {example!r}"
