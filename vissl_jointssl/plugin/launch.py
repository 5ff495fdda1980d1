"""The launcher: from overrides on the command line to an engine that runs.

A drop-in for VISSL's ``tools/run_distributed_engines.py``, with our registrations, configs and hooks.
"""

from __future__ import annotations

import difflib
import logging
import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from classy_vision.hooks import ClassyHook
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from vissl.config import AttrDict
from vissl.utils.distributed_launcher import launch_distributed
from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict
from vissl.utils.logger import setup_logging

from vissl_jointssl.plugin import slurm
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import refuse_missing_values
from vissl_jointssl.plugin.failure import cause_of
from vissl_jointssl.plugin.hooks import hook_generator
from vissl_jointssl.plugin.search_path import register_search_path
from vissl_jointssl.plugin.stop_signals import Stopped
from vissl_jointssl.run_signs import LAST_WORDS

HookGenerator = Callable[[AttrDict], list[ClassyHook]]

CPU_OVERRIDES = "config.MACHINE.DEVICE=cpu config.DISTRIBUTED.BACKEND=gloo"


def main(overrides: list[str]) -> None:
    """Compose a config, complete it, and run the engine it names, here or on SLURM.

    Args:
        overrides: Hydra's, as on the command line: ``["config=jointssl/stage1_swav", "config.SEED_VALUE=1"]``.

    Raises:
        ValueError: If the config is unknown or does not fit the machine.
    """
    setup_logging(__name__)
    logging.info(f"overrides: {overrides}")
    args, config = read_config(overrides)
    if config.SLURM.USE_SLURM:
        slurm.submit(config, engine_name=args.engine_name)
    else:
        launch_on_this_node(config, node_id=args.node_id, engine_name=args.engine_name)


def read_config(overrides: list[str]) -> tuple[Any, AttrDict]:
    """Compose, infer, check and complete a config.

    Args:
        overrides: Hydra's.

    Returns:
        What is beside the config (``engine_name``, ``node_id``), and the run's config.

    Raises:
        ValueError: If the config is unknown or has a fault.
    """
    composed = compose(overrides)
    refuse_missing_values(composed)
    args, config = convert_to_attrdict(composed)
    return args, prepare(config)


def launch_on_this_node(
    config: AttrDict, node_id: int, engine_name: str, hooks: HookGenerator = hook_generator
) -> None:
    """Run an engine on this machine, and wait for it.

    Args:
        config: The run's config, completed by VISSL and by us.
        node_id: Which node of the run this is, from 0.
        engine_name: ``train``, ``extract_features``, ``extract_cluster`` or one of ours.
        hooks: Makes them, in every rank; ours and VISSL's by default.
    """
    setup_logging(__name__)
    fit_to_machine(config)
    launch_distributed(cfg=config, node_id=node_id, engine_name=engine_name, hook_generator=hooks)


def compose(overrides: list[str]) -> DictConfig:
    """Compose the config that the overrides describe, on top of VISSL's defaults.

    Args:
        overrides: Hydra's.

    Returns:
        The whole config: ``config``, ``engine_name``, ``node_id``.

    Raises:
        ValueError: If no config is named, or one that does not exist.
    """
    register_search_path()
    if not any(override.lstrip("+").startswith("config=") for override in overrides):
        raise ValueError(f"no config is named in {overrides}; say for example config=pretrain/swav/swav_8node_resnet")
    try:
        with warnings.catch_warnings():
            # VISSL names no version_base, and Hydra is pinned below 1.4: nothing for the user to act on.
            warnings.filterwarnings("ignore", message=r"\s*The version_base parameter is not specified")
            return compose_hydra_configuration(overrides)
    except MissingConfigException as error:
        wanted = str(error.missing_cfg_file).removeprefix("config/")
        near = difflib.get_close_matches(wanted, config_names(), n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see configs/config for the names"
        raise ValueError(f"config {wanted!r} does not exist{hint}") from None


def config_names() -> list[str]:
    """Every name that ``config=`` takes, sorted: stock ones, ours, and those under the working directory."""
    register_search_path()
    with initialize_config_module(config_module="vissl.config", version_base=None):
        loader = GlobalHydra.instance().config_loader()
        names: list[str] = []
        groups = ["config"]
        while groups:
            group = groups.pop()
            names += [f"{group}/{name}" for name in loader.get_group_options(group, ObjectType.CONFIG)]
            groups += [f"{group}/{name}" for name in loader.get_group_options(group, ObjectType.GROUP)]
    return sorted(name.removeprefix("config/") for name in names)


def fit_to_machine(config: AttrDict) -> None:
    """Change what cannot work on this machine, one log line each, and refuse what only the user can decide.

    Args:
        config: The run's config; changed in place.

    Raises:
        ValueError: If the config needs GPUs that are not there, or several nodes without an address to meet at.
    """
    distributed, ranks = config.DISTRIBUTED, config.DISTRIBUTED.NUM_PROC_PER_NODE
    if config.MACHINE.DEVICE == "gpu":
        if not torch.cuda.is_available():
            raise ValueError(f"config.MACHINE.DEVICE=gpu, but PyTorch sees no GPU; to run on CPU add {CPU_OVERRIDES}")
        if ranks > torch.cuda.device_count():
            raise ValueError(
                f"config.DISTRIBUTED.NUM_PROC_PER_NODE={ranks}, but this machine has {torch.cuda.device_count()} "
                f"GPUs; set it to that number or less"
            )
    else:
        if distributed.BACKEND == "nccl":
            logging.info("Backend: gloo, because nccl needs GPUs and config.MACHINE.DEVICE=cpu")
            distributed.BACKEND = "gloo"
        if config.DATA.PIN_MEMORY:
            logging.info("Pinned memory: off, because config.MACHINE.DEVICE=cpu")
            config.DATA.PIN_MEMORY = False
    if distributed.INIT_METHOD == "tcp" and not _is_meeting_point(distributed.RUN_ID):
        if distributed.NUM_NODES > 1:
            raise ValueError(
                f"config.DISTRIBUTED.RUN_ID={distributed.RUN_ID} is no address for {distributed.NUM_NODES} nodes to "
                f"meet at: set it to <host of node 0>:<free port>, or set config.DISTRIBUTED.NUM_NODES=1"
            )
        if distributed.RUN_ID != "auto":
            logging.info(f"Run id: auto instead of {distributed.RUN_ID!r}, because config.DISTRIBUTED.NUM_NODES=1")
            distributed.RUN_ID = "auto"


def _is_meeting_point(run_id: str) -> bool:
    """Whether this is ``host:port``."""
    host, _, port = str(run_id).rpartition(":")
    return bool(host) and port.isdigit()


def command_line(program: Callable[[list[str]], object] = main) -> None:
    """Run a program on the command line's overrides.

    A failure ends with its cause in one line, and exit code 1. A run that was asked to stop ends with what it goes on
    from, and exit code 75, or 130 after Ctrl-C (`run_signs`).
    """
    sys.excepthook = _report_failure
    try:
        program(sys.argv[1:])
    except Stopped as stopped:
        _say_last(stopped.said)
        raise


def _report_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback as ever, then what matters; an error of ours for bad input says all there is to say."""
    ours = kind.__module__.startswith("vissl_jointssl.")
    if not ours:
        sys.__excepthook__(kind, error, trace)
    _say_last(str(error) if ours else cause_of(error))


def _say_last(words: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{LAST_WORDS}{words}\n")


if __name__ == "__main__":
    command_line()
