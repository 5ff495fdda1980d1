"""Checks and completes the config of a run that has a `JOINT_SSL` section, before VISSL starts.

Called between VISSL's own inference and the launch. Everything that can be known without a training step is found
here and reported at once; and what VISSL fills in only for its own losses, by their names
(vissl/utils/hydra_config.py:345), is filled in for ours. A stock config passes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vissl.config import AttrDict

from vissl_jointssl import __version__
from vissl_jointssl.checkpoints import (
    Checkpoint,
    CheckpointError,
    StageRecord,
    hand_over,
    read_checkpoint,
    sha256,
)
from vissl_jointssl.manifest import Manifest
from vissl_jointssl.models.slice_encoder import LEVEL_CHANNELS
from vissl_jointssl.models.volume_cnn import WIDTH as VOLUME_CNN_WIDTH
from vissl_jointssl.plugin.accumulation_config import complete_accumulation
from vissl_jointssl.plugin.collapse_limits import CollapseOptions
from vissl_jointssl.plugin.config_faults import TRUNK_SECTION, ConfigError, key_faults
from vissl_jointssl.plugin.data_config import read_data
from vissl_jointssl.plugin.evaluation_config import complete_evaluation
from vissl_jointssl.plugin.inter_deepclusterv2_config import complete_deepclusterv2, complete_inter_deepclusterv2
from vissl_jointssl.plugin.inter_swav_config import complete_inter_swav
from vissl_jointssl.plugin.options import RunOptions, TrunkOptions, read_options
from vissl_jointssl.plugin.planned_views import view_maker_faults
from vissl_jointssl.plugin.trunk_config import (
    complete_trunk,
    trunk_section,
    weight_names,
    with_trunk,
    with_whole_record,
)
from vissl_jointssl.spelling import nearest

STAGE_PARTS = {  # (stage, flavour): what its trunk and its loss must be called
    (1, "swav"): ("resnet", "swav_loss"),
    (2, "swav"): ("joint_trunk", "masked_embedding_loss"),
    (3, "swav"): ("joint_trunk", "inter_swav_loss"),
    (1, "deepclusterv2"): ("resnet", "deepclusterv2_loss"),
    (2, "deepclusterv2"): ("joint_trunk", "masked_embedding_loss"),
    (3, "deepclusterv2"): ("joint_trunk", "inter_deepclusterv2_loss"),
}
BASELINE_TRUNKS = {  # trunk of a baseline: the data source it reads, the width it gives
    "resnet": ("slice_dataset", LEVEL_CHANNELS["res5"]),
    "volume_cnn_trunk": ("volume_dataset", VOLUME_CNN_WIDTH),
}
# What VISSL infers for its own losses by their names, for ours: completes the config, given D, and returns faults.
LOSS_COMPLETIONS: dict[str, Callable[[AttrDict, int], list[str]]] = {
    "deepclusterv2_loss": complete_deepclusterv2,
    "inter_deepclusterv2_loss": complete_inter_deepclusterv2,
    "inter_swav_loss": complete_inter_swav,
}


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
    _, collapse_faults = read_options(CollapseOptions, run.collapse, "JOINT_SSL.COLLAPSE")
    faults += run_faults + trunk_faults + collapse_faults
    parent, parent_faults = _read_parent(cfg)
    manifests, data_faults = read_data(cfg)
    faults += parent_faults + data_faults
    if not run_faults:
        faults += complete_accumulation(cfg, run) + view_maker_faults(cfg, run)
        if run.purpose == "evaluate":
            faults += complete_evaluation(cfg, parent, manifests)
        elif run.purpose == "baseline":
            faults += _complete_baseline(cfg)
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


def _complete_baseline(cfg: AttrDict) -> list[str]:
    """A baseline writes no stage record: its checkpoint is read as one of stock VISSL."""
    name, sources = cfg.MODEL.TRUNK.NAME, cfg.DATA.TRAIN.DATA_SOURCES
    if name not in BASELINE_TRUNKS:
        return [f"MODEL.TRUNK.NAME is {name!r}{nearest(name, BASELINE_TRUNKS)}"]
    source, width = BASELINE_TRUNKS[name]
    if list(sources) != [source]:
        return [f"config.DATA.TRAIN.DATA_SOURCES is {list(sources)}; a baseline on {name} reads [{source}]"]
    completion = LOSS_COMPLETIONS.get(cfg.LOSS.name)
    return completion(cfg, width) if completion else []


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
        trunk, trunk_faults = complete_trunk(cfg, run, trunk)
        record = with_trunk(record, trunk)
        cfg.MODEL.TRUNK["JOINT_SSL"] = AttrDict(
            {**trunk_section(record), "STAGE": run.stage, "MASK_RATIO": trunk.mask_ratio}
        )
        faults += trunk_faults or _hand_over_faults(cfg, record, run, parent)
    if parent is not None:
        record = replace(
            record, parent=sha256(parent.path), parent_stage=parent.record.stage if parent.record else None
        )
    if not faults and loss_name in LOSS_COMPLETIONS:
        faults += LOSS_COMPLETIONS[loss_name](cfg, trunk.embedding_width)
    cfg.JOINT_SSL["RECORD"] = record.to_dict()
    return faults


def _hand_over_faults(cfg: AttrDict, record: StageRecord, run: RunOptions, parent: Checkpoint | None) -> list[str]:
    if parent is None:
        return []  # unset or unreadable, and said so
    try:
        whole = with_whole_record(parent)
        hand_over(
            whole,
            record,
            weight_names(cfg),
            skip_stage_2=run.skip_stage_2,
            mixed_flavours=run.mixed_flavours,
            allow_unrecorded=run.allow_unrecorded_parent,
        )
    except CheckpointError as error:
        return [str(error)]
    return []
