"""Export of f_intra as the ResNet-50 backbone of Detectron2.

Its names, from ``detectron2/modeling/backbone/resnet.py``: ``stem`` and ``res2`` to ``res5``, and each BatchNorm as
``norm`` of its convolution, so that torchvision's ``layer1.0.bn1.weight`` is ``res2.0.conv1.norm.weight``.
``DetectionCheckpointer`` finds them under any prefix of a model (``backbone.bottom_up.``) by their endings.

Its readers run pickles that end in ``.pkl``, so the file is a ``.pth`` of tensors alone. Detectron2 cannot be installed
from a package registry: the map is turned round and the weights are checked in torchvision's ``resnet50``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vissl_jointssl.checkpoints import save_atomically
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.slice_encoder import Loaded, SliceTarget, export_slice_encoder
from vissl_jointssl.export.torchvision import load_backbone
from vissl_jointssl.export.training_config import Normalisation

COUNTER = "num_batches_tracked"  # its frozen BatchNorm, the default, has none

_OURS = re.compile(
    r"(?:layer(?P<stage>[1-4])\.(?P<block>\d+)\.)?(?P<part>conv|bn|downsample\.)(?P<number>\d)\.(?P<leaf>\w+)"
)
_THEIRS = re.compile(
    r"(?:stem|res(?P<stage>[2-5])\.(?P<block>\d+))\.(?P<part>conv(?P<number>\d)|shortcut)\.(?P<norm>norm\.)?(?P<leaf>\w+)"
)


def detectron2_name(name: str) -> str | None:
    """Detectron2's name for one of torchvision's; None for a counter of BatchNorm.

    Raises:
        ExportError: If the name is not of a ResNet-50 without its classifier.
    """
    found = _OURS.fullmatch(name)
    if found is None:
        raise ExportError(
            f"{name!r} is not a weight of torchvision's resnet50; expected one like layer1.0.conv1.weight"
        )
    if found["leaf"] == COUNTER:
        return None
    place = "stem" if found["stage"] is None else f"res{int(found['stage']) + 1}.{found['block']}"
    if found["part"] == "downsample.":
        convolution, normalises = "shortcut", found["number"] == "1"
    else:
        convolution, normalises = f"conv{found['number']}", found["part"] == "bn"
    return f"{place}.{convolution}.{'norm.' if normalises else ''}{found['leaf']}"


def torchvision_name(name: str) -> str:
    """The inverse of `detectron2_name`.

    Raises:
        ExportError: If the name is not of a ResNet backbone of Detectron2.
    """
    found = _THEIRS.fullmatch(name)
    if found is None:
        raise ExportError(f"{name!r} is not a weight of Detectron2's ResNet; expected one like res2.0.conv1.weight")
    place = "" if found["stage"] is None else f"layer{int(found['stage']) - 1}.{found['block']}."
    if found["part"] == "shortcut":
        layer = f"downsample.{1 if found['norm'] else 0}"
    else:
        layer = f"{'bn' if found['norm'] else 'conv'}{found['number']}"
    return f"{place}{layer}.{found['leaf']}"


def is_detectron2_file(content: object) -> bool:
    """Whether what ``torch.load`` gave is a backbone as this target writes it."""
    model = content.get("model") if isinstance(content, Mapping) else None
    return isinstance(model, Mapping) and "stem.conv1.weight" in model and all(map(_THEIRS.fullmatch, model))


def _load(weights: dict[str, Tensor]) -> Loaded:
    loaded = load_backbone({torchvision_name(name): weight for name, weight in weights.items()})
    return loaded._replace(missing=tuple(name for name in loaded.missing if not name.endswith(COUNTER)))


def _save(weights: dict[str, Tensor], out: Path, card: Mapping[str, Any]) -> None:
    # A plain dict: the versions in the _metadata of a state_dict() would be taken for those of its own BatchNorm.
    # The last key is for its versions before 0.2, which match by endings only where a file asks for it.
    save_atomically({"model": dict(weights), "__author__": "vissl_jointssl", "matching_heuristics": True}, out)


def _load_with(name: str, known: Normalisation) -> str:
    """Lines of its YAML; its images are in [0, 255]."""
    if known.mean is None or known.std is None:
        pixels = "  # PIXEL_MEAN, PIXEL_STD: what training subtracted is unknown; 255 times that\n"
    else:
        mean, std = ([round(255 * value, 3) for value in values] for values in (known.mean, known.std))
        pixels = f"  PIXEL_MEAN: {mean}\n  PIXEL_STD: {std}\n"
    return (
        f"MODEL:\n  WEIGHTS: {name}\n{pixels}  RESNETS:\n    DEPTH: 50\n    STRIDE_IN_1X1: False\nINPUT:\n  FORMAT: RGB"
    )


TARGET = SliceTarget(
    name="detectron2",
    architecture="detectron2.modeling.backbone.resnet.ResNet, DEPTH 50, STRIDE_IN_1X1 False",
    load_with=_load_with,
    load=_load,
    rename=detectron2_name,
    save=_save,
)


def export_detectron2(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra as Detectron2's backbone; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
