"""`MODEL.TRUNK.JOINT_SSL` of a run against its stage, its views and its record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from vissl.config import AttrDict
from vissl.models.trunks import get_model_trunk

from vissl_jointssl.checkpoints import Checkpoint, CheckpointError, StageRecord
from vissl_jointssl.models.attention_axis import volume_encoder_options
from vissl_jointssl.models.slice_encoder import embedding_width
from vissl_jointssl.plugin.config_faults import TRUNK_SECTION, VIEW_TRANSFORMS
from vissl_jointssl.plugin.options import RunOptions, TrunkOptions
from vissl_jointssl.views import ViewRecipe


def complete_trunk(cfg: AttrDict, run: RunOptions, trunk: TrunkOptions) -> tuple[TrunkOptions, list[str]]:
    """The trunk's options with what the rest of the config decides, and what is wrong between the two.

    Along the embedding axis the slices are channels: their number is the views' `num_slices`, unless it is given.
    """
    faults = []
    if not trunk.slice_projection:
        faults.append(f"{TRUNK_SECTION}.SLICE_PROJECTION is False; only evaluations do without it: remove it")
    if trunk.attention_axis == "none" and run.stage == 2:
        faults.append(
            f"{TRUNK_SECTION}.ATTENTION_AXIS is 'none', but stage 2 trains f_inter to see hidden slices in the others; "
            "go from stage 1 to stage 3 with config.JOINT_SSL.SKIP_STAGE_2=True"
        )
    if trunk.attention_axis == "none" and run.stage == 3 and not run.skip_stage_2:
        faults.append(
            f"{TRUNK_SECTION}.ATTENTION_AXIS is 'none', so there is no stage 2 to start from; set "
            "config.JOINT_SSL.SKIP_STAGE_2=True and give stage 1's checkpoint"
        )
    if trunk.attention_axis == "embedding" and "slices" not in trunk.volume_encoder:
        counts = view_slices(cfg, "TRAIN")
        if counts:
            known_faults = trunk.faults()
            trunk = replace(trunk, volume_encoder={**trunk.volume_encoder, "slices": counts[0]})
            faults += [fault for fault in trunk.faults() if fault not in known_faults]
    return trunk, faults + slice_faults(cfg, trunk.attention_axis, trunk.volume_encoder, ["TRAIN"])


def slice_faults(cfg: AttrDict, attention_axis: str, options: Any, splits: list[str]) -> list[str]:
    """Views whose number of slices f_inter does not read; only the embedding axis minds."""
    if attention_axis != "embedding":
        return []
    wanted = volume_encoder_options(attention_axis, {})["slices"] if "slices" not in options else options["slices"]
    return [
        f"config.DATA.{split}.TRANSFORMS have num_slices {count}, but f_inter along the embedding axis reads exactly "
        f"{wanted} slices; set num_slices to {wanted}"
        for split in splits
        for count in view_slices(cfg, split)
        if count != wanted
    ]


def view_slices(cfg: AttrDict, split: str) -> list[int]:
    """`num_slices` of each of our view transforms of a split."""
    transforms = cfg.DATA[split].TRANSFORMS
    return [
        transform.get("num_slices", ViewRecipe().num_slices)
        for transform in transforms
        if transform["name"] in VIEW_TRANSFORMS
    ]


def weight_names(cfg: AttrDict) -> list[str]:
    """Names of every weight and buffer of the trunk that a completed config builds; none of them is drawn."""
    name = cfg.MODEL.TRUNK.NAME
    with torch.device("meta"):
        return list(get_model_trunk(name)(cfg.MODEL, name).state_dict())


def with_trunk(record: StageRecord, trunk: TrunkOptions) -> StageRecord:
    """The record of a run with this trunk; every option is written down, also those left at their defaults."""
    options = volume_encoder_options(trunk.attention_axis, trunk.volume_encoder)
    return replace(
        record,
        levels=trunk.levels,
        slice_embedding_width=embedding_width(trunk.levels),
        embedding_width=trunk.embedding_width,
        volume_encoder={"attention_axis": trunk.attention_axis, **options},
    )


def with_whole_record(parent: Checkpoint) -> Checkpoint:
    """The checkpoint with every option of f_inter in its record: older ones name neither the axis nor defaults.

    Raises:
        CheckpointError: If the record names an axis or an option that does not exist.
    """
    if parent.record is None or parent.record.volume_encoder is None:
        return parent
    options = dict(parent.record.volume_encoder)
    axis = options.pop("attention_axis", "slice")  # before there was a choice
    try:
        whole = {"attention_axis": axis, **volume_encoder_options(axis, options)}
    except ValueError as error:
        raise CheckpointError(
            f"{parent.path}: its record describes no f_inter of this version ({error}); it was written by version "
            f"{parent.record.version} of vissl_jointssl, read it with that one"
        ) from error
    return replace(parent, record=replace(parent.record, volume_encoder=whole))


def trunk_section(record: StageRecord) -> dict[str, Any]:
    """`MODEL.TRUNK.JOINT_SSL` that rebuilds the trunk of a record."""
    options = dict(record.volume_encoder or {})
    return {
        "LEVELS": list(record.levels or ()),
        "EMBEDDING_WIDTH": record.embedding_width,
        "ATTENTION_AXIS": options.pop("attention_axis", "slice"),
        "VOLUME_ENCODER": options,
    }
