"""Whether one stage may start from another stage's checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from torch import Tensor

from vissl_jointssl.checkpoints.reading import (
    COUNTER,
    SLICE_ENCODER_PREFIX,
    SLICE_PROJECTION,
    VOLUME_ENCODER_PREFIX,
    Checkpoint,
)
from vissl_jointssl.checkpoints.record import CheckpointError, StageRecord

logger = logging.getLogger(__name__)

JOINT_PREFIXES = (SLICE_PROJECTION.removesuffix("weight"), VOLUME_ENCODER_PREFIX)  # what stage 2 adds to f_intra
SIZES = ("levels", "slice_embedding_width", "embedding_width", "volume_encoder")  # a parent and child share these


def hand_over(
    parent: Checkpoint,
    child: StageRecord,
    names: Collection[str],
    *,
    skip_stage_2: bool = False,
    mixed_flavours: bool = False,
    allow_unrecorded: bool = False,
) -> None:
    """Check that a stage may start from ``parent``; VISSL itself only logs layers it did not find.

    Args:
        parent: The checkpoint to start from.
        child: The stage about to start, 2 or 3, with its flavour and sizes.
        names: Of every weight and buffer in the trunk of that stage. Those of the networks that the parent trained must
            be in it, all of them: a part that is not would train on from noise.
        skip_stage_2: The ablation without mask prediction (Table 6): stage 3 starts from stage 1.
        mixed_flavours: Accept a parent of the other flavour.
        allow_unrecorded: Accept a checkpoint without our record, such as one of stock VISSL; its weights are still
            checked.

    Raises:
        CheckpointError: With every reason at once: the parent's stage, flavour, sizes, or absent weights.
    """
    stage = child.stage
    if stage not in (2, 3):
        raise CheckpointError(f"stage {stage} starts from no parent ({parent.path}); only stages 2 and 3 do")
    if skip_stage_2 and stage != 3:
        raise CheckpointError(f"skip_stage_2 was given to stage {stage}; it is an ablation of stage 3 only, remove it")
    needed = 1 if stage == 2 or skip_stage_2 else 2
    faults: list[str] = []
    if parent.record is not None:
        faults += _record_faults(parent.record, child, needed, mixed_flavours)
    elif not allow_unrecorded:
        faults.append(
            f"it has no stage record, so it cannot be told from which stage it comes (needed: stage {needed}); "
            "train that stage with vissl_jointssl, or allow an unrecorded parent if you know what it is"
        )
    faults += _untrained_parts(parent.trunk, names, needed) + _wrong_projection(parent.trunk, child)
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise CheckpointError(f"{parent.path} cannot be handed over to stage {stage}:{listed}")
    if not parent.final:
        logger.warning(
            "%s is not the final checkpoint of its run; stage %d starts from it all the same", parent.path, stage
        )


def _record_faults(record: StageRecord, child: StageRecord, needed: int, mixed_flavours: bool) -> list[str]:
    faults = []
    if record.stage != needed:
        remedy = f"pass the last checkpoint of stage {needed}"
        if needed == 2 and record.stage == 1:
            remedy += ", or ask for the ablation that skips stage 2"
        faults.append(f"it comes from stage {record.stage}, needed is stage {needed}; {remedy}")
    if record.flavour != child.flavour and not mixed_flavours:
        faults.append(
            f"its flavour is {record.flavour}, this stage's is {child.flavour}; "
            f"pass a {child.flavour} checkpoint, or set config.JOINT_SSL.MIXED_FLAVOURS=True"
        )
    for name in SIZES:
        found, wanted = getattr(record, name), getattr(child, name)
        # Stage 1 trains f_intra alone: these do not exist yet.
        if found != wanted and not (found is None and record.stage == 1):
            faults.append(
                f"its {name} is {found}, this stage's is {wanted}; use one value in the configs of both stages"
            )
    return faults


def absent_weights(trunk: Mapping[str, Tensor], names: Collection[str]) -> list[str]:
    """Names that a trunk has no weight for. Counters of BatchNorm do not matter, and VISSL skips them by default."""
    return [name for name in names if name not in trunk and not name.endswith(COUNTER)]


def _untrained_parts(trunk: Mapping[str, Tensor], names: Collection[str], needed: int) -> list[str]:
    """The record is a claim; the weights are what will be loaded."""
    faults = []
    for prefix in (SLICE_ENCODER_PREFIX,) if needed == 1 else (SLICE_ENCODER_PREFIX, *JOINT_PREFIXES):
        wanted = [name for name in names if name.startswith(prefix) and not name.endswith(COUNTER)]
        absent = absent_weights(trunk, wanted)
        if absent and len(absent) == len(wanted):
            faults.append(f"its trunk has no weights called {prefix}*; pass the last checkpoint of stage {needed}")
        elif absent:
            faults.append(
                f"its trunk lacks {len(absent)} of the {len(wanted)} weights called {prefix}*, first {absent[0]}; "
                f"pass a whole checkpoint of stage {needed}, of the same network"
            )
    return faults


def _wrong_projection(trunk: Mapping[str, Tensor], child: StageRecord) -> list[str]:
    weight, projection = trunk.get(SLICE_PROJECTION), (child.embedding_width, child.slice_embedding_width)
    if weight is None or tuple(weight.shape) == projection:
        return []
    return [
        f"its {SLICE_PROJECTION} is {tuple(weight.shape)}, this stage's is (D, E) = {projection}; "
        "use one value in the configs of both stages"
    ]
