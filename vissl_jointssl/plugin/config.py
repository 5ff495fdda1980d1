"""Checks and completes the config of a run that has a `JOINT_SSL` section, before VISSL starts.

Called between VISSL's own inference and the launch. Everything that can be known without a training step is found
here and reported at once; and what VISSL fills in only for its own losses, by their names
(vissl/utils/hydra_config.py:345), is filled in for ours. A stock config passes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vissl.config import AttrDict

from vissl_jointssl import __version__
from vissl_jointssl.checkpoints import (
    SLICE_ENCODER_PREFIX,
    VOLUME_ENCODER_PREFIX,
    Checkpoint,
    CheckpointError,
    StageRecord,
    hand_over,
    read_checkpoint,
    sha256,
)
from vissl_jointssl.manifest import Manifest, ManifestError, read_manifest
from vissl_jointssl.models.slice_encoder import embedding_width
from vissl_jointssl.plugin.config_faults import TRUNK_SECTION, ConfigError, key_faults
from vissl_jointssl.plugin.inter_swav_config import complete_inter_swav
from vissl_jointssl.plugin.options import RunOptions, TrunkOptions, read_options
from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset

SOURCES: dict[str, type[VolumeDataset | SliceDataset]] = {
    "volume_dataset": VolumeDataset,
    "slice_dataset": SliceDataset,
}
STAGE_PARTS = {  # (stage, flavour): what its trunk and its loss must be called
    (1, "swav"): ("resnet", "swav_loss"),
    (2, "swav"): ("joint_trunk", "masked_embedding_loss"),
    (3, "swav"): ("joint_trunk", "inter_swav_loss"),
}
# What VISSL infers for its own losses by their names, for ours: completes the config, given D, and returns faults.
LOSS_COMPLETIONS: dict[str, Callable[[AttrDict, int], list[str]]] = {"inter_swav_loss": complete_inter_swav}


def prepare(cfg: AttrDict) -> AttrDict:
    """Check a composed config and complete it in place.

    Raises:
        ConfigError: With every fault, each naming its key or file and the next step.
    """
    if "JOINT_SSL" not in cfg:
        return cfg
    faults = key_faults(cfg)
    run, run_faults = read_options(RunOptions, cfg.JOINT_SSL, "JOINT_SSL")
    trunk, trunk_faults = read_options(TrunkOptions, cfg.MODEL.TRUNK.get("JOINT_SSL", {}), TRUNK_SECTION)
    faults += run_faults + trunk_faults
    parent, parent_faults = _read_parent(cfg)
    manifests, data_faults = _read_data(cfg)
    faults += parent_faults + data_faults
    if not run_faults:
        if run.purpose == "evaluate":
            faults += _complete_evaluation(cfg, parent, manifests)
        else:
            faults += _complete_stage(cfg, run, trunk, parent, manifests)
    if faults:
        raise ConfigError(faults)
    return cfg


def _read_parent(cfg: AttrDict) -> tuple[Checkpoint | None, list[str]]:
    path = cfg.MODEL.WEIGHTS_INIT.PARAMS_FILE
    if not path:
        return None, []
    try:
        return read_checkpoint(path), []
    except CheckpointError as error:
        return None, [f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE: {error}"]


def _read_data(cfg: AttrDict) -> tuple[list[Manifest], list[str]]:
    """Open every data source of ours as training will, so that what is wrong with a file is known before."""
    manifests, faults = [], []
    for split in ["TRAIN", "TEST"] if cfg.TEST_MODEL else ["TRAIN"]:
        section = cfg.DATA[split]
        for source, path in zip(section.DATA_SOURCES, section.DATA_PATHS, strict=False):
            if source not in SOURCES:
                continue
            try:
                manifest = read_manifest(path)
                manifest.check_files()
                samples = len(SOURCES[source](cfg, path, split, "", source))
            except ManifestError as error:
                faults.append(f"config.DATA.{split}.DATA_PATHS: {error}")
                continue
            manifests.append(manifest)
            step = section.BATCHSIZE_PER_REPLICA * cfg.DISTRIBUTED.NUM_PROC_PER_NODE * cfg.DISTRIBUTED.NUM_NODES
            if section.DROP_LAST and samples < step:
                faults.append(
                    f"one step takes {step} samples and {path} has {samples}, so an epoch would have no step; "
                    f"lower config.DATA.{split}.BATCHSIZE_PER_REPLICA"
                )
    return manifests, faults


def _complete_evaluation(cfg: AttrDict, parent: Checkpoint | None, manifests: list[Manifest]) -> list[str]:
    """The parts of a trunk are what its checkpoint says, and the classes what the manifests say."""
    classes = max((entry.label + 1 for one in manifests for entry in one.entries if entry.label is not None), default=0)
    for name, arguments in cfg.MODEL.HEAD.PARAMS:
        if name == "eval_mlp" and arguments["dims"][-1] is None:
            arguments["dims"][-1] = classes
    if parent is None:
        return []
    prefixes = [SLICE_ENCODER_PREFIX]
    if cfg.MODEL.TRUNK.NAME == "joint_trunk":
        prefixes.append(VOLUME_ENCODER_PREFIX)
        record = parent.record
        if record is not None and record.levels is not None:
            cfg.MODEL.TRUNK["JOINT_SSL"] = AttrDict(_trunk_section(record))
    return [
        f"{parent.path} has no weights called {prefix}*, which {cfg.MODEL.TRUNK.NAME} needs; "
        "give a checkpoint of stage 2 or 3"
        for prefix in prefixes
        if not any(name.startswith(prefix) for name in parent.trunk)
    ]


def _complete_stage(
    cfg: AttrDict, run: RunOptions, trunk: TrunkOptions, parent: Checkpoint | None, manifests: list[Manifest]
) -> list[str]:
    assert run.stage is not None  # RunOptions.faults
    trunk_name, loss_name = STAGE_PARTS[run.stage, run.flavour]
    faults = []
    if trunk_name != cfg.MODEL.TRUNK.NAME:
        faults.append(f"MODEL.TRUNK.NAME is {cfg.MODEL.TRUNK.NAME!r}; stage {run.stage} trains {trunk_name!r}")
    if loss_name != cfg.LOSS.name:
        faults.append(
            f"LOSS.name is {cfg.LOSS.name!r}; stage {run.stage} of flavour {run.flavour} trains {loss_name!r}"
        )
    record = StageRecord(
        stage=run.stage,
        flavour=run.flavour,
        manifest="+".join(one.fingerprint() for one in manifests) or None,
        version=__version__,
    )
    if run.stage > 1 and not trunk.faults():
        record = replace(
            record,
            levels=trunk.levels,
            slice_embedding_width=embedding_width(trunk.levels),
            embedding_width=trunk.embedding_width,
            volume_encoder=dict(trunk.volume_encoder),
        )
        cfg.MODEL.TRUNK["JOINT_SSL"] = AttrDict(
            {**_trunk_section(record), "STAGE": run.stage, "MASK_RATIO": trunk.mask_ratio}
        )
        faults += _hand_over_faults(record, run, parent)
    if parent is not None:
        record = replace(
            record, parent=sha256(parent.path), parent_stage=parent.record.stage if parent.record else None
        )
    if not faults and loss_name in LOSS_COMPLETIONS:
        faults += LOSS_COMPLETIONS[loss_name](cfg, trunk.embedding_width)
    cfg.JOINT_SSL["RECORD"] = record.to_dict()
    return faults


def _hand_over_faults(record: StageRecord, run: RunOptions, parent: Checkpoint | None) -> list[str]:
    if parent is None:
        return []  # unset or unreadable, and said so
    try:
        hand_over(parent, record, skip_stage_2=run.skip_stage_2, allow_unrecorded=run.allow_unrecorded_parent)
    except CheckpointError as error:
        return [str(error)]
    return []


def _trunk_section(record: StageRecord) -> dict[str, Any]:
    return {
        "LEVELS": list(record.levels or ()),
        "EMBEDDING_WIDTH": record.embedding_width,
        "VOLUME_ENCODER": dict(record.volume_encoder or {}),
    }
