"""Our hooks, and the generator that hands them to VISSL's engine.

VISSL 0.1.6 has no registry for hooks: its programs pass a generator (vissl/utils/distributed_launcher.py:59).
"""

from __future__ import annotations

from pathlib import Path

from classy_vision.hooks import ClassyHook
from vissl.config import AttrDict
from vissl.hooks import default_hook_generator
from vissl.utils.checkpoint import get_checkpoint_folder

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.plugin.hooks.staged_training import StagedTrainingHook


def hook_generator(cfg: AttrDict) -> list[ClassyHook]:
    """VISSL's default hooks, and ours in front: what ours change must be in the checkpoint that theirs write."""
    hooks: list[ClassyHook] = []
    if cfg.LOSS.name == "inter_swav_loss":
        hooks.append(InterPrototypesHook())
    if "JOINT_SSL" in cfg:
        if cfg.JOINT_SSL.get("RECORD"):
            parent = cfg.MODEL.WEIGHTS_INIT.PARAMS_FILE
            record = StageRecord.from_dict(cfg.JOINT_SSL.RECORD)
            hooks.append(StagedTrainingHook(record, Path(parent) if parent else None))
        hooks.append(ProgressHook(Path(get_checkpoint_folder(cfg))))
    return hooks + default_hook_generator(cfg)
