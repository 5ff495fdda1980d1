"""Our hooks, and the generator that hands them to VISSL's engine.

VISSL 0.1.6 has no registry for hooks: its programs pass a generator (vissl/utils/distributed_launcher.py:59).
"""

from __future__ import annotations

from pathlib import Path

from classy_vision.hooks import ClassyHook
from vissl.config import AttrDict
from vissl.hooks import CheckNanLossHook, CheckNanModelOutputHook, default_hook_generator
from vissl.hooks.log_hooks import LogLossMetricsCheckpointHook
from vissl.utils.checkpoint import get_checkpoint_folder

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.plugin.collapse_limits import CollapseOptions
from vissl_jointssl.plugin.hooks.cluster_memory import InterClusterMemoryHook
from vissl_jointssl.plugin.hooks.collapse_monitor import CollapseMonitorHook
from vissl_jointssl.plugin.hooks.data_wait import DATA_WAIT_FILE, DataWaitHook
from vissl_jointssl.plugin.hooks.finite_numbers import FiniteNumbersHook
from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.hooks.masked_baselines import MaskedBaselinesHook
from vissl_jointssl.plugin.hooks.measure_log import MeasureLog
from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.plugin.hooks.run_state import RunStateHook
from vissl_jointssl.plugin.hooks.staged_training import StagedTrainingHook
from vissl_jointssl.plugin.hooks.stop_on_request import StopOnRequestHook
from vissl_jointssl.plugin.number_limits import NumberOptions
from vissl_jointssl.plugin.options import read_options
from vissl_jointssl.run_signs import COLLAPSE_FILE, MASKED_BASELINES_FILE

CLUSTERING_LOSSES = ("inter_swav_loss", "inter_deepclusterv2_loss")  # of volumes, watched for collapse


def hook_generator(cfg: AttrDict) -> list[ClassyHook]:
    """VISSL's default hooks, and ours in front: what ours change must be in the checkpoint that theirs write."""
    hooks: list[ClassyHook] = []
    stock = default_hook_generator(cfg)
    if cfg.LOSS.name == "inter_swav_loss":
        hooks.append(InterPrototypesHook())
    joint = cfg.get("JOINT_SSL") or {}
    collapse, _ = read_options(CollapseOptions, joint.get("COLLAPSE", {}), "JOINT_SSL.COLLAPSE")
    if cfg.LOSS.name == "inter_deepclusterv2_loss":
        hooks.append(InterClusterMemoryHook(collapse.recognition))
    if "JOINT_SSL" in cfg:
        if cfg.JOINT_SSL.get("RECORD"):
            parent = cfg.MODEL.WEIGHTS_INIT.PARAMS_FILE
            record = StageRecord.from_dict(cfg.JOINT_SSL.RECORD)
            hooks.append(StagedTrainingHook(record, Path(parent) if parent else None))
        folder = Path(get_checkpoint_folder(cfg))
        progress, stop = ProgressHook(folder), StopOnRequestHook()
        if cfg.JOINT_SSL.get("STAGE") is not None:
            numbers, _ = read_options(NumberOptions, cfg.JOINT_SSL.get("NUMBERS") or {}, "JOINT_SSL.NUMBERS")
            # First: what it undoes and skips, no other hook should have built upon.
            hooks.insert(0, FiniteNumbersHook(numbers, folder, progress, stop))
            # One rank alone would stop in these, at the first time, while the others wait for it.
            stock = [hook for hook in stock if not isinstance(hook, CheckNanLossHook | CheckNanModelOutputHook)]
        hooks.insert(0, stop)  # so that no step begins, nor any hook's part of it, once the run has to stop
        if cfg.LOSS.name == "masked_embedding_loss":
            hooks.append(MaskedBaselinesHook(MeasureLog(cfg, MASKED_BASELINES_FILE, "MaskedBaselines"), progress))
        if cfg.LOSS.name in CLUSTERING_LOSSES:
            log = MeasureLog(cfg, COLLAPSE_FILE, "Collapse")
            hooks.append(CollapseMonitorHook(collapse, cfg.LOSS.name, log, progress))
        hooks.append(DataWaitHook(MeasureLog(cfg, DATA_WAIT_FILE, "Data"), progress))
        hooks.append(progress)
        # Behind whatever draws or changes something, and right before what writes.
        writer = next(place for place, hook in enumerate(stock) if isinstance(hook, LogLossMetricsCheckpointHook))
        stock.insert(writer, RunStateHook())
    return hooks + stock
