"""A ResNet-50 of another library as the start of stage 1: torchvision's, timm's, MoCo's, VISSL's own.

Every ResNet-50 descended from torchvision's names its weights alike, `conv1.weight` to `layer4.2.bn3.running_var`;
what differs is how deep in the file they lie and behind which prefix (`state_dict.module.encoder_q.`,
`classy_state_dict.base_model.model.trunk._feature_blocks.`). So the file is flattened into dotted names and searched
for a prefix under which a ResNet-50 lies; no list of libraries is kept.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import resnet50

from vissl_jointssl.checkpoints.loading import DamagedFileError, load_plain
from vissl_jointssl.checkpoints.reading import COUNTER, SLICE_ENCODER_PREFIX
from vissl_jointssl.checkpoints.record import CheckpointError
from vissl_jointssl.checkpoints.writing import save_atomically

SUFFIXES = (".pth", ".pt", ".torch", ".tar", ".safetensors")
CLASSIFIER = "fc."
MOMENTUM_COPY = "encoder_k."  # MoCo's slowly moving copy of `encoder_q.`, which is the network that was trained
_FIRST, _LAST = "conv1.weight", "layer4.2.conv3.weight"


@dataclass(frozen=True)
class ImportAccount:
    """What became of every tensor of a file.

    Attributes:
        source: The file.
        prefix: What stood before each name, such as `state_dict.module.`; empty for torchvision and timm.
        matched: Names of the ResNet-50 that received a weight.
        dropped: Tensors of the file that have no place in f_intra, such as a classifier or an optimizer's state.
        counters: Counters of BatchNorm that the file lacks; they start at 0.
        out: The checkpoint written, or None.
    """

    source: Path
    prefix: str
    matched: tuple[str, ...]
    dropped: tuple[str, ...]
    counters: tuple[str, ...]
    out: Path | None = None

    def summary(self) -> str:
        """The account in four lines for a terminal or a log."""
        shown = ", ".join(self.dropped[:4]) + (", ..." if len(self.dropped) > 4 else "")
        return "\n".join(
            (
                f"{self.source}: a ResNet-50" + (f", written to {self.out}" if self.out else ""),
                f"  matched  {len(self.matched)} weights and buffers, "
                f"renamed from {self.prefix}* to {SLICE_ENCODER_PREFIX}*",
                f"  dropped  {len(self.dropped)}" + (f" ({shown})" if shown else ""),
                f"  missing  {len(self.counters)}" + (" (counters of BatchNorm, set to 0)" if self.counters else ""),
            )
        )


def import_resnet50(path: Path | str, prefix: str | None = None) -> tuple[dict[str, Tensor], ImportAccount]:
    """Read the ResNet-50 in a weights file of any library.

    The strides are not in a file of weights: as in torchvision, timm and VISSL, the 3x3 convolution of a block is
    taken to carry it.

    Args:
        path: A `.pth`, `.pt`, `.torch`, `.tar` or `.safetensors` file. Only tensors and plain containers are
            unpickled, so that a file from elsewhere cannot run code.
        prefix: What stands before `conv1.weight`; needed only where a file holds several ResNet-50.

    Returns:
        The trunk's weights under VISSL's names, `_feature_blocks.*`, and what became of every tensor.

    Raises:
        CheckpointError: If the file cannot be read, or holds no ResNet-50, several, or one that is not whole.
    """
    path = Path(path)
    tensors = dict(flattened(load_weights(path)))
    found = _find_prefix(path, tensors, prefix)
    inside = {name.removeprefix(found): value for name, value in tensors.items() if name.startswith(found)}
    weights = {name: value for name, value in inside.items() if name in _wanted()}
    _check_whole(path, weights, inside)
    counters = tuple(name for name in _wanted() if name not in weights)
    # clone(): a tensor that is a view would drag its whole storage into the new file.
    state = {name: (value if name.endswith(COUNTER) else value.float()).clone() for name, value in weights.items()}
    state |= {name: torch.zeros((), dtype=torch.long) for name in counters}
    state = {SLICE_ENCODER_PREFIX + name: value.detach() for name, value in state.items()}
    taken = {found + name for name in weights}
    dropped = tuple(name for name in tensors if name not in taken)
    return state, ImportAccount(path, found, tuple(weights), dropped, counters)


def write_imported(path: Path | str, out: Path | str, prefix: str | None = None) -> ImportAccount:
    """Write the ResNet-50 of a weights file as a checkpoint that `config.MODEL.WEIGHTS_INIT.PARAMS_FILE` takes.

    The checkpoint has no stage record: no stage of ours made it. Stage 1 takes it as it is, stages 2 and 3 with
    `config.JOINT_SSL.ALLOW_UNRECORDED_PARENT`.

    Args:
        path: As in `import_resnet50`.
        out: The `.torch` file to write.
        prefix: As in `import_resnet50`.

    Raises:
        CheckpointError: As in `import_resnet50`, or if `out` is the file to read.
    """
    path, out = Path(path), Path(out)
    if path.resolve() == out.resolve():
        raise CheckpointError(f"{out}: would overwrite the file that is imported; give another --out")
    state, account = import_resnet50(path, prefix)
    model = {"model": {"trunk": state, "heads": {}}, "meta": {"trunk": {}}}
    save_atomically({"classy_state_dict": {"base_model": model}, "type": "consolidated"}, out)
    return ImportAccount(**{**vars(account), "out": out})


@cache
def _wanted() -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight and buffer of a ResNet-50 without its classifier."""
    with torch.device("meta"):
        state = resnet50(weights=None).state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not name.startswith(CLASSIFIER)}


def load_weights(path: Path) -> Any:
    """What a weights file holds, on the CPU; only tensors and plain containers are unpickled.

    Raises:
        CheckpointError: If it is missing, damaged, of another kind, or holds more than that.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; download the weights first, or correct the path")
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: weights files end in one of {', '.join(SUFFIXES)}; rename it to what it is")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        return load_plain(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it is damaged or holds more than tensors and plain containers, which could run "
            "code; save its state_dict() alone, where you trust it, and import that"
        ) from error
    except DamagedFileError as error:
        raise CheckpointError(f"{path}: cannot be read as PyTorch weights ({error}); copy it again") from error


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path}: reading .safetensors needs the package of that name; pip install safetensors"
        ) from error
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error
    return weights


def flattened(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested dictionaries by its dotted name."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{key}", value
            else:
                yield from flattened(value, f"{prefix}{key}.")


def _find_prefix(path: Path, tensors: Mapping[str, Tensor], asked: str | None) -> str:
    starts = [name.removesuffix(_FIRST) for name in tensors if name.endswith(_FIRST)]
    # `layer1.0.conv1.weight` ends like the stem; only before a ResNet does the last block lie under the same prefix.
    found = [start for start in starts if f"{start}{_LAST}" in tensors]
    if asked is not None:
        if asked not in found:
            raise CheckpointError(f"{path}: no ResNet-50 lies under the prefix {asked!r}; found under {found}")
        return asked
    trained = [start for start in found if not start.endswith(MOMENTUM_COPY)]
    if len(trained) > 1:
        raise CheckpointError(f"{path}: holds {len(trained)} ResNet-50; choose one with --prefix from {trained}")
    if trained or found:
        return (trained or found)[0]
    shown = ", ".join(list(tensors)[:4]) or "no tensor at all"
    raise CheckpointError(
        f"{path}: holds no ResNet-50 ({_FIRST} and {_LAST} under one prefix): found {shown}, ...; "
        "give the weights of a ResNet-50 with torchvision's names"
    )


def _check_whole(path: Path, weights: Mapping[str, Tensor], inside: Mapping[str, Tensor]) -> None:
    """Every fault of the weights at once; poor coverage would train on from noise without a word."""
    absent = [name for name in _wanted() if name not in weights and not name.endswith(COUNTER)]
    extra = [name for name in inside if name not in _wanted() and name.startswith(("conv", "bn", "layer"))]
    shapes = [
        f"{name} is {tuple(value.shape)}, expected {_wanted()[name]}"
        for name, value in weights.items()
        if tuple(value.shape) != _wanted()[name]
    ]
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    listed = "".join(
        f"\n  - {len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for names, what in (
            (absent, "weights of a ResNet-50 are absent"),
            (extra, "weights have no place in a ResNet-50"),
            (shapes, "weights have another shape"),
            (broken, "weights are NaN or infinite"),
        )
        if names
    )
    if listed:
        raise CheckpointError(f"{path}: not a whole ResNet-50 with torchvision's names; give one:{listed}")
