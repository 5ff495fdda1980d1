"""One line to a pre-trained model: ``model = load_pretrained(path)``, whatever of ours or of another library it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchvision.models import resnet50

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, CheckpointError, newest_checkpoint, read_checkpoint
from vissl_jointssl.checkpoints.importing import MOMENTUM_COPY, flattened, import_resnet50, load_weights
from vissl_jointssl.export.card import read_card
from vissl_jointssl.export.coverage import LoadAccount, coverage
from vissl_jointssl.export.detectron2 import is_detectron2_file, torchvision_name
from vissl_jointssl.models.volume_file import FORMAT, encoder_options, is_volume_file, volume_module
from vissl_jointssl.spelling import nearest

MODELS = ("auto", "slice", "volume")


def load_pretrained(path: Path | str, *, model: str = "auto", allow_partial: bool = False) -> nn.Module:
    """The pre-trained model in a file, in evaluation mode, on the CPU.

    Args:
        path: Any file that ``jointssl export`` wrote; a training checkpoint, ours or stock VISSL's, or the folder of
            a run; or a ResNet-50 of another library (``.pth``, ``.pt``, ``.torch``, ``.tar``, ``.safetensors``). Only
            tensors and plain containers are unpickled, so that a file from elsewhere cannot run code.
        model: ``slice`` for f_intra: torchvision's ``resnet50`` whose ``fc`` is the identity, ``(B, 3, H, W)`` to
            ``(B, 2048)``. ``volume`` for f_intra and f_inter: `models.joint_encoder.JointEncoder`, ``(B, F, C, H, W)``
            to ``(B, D)``. ``auto`` takes ``volume`` where the file holds f_inter.
        allow_partial: Take what is there and leave the rest at its random start; the account says what that is.

    Returns:
        The model, with two more attributes: ``card``, the dictionary that the export wrote (mean and deviation of the
        input, stage, source) or None for a file that was not exported; ``account``, a `LoadAccount`.

    Raises:
        CheckpointError: If the file cannot be read, was changed since its card was written, is a volume file of another
            version, holds no such model, or not every weight of it.
        ValueError: If ``model`` is none of the three.
    """
    if model not in MODELS:
        raise ValueError(f"model={model!r} is not known{nearest(model, MODELS)}")
    path = _file(Path(path))
    content = load_weights(path)
    found = _volume(path, content, model) or _slice(path, content, allow_partial)
    account = _cover(path, found)
    if (account.missing or account.extra) and not allow_partial:
        raise _poor(f"{path}: does not hold a whole {account.model} model and nothing more of one", account)
    if not account.matched:
        raise CheckpointError(f"{path}: holds no weight of a {account.model} model; give another file")
    found.model.load_state_dict({name: found.weights[name] for name in account.matched}, strict=False)
    vars(found.model).update(card=read_card(path, content), account=account)
    return found.model.eval()


class _Found(NamedTuple):
    kind: str
    model: nn.Module
    weights: Mapping[str, Tensor]  # by the model's names; larger networks have more
    origin: Mapping[str, str]  # the model's name -> the file's
    everything: tuple[str, ...]  # every tensor of the file


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    newest = newest_checkpoint(path)
    if newest is None:
        raise CheckpointError(f"{path}: holds no checkpoint; give the folder of a stage or a file")
    return newest


def _volume(path: Path, content: Any, model: str) -> _Found | None:
    """f_intra and f_inter, where the file holds them and they are wanted."""
    if model == "slice":
        return None
    if is_volume_file(content):
        built, state = volume_module(content, path), content["state"]
        return _Found("volume", built, state, {name: name for name in state}, tuple(state))
    if isinstance(content, Mapping) and "classy_state_dict" in content:
        checkpoint = read_checkpoint(path)
        if checkpoint.record is not None and checkpoint.record.volume_encoder is not None:
            options = encoder_options(checkpoint.record)
            built = volume_module({"format": FORMAT, "options": options, "state": {}}, path)
            known = tuple(f"{name}." for name, _ in built.named_children())
            trunk = {name: weight for name, weight in checkpoint.trunk.items() if name.startswith(known)}
            heads = tuple(f"heads.{name}" for name in checkpoint.heads)
            return _Found("volume", built, trunk, {name: name for name in trunk}, (*checkpoint.trunk, *heads))
    if model == "volume":
        raise CheckpointError(
            f"{path}: holds no f_inter with its sizes; give a checkpoint of stage 2 or 3, or a file of "
            "`jointssl export --to volume`, or ask for model='slice'"
        )
    return None


def _slice(path: Path, content: Any, allow_partial: bool) -> _Found:
    """f_intra under torchvision's names, whatever the file calls it."""
    model = resnet50(weights=None)
    model.fc = nn.Identity()
    tensors = dict(flattened(content))
    if is_detectron2_file(content):
        origin = {torchvision_name(name): f"model.{name}" for name in content["model"]}
        return _Found("slice", model, {ours: tensors[name] for ours, name in origin.items()}, origin, tuple(tensors))
    try:
        state, imported = import_resnet50(path)
    except CheckpointError as error:
        found = _most_of_one(path, model, tensors)
        if not allow_partial:
            raise _poor(str(error), _cover(path, found)) from error
        return found
    weights = {name.removeprefix(SLICE_ENCODER_PREFIX): weight for name, weight in state.items()}
    weights = {name: weight for name, weight in weights.items() if name not in imported.counters}
    return _Found("slice", model, weights, {name: imported.prefix + name for name in weights}, tuple(tensors))


def _most_of_one(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> _Found:
    """The network in a file that holds the most weights of a ResNet-50."""
    wanted = set(model.state_dict())
    ends = [(name, end) for name in tensors for end in _ends(name) if end in wanted]
    counts = Counter(name.removesuffix(end) for name, end in ends)
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    best = [prefix for prefix in best if not prefix.endswith(MOMENTUM_COPY)] or best
    if len(best) > 1:
        raise CheckpointError(
            f"{path}: holds {len(best)} networks of equal size under {best[:4]}; "
            "take one of them out by `jointssl import FILE --prefix`"
        )
    prefix = best[0] if best else ""
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if best and name.startswith(prefix)}
    weights = {name: value for name, value in inside.items() if name.startswith(("conv", "bn", "layer"))}
    return _Found("slice", model, weights, {name: prefix + name for name in weights}, tuple(tensors))


def _ends(name: str) -> list[str]:
    """`a.b.c` -> `a.b.c`, `b.c`, `c`."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _cover(path: Path, found: _Found) -> LoadAccount:
    return coverage(path, found.kind, found.model.state_dict(), found.weights, found.origin, found.everything)


def _poor(reason: str, account: LoadAccount) -> CheckpointError:
    return CheckpointError(
        f"{reason}\n{account.summary()}\nGive a whole one, or load_pretrained(path, allow_partial=True) to take what "
        "is there and leave the rest at its random start"
    )
