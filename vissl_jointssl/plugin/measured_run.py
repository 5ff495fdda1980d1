"""The launcher of `jointssl train --plan`: a stage's run as it would be, for a few steps, from random weights.

What is measured has the stage's own data, config, hooks and ranks. Only a data set that is clustered before the first
step is cut to what the steps and the clusters need: the pass over all of it would take longer than the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from classy_vision.hooks import ClassyHook
from vissl.config import AttrDict
from vissl.utils.checkpoint import get_checkpoint_folder
from vissl.utils.hydra_config import convert_to_attrdict
from vissl.utils.logger import setup_logging

from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import refuse_missing_values
from vissl_jointssl.plugin.data_config import training_samples
from vissl_jointssl.plugin.hooks import hook_generator
from vissl_jointssl.plugin.hooks.step_measures import StepMeasuresHook
from vissl_jointssl.plugin.launch import command_line, compose, launch_on_this_node
from vissl_jointssl.run_signs import STEP_MEASURES_FILE

WARM_UP_STEPS = 2  # libraries choose their kernels and allocators grow
MEASURED_STEPS = 3
_NOBODYS_FILE = "random weights"
_NEVER = 10**9
CLUSTERING_LOSSES = ("deepclusterv2_loss", "inter_deepclusterv2_loss")


def main(overrides: list[str]) -> None:
    """Measure what the overrides describe, here, and leave `STEP_MEASURES_FILE` in `CHECKPOINT.DIR`.

    Args:
        overrides: Hydra's, as for `launch.main`; `MODEL.WEIGHTS_INIT.PARAMS_FILE` may be missing in any stage.

    Raises:
        ValueError: As `launch.main`.
    """
    setup_logging(__name__)
    here = [*overrides, "config.DISTRIBUTED.NUM_NODES=1", "config.DISTRIBUTED.RUN_ID=auto"]
    config = read_unstarted(here)
    samples = training_samples(config)
    limit = enough_samples(config, samples)
    if limit is not None:
        config = read_unstarted([*here, f"config.DATA.TRAIN.DATA_LIMIT={limit}"])
    facts = facts_of(config, samples, limit)
    config.CHECKPOINT["CHECKPOINT_FREQUENCY"] = _NEVER
    config.CHECKPOINT["CHECKPOINT_ITER_FREQUENCY"] = -1
    launch_on_this_node(config, node_id=0, engine_name="train", hooks=partial(measuring_hooks, facts=facts))


def measuring_hooks(cfg: AttrDict, facts: Mapping[str, Any]) -> list[ClassyHook]:
    """All hooks of the run, behind the one that measures them."""
    out = Path(get_checkpoint_folder(cfg)) / STEP_MEASURES_FILE
    return [StepMeasuresHook(out, WARM_UP_STEPS + MEASURED_STEPS, facts), *hook_generator(cfg)]


def read_unstarted(overrides: list[str]) -> AttrDict:
    """Compose, check and complete a config whose run may start from nothing; a file that is named is checked."""
    composed = compose(overrides)
    start = composed.config.MODEL.WEIGHTS_INIT
    if not start.PARAMS_FILE:
        start.PARAMS_FILE = _NOBODYS_FILE
        refuse_missing_values(composed)
        start.PARAMS_FILE = ""
    else:
        refuse_missing_values(composed)
    _, config = convert_to_attrdict(composed)
    return prepare(config)


def enough_samples(config: AttrDict, samples: int | None) -> int | None:
    """How many samples to measure on, where the loss clusters them before the first step; None for all."""
    if config.LOSS.name not in CLUSTERING_LOSSES or samples is None:
        return None
    batch, ranks = config.DATA.TRAIN.BATCHSIZE_PER_REPLICA, config.DISTRIBUTED.NUM_PROC_PER_NODE
    # VISSL's loss draws first centroids from one rank's share of whole batches.
    batches = max(WARM_UP_STEPS + MEASURED_STEPS, math.ceil(max(config.LOSS[config.LOSS.name].num_clusters) / batch))
    return batches * batch * ranks if batches * batch * ranks < samples else None


def facts_of(config: AttrDict, samples: int | None, limit: int | None) -> dict[str, Any]:
    """What an estimate needs to know of a run; for `StepMeasuresHook`.

    `samples` N, None where only VISSL knows; `measured_samples`, of them, or None for all; `batch` of a rank.
    """
    return {
        "samples": samples,
        "measured_samples": limit,
        "batch": config.DATA.TRAIN.BATCHSIZE_PER_REPLICA,
        "drop_last": config.DATA.TRAIN.DROP_LAST,
        "epochs": config.OPTIMIZER.num_epochs,
        "workers": config.DATA.NUM_DATALOADER_WORKERS,
        "checkpoint_every_epochs": config.CHECKPOINT.CHECKPOINT_FREQUENCY,
        "checkpoint_every_steps": config.CHECKPOINT.CHECKPOINT_ITER_FREQUENCY,
        "warm_up": WARM_UP_STEPS,
        "is_gpu": config.MACHINE.DEVICE == "gpu",
    }


if __name__ == "__main__":
    command_line(main)
