"""f_intra and f_inter as one plain module: what a stage-2 or stage-3 checkpoint holds, without VISSL.

`plugin/joint_trunk.py` is the same network inside VISSL. The names of the weights are equal, so a checkpoint's trunk
loads as it is, and a test holds the outputs equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vissl_jointssl.checkpoints import Checkpoint, CheckpointError
from vissl_jointssl.models.attention_axis import build_volume_encoder
from vissl_jointssl.models.slice_encoder import SliceEncoder, embedding_width, encode_slices
from vissl_jointssl.models.valid_slices import valid_slices
from vissl_jointssl.models.volume_encoder import volume_embedding

ONLY_IN_TRAINING = ("mask_token",)  # stage 2's [MASK]; there is nothing to hide afterwards


class JointEncoder(nn.Module):
    """Volumes to embeddings: f_intra on every slice, the map E to D, f_inter over the slices (Eq. 6-10).

    A slice that does not exist is NaN, or False in ``valid``; padding stands at the end of a volume. Voxels are
    normalised as in pre-training: [0, 1], less 0.449, divided by 0.226.

    Args:
        levels: ResNet levels of the slice embedding, see `slice_encoder`.
        attention_axis: Of f_inter: ``slice``, ``embedding`` or ``none``.
        width: D, the width of f_inter; None leaves the map E to D out, so that D = E (only along ``none``).
        options: Further arguments of that axis' f_inter; the others have their defaults.

    Raises:
        ValueError: If a level, the axis or an option is unknown, or if the sizes cannot be combined.
    """

    def __init__(
        self,
        levels: Sequence[str],
        attention_axis: str = "slice",
        width: int | None = 640,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.slice_width = embedding_width(self.levels)
        if width is None and attention_axis != "none":
            raise ValueError(
                f"width is None, but f_inter along the {attention_axis} axis reads projected slices; "
                "give a width, or the attention axis none"
            )
        self.width = self.slice_width if width is None else width
        # VISSL's name of the ResNet; a checkpoint's trunk loads without renaming
        self._feature_blocks = SliceEncoder(self.levels).blocks
        self.slice_projection: nn.Module = nn.Identity() if width is None else nn.Linear(self.slice_width, self.width)
        self.volume_encoder = build_volume_encoder(attention_axis, width=self.width, **(options or {}))

    @property
    def slice_encoder(self) -> nn.ModuleDict:
        """The blocks of f_intra, named as torchvision's; its state dict plus ``fc.*`` is a ResNet-50's."""
        return self._feature_blocks

    def forward(self, volume: Tensor, valid: Tensor | None = None) -> Tensor:
        """Volume embeddings Z of length one ``(B, D)`` of ``(B, F, C, H, W)``; without ``valid``, NaN is padding.

        Raises:
            ValueError: If the shape is another, C does not fit, or a volume has no slice or padding before one.
        """
        valid = _valid(volume, valid)
        return volume_embedding(self.encoded(volume, valid), valid)

    def encoded(self, volume: Tensor, valid: Tensor | None = None) -> Tensor:
        """Slices in the light of the others, f_inter's outputs ``(B, F, D)``; zeros where a slice does not exist."""
        valid = _valid(volume, valid)
        outputs: Tensor = self.volume_encoder(self.slice_projection(self.slices(volume, valid)), valid)
        return outputs

    def slices(self, volume: Tensor, valid: Tensor | None = None) -> Tensor:
        """Each slice on its own, f_intra's multi-level embeddings ``(B, F, E)``; zeros where one does not exist."""
        return encode_slices(self._feature_blocks, volume, self.levels, _valid(volume, valid))


def joint_encoder_of(checkpoint: Checkpoint) -> tuple[JointEncoder, tuple[str, ...]]:
    """The f_intra and f_inter of a training checkpoint, every weight of it accounted for.

    Args:
        checkpoint: Of stage 2 or 3.

    Returns:
        The module in eval mode, and the names of the checkpoint's weights that have no place in it: stage 2's
        ``mask_token`` and the heads as ``heads.*``.

    Raises:
        CheckpointError: If it has no f_inter or no record of its sizes, or if its weights are not exactly the
            module's: absent, unknown, of another shape, or not finite.
    """
    record, path = checkpoint.record, checkpoint.path
    if record is None:
        raise CheckpointError(
            f"{path}: has no stage record, so the sizes of f_inter are unknown; give stage 2's or 3's"
        )
    if record.levels is None or record.embedding_width is None or record.volume_encoder is None:
        raise CheckpointError(
            f"{path}: is of stage {record.stage}, which trains f_intra alone; give a checkpoint of stage 2 or 3"
        )
    options = dict(record.volume_encoder)
    axis = options.pop("attention_axis", "slice")  # before there was a choice
    try:
        with torch.device("meta"):  # names and sizes; drawing weights that are replaced would take a second
            encoder = JointEncoder(record.levels, axis, record.embedding_width, options)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its record describes no model of this version ({error}); it was written by version "
            f"{record.version} of vissl_jointssl, read it with that one"
        ) from error
    weights = {name: weight for name, weight in checkpoint.trunk.items() if name not in ONLY_IN_TRAINING}
    faults = _faults(encoder.state_dict(), weights)
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise CheckpointError(f"{path}: not the f_intra and f_inter of its record; repeat its stage:{listed}")
    # clone(): training the module must not change the checkpoint
    encoder.load_state_dict({name: weight.detach().clone() for name, weight in weights.items()}, assign=True)
    dropped = [name for name in checkpoint.trunk if name not in weights]
    return encoder.eval(), (*dropped, *(f"heads.{name}" for name in checkpoint.heads))


def _valid(volume: Tensor, valid: Tensor | None) -> Tensor:
    return valid_slices(volume) if valid is None else valid


def _faults(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    shared = wanted.keys() & weights.keys()
    found = {
        "weights are absent": sorted(wanted.keys() - weights.keys()),
        "weights have no place in it": sorted(weights.keys() - wanted.keys()),
        "weights have another shape": [
            f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
            for name in sorted(shared)
            if weights[name].shape != wanted[name].shape
        ],
        "weights are NaN or infinite": [name for name in sorted(shared) if not torch.isfinite(weights[name]).all()],
    }
    return [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in found.items()
        if names
    ]
