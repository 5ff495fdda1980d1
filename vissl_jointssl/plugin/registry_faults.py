"""Names that VISSL looks up in its registries, and the parameters beside them, checked before anything is built.

VISSL asserts "Unknown model trunk" and no more, minutes after the start, and reads the parameters of a transform with
`config.get`, so that a misspelt one is its default. Sections that stay free for any key, because VISSL hands them on
whole: `MODEL.TRUNK.REGNET`, `MODEL.TRUNK.EFFICIENT_NETS`, `SLURM.ADDITIONAL_PARAMETERS`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch.nn.modules.loss
import torchvision.transforms
from classy_vision.dataset.transforms import TRANSFORM_REGISTRY
from classy_vision.losses import LOSS_REGISTRY
from classy_vision.meters import METER_REGISTRY
from classy_vision.optim import OPTIMIZER_REGISTRY
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY
from classy_vision.tasks import TASK_REGISTRY
from vissl.config import AttrDict
from vissl.data import DATASET_SOURCE_MAP
from vissl.data.collators import COLLATOR_REGISTRY
from vissl.models import MODEL_REGISTRY
from vissl.models.heads import MODEL_HEADS_REGISTRY
from vissl.models.trunks import MODEL_TRUNKS_REGISTRY
from vissl.trainer.train_steps import TRAIN_STEP_REGISTRY

from vissl_jointssl.spelling import nearest

SPLITS = ("TRAIN", "TEST")
LABEL_SOURCES = ("disk_filelist", "disk_folder", "torchvision_dataset", "synthetic")  # vissl/data/ssl_dataset.py:213
TORCHVISION = frozenset((*torchvision.transforms.transforms.__all__, *torchvision.transforms.autoaugment.__all__))
# Read by VISSL around a transform, whatever it is: vissl/data/ssl_transforms/ssl_transforms_wrapper.py:82, :110.
OF_EVERY_TRANSFORM = frozenset({"name", "indices", "transform_receives_entire_batch", "transform_type"})
OF_EVERY_SCHEDULE = frozenset({"name", "update_interval", "num_epochs"})
FREE = None  # takes any keyword


def registry_faults(cfg: AttrDict) -> list[str]:
    """Unknown names, and parameters that what is named does not read, each with the nearest that exists."""
    faults = [
        f"config.{path} is {name!r}, which is not registered{nearest(str(name), known)}"
        for path, name, known in _names(cfg)
        if name not in known
    ]
    for split in SPLITS:
        section = cfg.DATA[split]
        faults += _transform_faults(section.TRANSFORMS, f"config.DATA.{split}.TRANSFORMS")
        if section.COLLATE_FUNCTION in COLLATOR_REGISTRY:
            known = _parameters(COLLATOR_REGISTRY[section.COLLATE_FUNCTION], leave_out=1)
            where = f"config.DATA.{split}.COLLATE_FUNCTION_PARAMS"
            faults += unread(section.COLLATE_FUNCTION_PARAMS, known, where, section.COLLATE_FUNCTION)
    for where, name, arguments in _heads(cfg.MODEL.HEAD.PARAMS, "config.MODEL.HEAD.PARAMS"):
        if name not in MODEL_HEADS_REGISTRY:
            faults.append(f"{where} is {name!r}, which is not registered{nearest(str(name), MODEL_HEADS_REGISTRY)}")
        else:  # the first parameter is config.MODEL
            faults += unread(arguments, _parameters(MODEL_HEADS_REGISTRY[name], leave_out=1), where, name)
    for group, section in cfg.OPTIMIZER.param_schedulers.items():
        faults += _schedule_faults(section.get("schedulers", []), f"config.OPTIMIZER.param_schedulers.{group}")
    return faults


def schedule_parameters(name: str) -> frozenset[str]:
    """What a schedule of a name reads; VISSL's defaults do not list those of its own two."""
    if name not in PARAM_SCHEDULER_REGISTRY:
        return OF_EVERY_SCHEDULE
    kind = PARAM_SCHEDULER_REGISTRY[name]
    return OF_EVERY_SCHEDULE | (_parameters(kind) or frozenset()) | _words_of_from_config(kind)


def unread(arguments: Mapping[str, Any], known: frozenset[str] | None, where: str, name: str) -> list[str]:
    """Keys of a section that what it is for does not read, in words; None knows every key."""
    if known is FREE:
        return []
    return [
        f"{where}, {name}: {key!r} is read by nothing{nearest(str(key), known)}"
        for key in arguments
        if key not in known
    ]


def _names(cfg: AttrDict) -> Iterator[tuple[str, Any, Sequence[str]]]:
    """Every name that is looked up by itself: its path below `config`, the name, the names there are."""
    yield "MODEL.BASE_MODEL_NAME", cfg.MODEL.BASE_MODEL_NAME, list(MODEL_REGISTRY)
    yield "MODEL.TRUNK.NAME", cfg.MODEL.TRUNK.NAME, list(MODEL_TRUNKS_REGISTRY)
    # CV/losses/__init__.py:64 falls back on any attribute of PyTorch's module; its losses are what is meant.
    yield "LOSS.name", cfg.LOSS.name, [*LOSS_REGISTRY, *torch.nn.modules.loss.__all__]
    yield "OPTIMIZER.name", cfg.OPTIMIZER.name, list(OPTIMIZER_REGISTRY)
    yield "TRAINER.TRAIN_STEP_NAME", cfg.TRAINER.TRAIN_STEP_NAME, list(TRAIN_STEP_REGISTRY)
    yield "TRAINER.TASK_NAME", cfg.TRAINER.TASK_NAME, list(TASK_REGISTRY)
    for name in {cfg.METERS.name, *cfg.METERS.names} - {""}:
        yield "METERS.name", name, list(METER_REGISTRY)
    for group, section in cfg.OPTIMIZER.param_schedulers.items():
        yield f"OPTIMIZER.param_schedulers.{group}.name", section.name, list(PARAM_SCHEDULER_REGISTRY)
    for split in SPLITS:
        section = cfg.DATA[split]
        yield f"DATA.{split}.COLLATE_FUNCTION", section.COLLATE_FUNCTION, ["default_collate", *COLLATOR_REGISTRY]
        for source in section.DATA_SOURCES:
            yield f"DATA.{split}.DATA_SOURCES", source, list(DATASET_SOURCE_MAP)
        for source in section.LABEL_SOURCES:
            yield f"DATA.{split}.LABEL_SOURCES", source, LABEL_SOURCES


def _transform_faults(transforms: Sequence[Any], where: str) -> list[str]:
    faults: list[str] = []
    for number, transform in enumerate(transforms):
        place = f"{where}.{number}"
        if "name" not in transform:
            faults.append(_nameless(place, transform))
            continue
        name = transform["name"]
        kind = _transform(name)
        if kind is None:
            if transform.get("transform_type") != "augly":  # another library's, which VISSL asks for by itself
                known = {*TRANSFORM_REGISTRY, *TORCHVISION}
                faults.append(f"{place}.name is {name!r}, which is not registered{nearest(str(name), known)}")
            continue
        inner = transform.get("transforms")
        faults += _transform_faults(inner, f"{place}.transforms") if isinstance(inner, list | tuple) else []
        parameters = _words_of_from_config(kind) or _parameters(kind)
        known_keys = None if parameters is FREE else parameters | OF_EVERY_TRANSFORM
        faults += unread(transform, known_keys, place, name)
    return faults


def _transform(name: str) -> Callable[..., Any] | None:
    """As CV/dataset/transforms/__init__.py:61 finds it; torchvision's also in snake case."""
    if name in TRANSFORM_REGISTRY:
        return TRANSFORM_REGISTRY[name]
    for spelling in (str(name), str(name).title().replace("_", "")):
        if spelling in TORCHVISION:
            return getattr(torchvision.transforms, spelling)
    return None


def _heads(heads: Any, where: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Place, name and arguments; a head may itself be a list of heads (vissl/models/base_ssl_model.py:326)."""
    for number, head in enumerate(heads):
        place = f"{where}.{number}"
        if head and isinstance(head[0], list | tuple):
            yield from _heads(head, place)
        else:
            yield place, head[0], head[1]


def _schedule_faults(schedules: Sequence[Any], where: str) -> list[str]:
    """Faults of the parts of a composite schedule."""
    faults: list[str] = []
    for number, section in enumerate(schedules):
        place = f"{where}.schedulers.{number}"
        name = section.get("name")
        if name is None:
            faults.append(_nameless(place, section))
        elif name not in PARAM_SCHEDULER_REGISTRY:
            near = nearest(str(name), PARAM_SCHEDULER_REGISTRY)
            faults.append(f"{place}.name is {name!r}, which is not registered{near}")
        else:
            faults += unread(section, schedule_parameters(name), place, name)
    return faults


def _parameters(kind: Callable[..., Any], leave_out: int = 0) -> frozenset[str] | None:
    """Names of the parameters from a position on; None where there is a `**`."""
    parameters = list(inspect.signature(kind).parameters.values())[leave_out:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return FREE
    return frozenset(parameter.name for parameter in parameters)


def _words_of_from_config(kind: Callable[..., Any]) -> frozenset[str]:
    """Strings in the class' own `from_config`: the keys that it looks up one by one; none where it passes all on."""
    method = getattr(kind, "from_config", None)
    words = method.__func__.__code__.co_consts if method is not None else ()
    return frozenset(word for word in words if isinstance(word, str) and word.isidentifier())


def _nameless(place: str, section: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches("name", [str(key) for key in section], n=1)
    hint = f": {close[0]!r} is read by nothing; did you mean name?" if close else f"; its keys are {list(section)}"
    return f"{place} has no name{hint}"
