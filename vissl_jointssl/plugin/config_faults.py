"""What can be wrong with a config's keys and names, before anything is opened or built."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import vissl.config
from omegaconf import DictConfig, OmegaConf
from vissl.config import AttrDict

from vissl_jointssl.plugin.collapse_limits import CollapseOptions
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss
from vissl_jointssl.plugin.kind_faults import kind_faults
from vissl_jointssl.plugin.masked_embedding_loss import MaskedEmbeddingLoss
from vissl_jointssl.plugin.options import RunOptions, TrunkOptions, read_options
from vissl_jointssl.plugin.registry_faults import registry_faults, schedule_parameters
from vissl_jointssl.plugin.unsafe_values import unsafe_values
from vissl_jointssl.plugin.volume_views import read_view_recipe
from vissl_jointssl.spelling import nearest

OUR_SOURCES = {"volume_dataset", "slice_dataset"}
VIEW_TRANSFORMS = {"volume_views", "volume_centre_view"}
TRUNK_SECTION = "MODEL.TRUNK.JOINT_SSL"
UNREAD = "is read by nothing"
OUR_LOSSES: dict[str, type] = {
    "inter_deepclusterv2_loss": InterDeepClusterV2Loss,
    "inter_swav_loss": InterSwAVLoss,
    "masked_embedding_loss": MaskedEmbeddingLoss,
}
# Keys of ours inside VISSL's sections, beside `JOINT_SSL` and `MODEL.TRUNK.JOINT_SSL`.
OUR_KEYS = {
    "JOINT_SSL",
    TRUNK_SECTION,
    "DATA.TRAIN.SPLITS",
    "DATA.TEST.SPLITS",
    *(f"LOSS.{name}" for name in OUR_LOSSES),
    "MODEL._MODEL_INIT_SEED",  # VISSL's own, written by its inference
    "OPTIMIZER.exclude_bias_and_norm",  # VISSL's own, of LARS (vissl/optimizers/lars.py:63)
}


class ConfigError(ValueError):
    """A config cannot be run; the message lists every fault found in it."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        listed = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"the config has {len(faults)} fault{'s' if len(faults) != 1 else ''}:{listed}")


def key_faults(cfg: AttrDict) -> list[str]:
    """Every key that nothing reads and every name that nothing has, in VISSL's sections and in ours.

    Each with the nearest that is read, or exists. Those of our own two sections are `read_options`'.
    """
    unknown = [
        f"config.{path} is read by nothing{nearest(key, known)}"
        for path, key, known in unknown_keys(cfg, _known_keys(cfg))
    ]
    return [*unknown, *_loss_faults(cfg), *registry_faults(cfg), *_view_faults(cfg), *unsafe_values(cfg)]


def refuse_missing_values(composed: DictConfig) -> None:
    """Stop before VISSL takes its own defaults for what is missing or misspelt, or looks for what is not there.

    Our YAMLs mark what only the user can say, such as the run's folder, with `???`; merged over a default of VISSL's,
    the mark is lost. And VISSL's inference, which comes next, reads keys of transforms and heads without asking.

    Raises:
        ConfigError: Naming every such key, or every value of another kind than is read.
    """
    config = composed.config
    if "JOINT_SSL" not in config:
        misspelt = difflib.get_close_matches("JOINT_SSL", [str(key) for key in config], n=1)
        if misspelt:  # without the section this would be a stock run, which nothing of ours checks
            raise ConfigError([f"config.{misspelt[0]} is read by nothing; did you mean JOINT_SSL?"])
        return
    plain: Any = OmegaConf.to_container(config, resolve=True)
    wrong = kind_faults(plain, _vissl_defaults())
    if wrong:
        raise ConfigError(wrong)
    missing = misspelt_keys(AttrDict(plain))
    if config.CHECKPOINT.DIR in (".", ""):
        missing.append("config.CHECKPOINT.DIR is not set; give a folder of the run's own")
    for split in ("TRAIN", "TEST") if config.TEST_MODEL else ("TRAIN",):
        if OUR_SOURCES & set(config.DATA[split].DATA_SOURCES) and not config.DATA[split].DATA_PATHS:
            missing.append(
                f"config.DATA.{split}.DATA_PATHS is not set; give [folder/manifest.csv], as `jointssl prepare` wrote it"
            )
    from_nothing = config.JOINT_SSL.get("STAGE") == 1 or config.JOINT_SSL.get("PURPOSE") == "baseline"
    if not from_nothing and not config.MODEL.WEIGHTS_INIT.PARAMS_FILE:
        missing.append(
            "config.MODEL.WEIGHTS_INIT.PARAMS_FILE is not set; give the last checkpoint of the stage before, "
            "model_final_checkpoint_phase*.torch"
        )
    if missing:
        raise ConfigError(missing)


def misspelt_keys(cfg: AttrDict) -> list[str]:
    """Every key and name of a config, in any section, that nothing reads or has; no file is opened for it."""
    run, faults = read_options(RunOptions, cfg.JOINT_SSL, "JOINT_SSL")
    faults += read_options(TrunkOptions, cfg.MODEL.TRUNK.get("JOINT_SSL", {}), TRUNK_SECTION)[1]
    faults += read_options(CollapseOptions, run.collapse, "JOINT_SSL.COLLAPSE")[1]
    keys = [fault for fault in faults if UNREAD in fault]
    return [*key_faults(cfg), *keys]


def unknown_keys(
    cfg: Mapping[str, Any], known: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, list[str]]]:
    """Keys of a config that neither VISSL's defaults nor we know: `(path, key, keys known there)`.

    A section that VISSL leaves empty is free for any key.
    """
    for key, value in cfg.items():
        path = f"{prefix}{key}"
        if path in OUR_KEYS:
            continue
        if key not in known:
            ours = [name.rsplit(".", 1)[-1] for name in OUR_KEYS if name.rpartition(".")[0] == prefix.rstrip(".")]
            yield path, key, [*known, *ours]
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping) and known[key]:
            yield from unknown_keys(value, known[key], f"{path}.")


def _loss_faults(cfg: AttrDict) -> list[str]:
    return [
        f"config.LOSS.{name}.{key} is read by nothing{nearest(key, inspect.signature(loss).parameters)}"
        for name, loss in OUR_LOSSES.items()
        for key in cfg.LOSS.get(name, {})
        if key not in inspect.signature(loss).parameters
    ]


def _view_faults(cfg: AttrDict) -> list[str]:
    faults = []
    for split in ("TRAIN", "TEST"):
        for transform in cfg.DATA[split].TRANSFORMS:
            name = transform.get("name")
            if name not in VIEW_TRANSFORMS:
                continue
            arguments = {key: value for key, value in transform.items() if key != "name"}
            where = f"DATA.{split}.TRANSFORMS, {name}"
            if name == "volume_views" and arguments.pop("total_num_crops", None) is None:
                close = difflib.get_close_matches("total_num_crops", arguments, n=1, cutoff=0.8)
                hint = f"{close[0]!r} is read by nothing; did you mean" if close else "how many views of a volume:"
                faults.append(f"{where}: {hint} total_num_crops?")
                arguments = {key: value for key, value in arguments.items() if key not in close}
            try:
                read_view_recipe(arguments)
            except ValueError as error:
                faults.append(f"{where}: {error}")
    return faults


def _known_keys(cfg: AttrDict) -> dict[str, Any]:
    """VISSL's defaults, and what each schedule that is named reads beside them."""
    known = _vissl_defaults()
    schedules = {
        group: section | dict.fromkeys(schedule_parameters(cfg.OPTIMIZER.param_schedulers[group].get("name", "")))
        for group, section in known["OPTIMIZER"]["param_schedulers"].items()
        if group in cfg.OPTIMIZER.param_schedulers
    }
    return {**known, "OPTIMIZER": {**known["OPTIMIZER"], "param_schedulers": schedules}}


@cache
def _vissl_defaults() -> dict[str, Any]:
    defaults = OmegaConf.load(Path(vissl.config.__file__).parent / "defaults.yaml")
    plain: Any = OmegaConf.to_container(defaults)
    return dict(plain["config"])
