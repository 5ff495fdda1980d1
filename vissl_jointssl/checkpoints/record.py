"""What a run writes into its checkpoints about itself, and the error of everything that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, what was found and what to do next."""


@dataclass(frozen=True)
class StageRecord:
    """What a training run writes into its own checkpoints about itself; plain types, so any reader can load it.

    Attributes:
        stage: 1, 2 or 3.
        flavour: ``swav`` or ``deepclusterv2``.
        parent: SHA-256 of the checkpoint file that training started from, or None at stage 1.
        parent_stage: Stage of that file, or None.
        slice_embedding_width: E, width of the concatenated multi-level slice embedding; None at stage 1.
        embedding_width: D, width of f_inter; None at stage 1.
        levels: ResNet levels that make up E, in order, such as ``("res1", ..., "res5")``; None at stage 1.
        volume_encoder: ``attention_axis`` (absent in old records: the slices) and every option of that axis' f_inter;
            None at stage 1.
        manifest: Fingerprint of the manifest of the training data.
        version: Version of this package.
    """

    stage: int
    flavour: str
    parent: str | None = None
    parent_stage: int | None = None
    slice_embedding_width: int | None = None
    embedding_width: int | None = None
    levels: tuple[str, ...] | None = None
    volume_encoder: dict[str, Any] | None = None
    manifest: str | None = None
    version: str = "unknown"

    def to_dict(self) -> dict[str, Any]:
        """The record as numbers, strings, lists and None, which ``torch.load(weights_only=True)`` accepts."""
        plain = dataclasses.asdict(self)
        plain["levels"] = None if self.levels is None else list(self.levels)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> StageRecord:
        """The inverse of ``to_dict``.

        Raises:
            CheckpointError: If keys are missing or unknown, or a value has the wrong type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        missing, unknown = sorted({"stage", "flavour"} - plain.keys()), sorted(map(str, plain.keys() - known))
        if missing or unknown:
            raise CheckpointError(
                f"the stage record has missing keys {missing} and unknown keys {unknown}; "
                f"it was written by version {plain.get('version', 'unknown')} of vissl_jointssl, read it with that one"
            )
        if not isinstance(plain["stage"], int) or not isinstance(plain["flavour"], str):
            raise CheckpointError(
                f"the stage record says stage={plain['stage']!r}, flavour={plain['flavour']!r}; "
                "expected an integer and a string; train that stage again"
            )
        levels, options = plain.get("levels"), plain.get("volume_encoder")
        if not isinstance(levels, list | tuple | None) or not isinstance(options, dict | None):
            raise CheckpointError(
                f"the stage record says levels={levels!r}, volume_encoder={options!r}; "
                "expected a list and a mapping; train that stage again"
            )
        return cls(**{**plain, "levels": None if levels is None else tuple(levels)})
