"""Starting the ranks of one node: failures and interrupts reach the caller, and every process knows the plugin."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classy_vision.hooks import ClassyHook
from iopath.common.file_io import g_pathmgr
from vissl.config import AttrDict
from vissl.utils import distributed_launcher
from vissl.utils.checkpoint import get_checkpoint_folder
from vissl.utils.env import set_env_vars
from vissl.utils.logger import setup_logging, shutdown_logging
from vissl.utils.misc import get_dist_run_id
from vissl.utils.slurm import get_node_id

from vissl_jointssl.checkpoints import LINK_NAME, checkpoint_to_resume, damage, is_finished
from vissl_jointssl.plugin.compat.patching import replace_everywhere
from vissl_jointssl.plugin.compat.ranks import run_here, spawn_ranks
from vissl_jointssl.plugin.stop_signals import Board, obey
from vissl_jointssl.run_signs import STOP_PIPE

HookGenerator = Callable[[Any], list[ClassyHook]]

_vissl_launch_distributed = distributed_launcher.launch_distributed
_ENGINES_WITHOUT_TRAINING = ("extract_features", "extract_cluster")


def replace_launch_distributed() -> None:
    """``vissl/utils/distributed_launcher.py:161`` formats its error message wrongly and drops Ctrl-C (by design).

    The replacement also spawns a function of this package: what a spawned rank unpickles first then imports the
    plugin, and with it every other replacement, whatever program started the run.
    """
    replace_everywhere(_vissl_launch_distributed, launch_distributed)


def preload_plugin_in_workers() -> None:
    """Data loader workers come from a fork server (VISSL's default), which starts without the plugin.

    They unpickle VISSL's data set first, whose import needs the replacements. Loaded once in the fork server, the
    plugin is in every worker, and a worker starts in a fraction of a second.
    """
    multiprocessing.set_forkserver_preload(["__main__", "vissl_jointssl.plugin"])


def launch_distributed(cfg: AttrDict, node_id: int, engine_name: str, hook_generator: HookGenerator) -> None:
    """Run an engine on this node, one process per rank, and wait for it.

    Args:
        cfg: The run's config (``cfg.config`` of what Hydra composed).
        node_id: Which of ``DISTRIBUTED.NUM_NODES`` nodes this is, from 0; SLURM's own number wins.
        engine_name: ``train``, ``extract_features``, ``extract_cluster`` or one of the plugin's.
        hook_generator: Called in every rank; must be importable by name.

    Raises:
        FileNotFoundError: If the file to start the weights from does not exist.
        Exception: Whatever a rank raised; with several ranks, with its traceback as text.
        Stopped: If the run was asked to stop, and has (`plugin.stop_signals`).
    """
    relay = int(os.environ.pop(STOP_PIPE)) if STOP_PIPE in os.environ else None  # no other process has it open
    setup_logging(__name__)
    node_id = get_node_id(node_id)
    run_id = get_dist_run_id(cfg, cfg.DISTRIBUTED.NUM_NODES)
    set_env_vars(local_rank=0, node_id=node_id, cfg=cfg)
    folder = get_checkpoint_folder(cfg)
    trains = engine_name not in _ENGINES_WITHOUT_TRAINING
    if trains and not cfg.CHECKPOINT.OVERWRITE_EXISTING and is_finished(folder):
        logging.info(f"Training already succeeded on node: {node_id}, exiting.")
        return
    checkpoint = _checkpoint_to_resume(cfg, folder, first_node=node_id == 0) if trains else None
    weights = cfg.MODEL.WEIGHTS_INIT.PARAMS_FILE
    if checkpoint is None and weights and not g_pathmgr.exists(weights):
        raise FileNotFoundError(
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE={weights} does not exist; name a checkpoint to start from"
        )
    distributed_launcher._copy_to_local(cfg)
    try:
        arguments = (cfg, node_id, run_id, engine_name, checkpoint, folder, hook_generator)
        # Engines without training steps, and stock configs, have nobody who would look at the board.
        board = Board() if engine_name == "train" and "JOINT_SSL" in cfg else None
        if board is None and relay is not None:
            obey(relay)
        if cfg.DISTRIBUTED.NUM_NODES * cfg.DISTRIBUTED.NUM_PROC_PER_NODE > 1:
            spawn_ranks(cfg.DISTRIBUTED.NUM_PROC_PER_NODE, arguments, board, relay)
        else:
            run_here(arguments, board, relay)
    finally:
        distributed_launcher._cleanup_local_dir(cfg)
    logging.info("All Done!")
    shutdown_logging()


def _checkpoint_to_resume(cfg: AttrDict, folder: str, first_node: bool) -> str | None:
    """The checkpoint that training goes on from, or None; damaged ones are set aside by the first node.

    ``vissl/utils/checkpoint.py:503-612`` takes any ``*.torch`` file for a checkpoint and any ``model_final*`` for a
    final one, looks for no ``model_phase*`` where checkpoints within an epoch are asked for as well, and opens none of
    them.

    Raises:
        CheckpointError: If there are checkpoints, but none is whole.
    """
    options = cfg.CHECKPOINT
    link = Path(folder) / LINK_NAME
    follows_link = options.USE_SYMLINK_CHECKPOINT_FOR_RESUME and (link.is_symlink() or link.exists())
    if follows_link and damage(link.resolve()) is None:
        return str(link)
    if not options.AUTO_RESUME and not follows_link:
        return None
    found = checkpoint_to_resume(
        folder,
        final=not options.OVERWRITE_EXISTING,
        # Where nobody asked for checkpoints within an epoch, stock VISSL leaves one when an output is not finite.
        within_epochs=options.CHECKPOINT_ITER_FREQUENCY > 0 or "JOINT_SSL" in cfg,
        nth=options.LATEST_CHECKPOINT_RESUME_FILE_NUM,
        sets_aside=first_node,
    )
    logging.info(
        f"No checkpoint in {folder}; starting from the beginning" if found is None else f"Resume from file: {found}"
    )
    return None if found is None else str(found)
