"""Turns `JOINT_SSL.MICRO_BATCHES` into the training step that does it, or says why it cannot be done."""

from __future__ import annotations

from vissl.config import AttrDict

from vissl_jointssl.plugin.options import RunOptions

VISSLS_STEP = "standard_train_step"
OUR_STEP = "accumulated_train_step"


def complete_accumulation(cfg: AttrDict, run: RunOptions) -> list[str]:
    """Set `TRAINER.TRAIN_STEP_NAME`, in place, when the batch comes in parts; returns faults, in words."""
    parts = run.micro_batches
    if parts <= 1:
        return []
    key = f"JOINT_SSL.MICRO_BATCHES is {parts}"
    if run.stage not in (2, 3):
        return [f"{key}, but only stages 2 and 3 take their batch in parts; leave it out"]
    faults = []
    volumes = cfg.DATA.TRAIN.BATCHSIZE_PER_REPLICA
    if volumes % parts:
        faults.append(
            f"{key} and DATA.TRAIN.BATCHSIZE_PER_REPLICA is {volumes}: every part must have as many volumes; "
            "make one a multiple of the other"
        )
    if not cfg.DATA.TRAIN.DROP_LAST:
        faults.append(f"{key}, so every batch must be full; set config.DATA.TRAIN.DROP_LAST=True")
    if cfg.DISTRIBUTED.MANUAL_GRADIENT_REDUCTION:
        faults.append(f"{key}, which needs DDP's own reduction; set config.DISTRIBUTED.MANUAL_GRADIENT_REDUCTION=False")
    if cfg.TRAINER.TRAIN_STEP_NAME not in (VISSLS_STEP, OUR_STEP):
        faults.append(f"{key}, which is done by {OUR_STEP}; leave config.TRAINER.TRAIN_STEP_NAME as it is")
    cfg.TRAINER["TRAIN_STEP_NAME"] = OUR_STEP
    return faults
