"""Completes an evaluation's config: the trunk is what its checkpoint says, the classes what the manifests say."""

from __future__ import annotations

import logging

from vissl.config import AttrDict

from vissl_jointssl.checkpoints import (
    SLICE_ENCODER_PREFIX,
    VOLUME_ENCODER_PREFIX,
    Checkpoint,
    CheckpointError,
    absent_weights,
)
from vissl_jointssl.manifest import Manifest
from vissl_jointssl.models.slice_encoder import embedding_width
from vissl_jointssl.models.volume_cnn import WIDTH as VOLUME_CNN_WIDTH
from vissl_jointssl.plugin.config_faults import TRUNK_SECTION
from vissl_jointssl.plugin.options import TrunkOptions, read_options
from vissl_jointssl.plugin.trunk_config import slice_faults, trunk_section, weight_names, with_whole_record

RESNET_TRUNKS = ("resnet", "joint_trunk")  # those whose weights lie under SLICE_ENCODER_PREFIX
VOLUME_CNN_PREFIX = "stem."  # where the first weights of `volume_cnn_trunk` lie


def complete_evaluation(cfg: AttrDict, parent: Checkpoint | None, manifests: list[Manifest]) -> list[str]:
    """Complete the config of an evaluation in place, and return its faults.

    A checkpoint of f_intra alone (stage 1, or a stock 2D one) has no f_inter and no map E -> D: `joint_trunk` then
    gives the normalised mean over the slices of the multi-level embedding E, and the classifier reads E numbers.
    """
    faults = _complete_trunk(cfg, parent) if parent is not None else []
    classes = max((entry.label + 1 for one in manifests for entry in one.entries if entry.label is not None), default=0)
    width = _volume_width(cfg)
    for name, arguments in cfg.MODEL.HEAD.PARAMS:
        if name != "eval_mlp":
            continue
        dims = arguments["dims"]
        dims[-1] = classes if dims[-1] is None else dims[-1]
        if width is None or faults:
            continue
        arguments["in_channels"] = width if arguments["in_channels"] is None else arguments["in_channels"]
        dims[0] = width if dims[0] is None else dims[0]
        if (arguments["in_channels"], dims[0]) != (width, width):
            faults.append(
                f"config.MODEL.HEAD.PARAMS: eval_mlp reads {arguments['in_channels']} and {dims[0]} numbers, but the "
                f"checkpoint's volume embeddings have {width}; write null for both"
            )
    return faults


def _complete_trunk(cfg: AttrDict, parent: Checkpoint) -> list[str]:
    if cfg.MODEL.TRUNK.NAME == "volume_cnn_trunk":
        if any(name.startswith(VOLUME_CNN_PREFIX) for name in parent.trunk):
            return []
        return [
            f"{parent.path} has no weights called {VOLUME_CNN_PREFIX}*, which volume_cnn_trunk needs; "
            "give the checkpoint of a 3D baseline, or leave config.MODEL.TRUNK.NAME as it is"
        ]
    if cfg.MODEL.TRUNK.NAME not in RESNET_TRUNKS:
        return []
    if not any(name.startswith(SLICE_ENCODER_PREFIX) for name in parent.trunk):
        return [
            f"{parent.path} has no weights called {SLICE_ENCODER_PREFIX}*, which {cfg.MODEL.TRUNK.NAME} needs; "
            "give the checkpoint of a 2D ResNet, such as stage 1's, or of stage 2 or 3"
        ]
    if cfg.MODEL.TRUNK.NAME != "joint_trunk":
        return _incomplete(cfg, parent)
    given = cfg.MODEL.TRUNK.get("JOINT_SSL", {})
    options, faults = read_options(TrunkOptions, given, TRUNK_SECTION)
    if faults:
        return []  # said where the section was read
    encodes_volumes = any(name.startswith(VOLUME_ENCODER_PREFIX) for name in parent.trunk)
    if parent.record is not None and parent.record.levels is not None:
        if given:
            return [f"{TRUNK_SECTION} is given, but an evaluation reads it from {parent.path}; remove it"]
        try:
            record = with_whole_record(parent).record
        except CheckpointError as error:
            return [str(error)]
        assert record is not None  # the branch
        section = trunk_section(record)
        if section["ATTENTION_AXIS"] != "none" and not encodes_volumes:
            return [
                f"{parent.path} has no weights called {VOLUME_ENCODER_PREFIX}*, of which its record speaks; "
                "give another checkpoint of that run"
            ]
    elif encodes_volumes:
        section = dict(given)
    else:
        section = {"LEVELS": list(options.levels), "ATTENTION_AXIS": "none", "SLICE_PROJECTION": False}
        stage = f"stage {parent.record.stage}" if parent.record is not None else "an unrecorded run"
        logging.info(
            f"{parent.path} is of {stage} and has no f_inter: Z is the normalised mean over the slices of the "
            f"multi-level embedding, E = {embedding_width(options.levels)}"
        )
    cfg.MODEL.TRUNK["JOINT_SSL"] = AttrDict(section)
    splits = ["TRAIN", "TEST"] if cfg.TEST_MODEL else ["TRAIN"]
    faults = slice_faults(cfg, section.get("ATTENTION_AXIS", "slice"), section.get("VOLUME_ENCODER", {}), splits)
    return faults + _incomplete(cfg, parent)


def _incomplete(cfg: AttrDict, parent: Checkpoint) -> list[str]:
    """VISSL leaves what it does not find at its random start, and says so in the log alone."""
    names = weight_names(cfg)
    absent = absent_weights(parent.trunk, names)
    if not absent:
        return []
    return [
        f"{parent.path} lacks {len(absent)} of the {len(names)} weights of {cfg.MODEL.TRUNK.NAME}, first {absent[0]}; "
        "give a whole checkpoint, or an evaluation would score random weights"
    ]


def _volume_width(cfg: AttrDict) -> int | None:
    """Width of Z, where it is known."""
    if cfg.MODEL.TRUNK.NAME == "volume_cnn_trunk":
        return VOLUME_CNN_WIDTH
    if cfg.MODEL.TRUNK.NAME != "joint_trunk":
        return None
    options, _ = read_options(TrunkOptions, cfg.MODEL.TRUNK.get("JOINT_SSL", {}), TRUNK_SECTION)
    return options.embedding_width if options.slice_projection else embedding_width(options.levels)
