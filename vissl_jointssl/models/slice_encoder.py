"""f_intra: a 2D ResNet-50 that turns every slice of a volume into one multi-level embedding (Eq. 9).

The functions work on the blocks of any ResNet-50 laid out as VISSL's trunk lays it out (an ordered ``ModuleDict`` with
the keys conv1, bn1, conv1_relu, maxpool, layer1 to layer4), so the network that VISSL trains and the one in a notebook
go through the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vissl_jointssl.models.recomputed_blocks import NOT_RECOMPUTED, chunks_of, recomputed, run
from vissl_jointssl.models.valid_slices import valid_lengths, valid_slices
from vissl_jointssl.spelling import nearest

LEVEL_CHANNELS = {"res1": 64, "res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
"""Channels of each level of a ResNet-50; res1 is the stem after its max pooling."""

LEVEL_BLOCKS = {"res1": "maxpool", "res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}
"""The block after which a level is read, in the names of VISSL's trunk."""

PAPER_LEVELS = ("res1", "res2", "res3", "res4", "res5")
"""The paper's five blocks, E = 3904."""

RELEASED_LEVELS = ("res2", "res3", "res4", "res5", "res5")
"""What the authors' released code concatenates, E = 5888."""


def embedding_width(levels: Sequence[str]) -> int:
    """Width E of the concatenated embedding of the given levels.

    Args:
        levels: Names out of ``LEVEL_CHANNELS``, in the order of concatenation; a level may be named twice.

    Raises:
        ValueError: If no level is given or a name is unknown.
    """
    if isinstance(levels, str) or not levels:
        raise ValueError(f"levels must be a list of names such as {list(PAPER_LEVELS)}, got {levels!r}")
    for level in levels:
        if level not in LEVEL_CHANNELS:
            raise ValueError(f"unknown level {level!r}{nearest(level, LEVEL_CHANNELS)}")
    return sum(LEVEL_CHANNELS[level] for level in levels)


def feature_maps(blocks: nn.ModuleDict, images: Tensor, levels: Sequence[str], recompute: int = 0) -> list[Tensor]:
    """Run images through the blocks and keep the outputs of the asked levels.

    Args:
        blocks: Blocks in order of execution, named as in VISSL's ResNet trunk; what follows the deepest asked level
            (and ``avgpool``, ``flatten``) is not run.
        images: ``(n, C, H, W)``.
        levels: Levels to keep.
        recompute: How many bottlenecks the backward pass computes again at once, from the input of the first, which is
            all that is kept of them; takes less memory and more time and gives the same gradients, see
            `recomputed_blocks`. 0 keeps everything.

    Returns:
        One map ``(n, channels, height, width)`` per entry of ``levels``, in the order of the request.

    Raises:
        ValueError: If a level is unknown, or if ``blocks`` lacks the block that ends it.
    """
    embedding_width(levels)
    absent = sorted({LEVEL_BLOCKS[level] for level in levels} - set(blocks.keys()))
    if absent:
        raise ValueError(
            f"the levels {list(levels)} need the blocks {absent}, but there are only {list(blocks.keys())}"
        )
    wanted = {LEVEL_BLOCKS[level] for level in levels}
    kept: dict[str, Tensor] = {}
    output = images
    names = list(blocks)
    needed = {name: blocks[name] for name in names[: max(map(names.index, wanted)) + 1]}
    for name, chunk in chunks_of(needed, recompute) if recompute else ((name, [needed[name]]) for name in needed):
        again = recompute and name != NOT_RECOMPUTED
        output = recomputed(chunk, output) if again else run(chunk, output)
        if name in wanted:
            kept[name] = output  # of a layer in several chunks, the last one's stays
    return [kept[LEVEL_BLOCKS[level]] for level in levels]


def multi_level_embedding(maps: Sequence[Tensor]) -> Tensor:
    """Average-pool each map, L2-normalise it, and concatenate (Eq. 9).

    Each level is normalised on its own because their magnitudes differ by orders; together they would be one level.
    Half-precision maps are pooled and returned in float32: the result is also the target of stage 2.

    Args:
        maps: Maps ``(n, channels, height, width)`` of several levels.

    Returns:
        Embeddings ``(n, E)``, each of length sqrt(number of levels).
    """
    pooled = [level.mean(dim=(2, 3), dtype=torch.promote_types(level.dtype, torch.float32)) for level in maps]
    return torch.cat([functional.normalize(level, dim=1) for level in pooled], dim=1)


def encode_slices(
    blocks: nn.ModuleDict,
    volume: Tensor,
    levels: Sequence[str] = PAPER_LEVELS,
    valid: Tensor | None = None,
    *,
    recompute: int = 0,
) -> Tensor:
    """Embed every slice of a batch of volumes.

    Padded slices never enter the network: BatchNorm would count them in its statistics.

    Args:
        blocks: As in `feature_maps`.
        volume: ``(B, F, C, H, W)`` with C = 1 (copied to every input channel) or the channels that conv1 reads.
        levels: Levels to concatenate.
        valid: True where a slice exists, ``(B, F)``; None means all.
        recompute: As in `feature_maps`.

    Returns:
        Embeddings ``(B, F, E)``; zeros where a slice does not exist.

    Raises:
        ValueError: If C does not fit conv1, or if ``valid`` does not fit the volume.
    """
    images, places = rearrange(volume, "b f c h w -> (b f) c h w"), None
    if valid is not None:
        if valid.shape != volume.shape[:2]:
            raise ValueError(f"valid {tuple(valid.shape)} does not fit volumes of shape {tuple(volume.shape)}")
        valid_lengths(valid)
        # A device is waited for here, before its work is queued, and not again behind it.
        places = valid.flatten().nonzero().flatten()
        images = images.index_select(0, places)
    channels = blocks["conv1"].get_parameter("weight").shape[1]
    if images.shape[1] == 1:
        images = images.expand(-1, channels, -1, -1)
    elif images.shape[1] != channels:
        raise ValueError(
            f"slices have {images.shape[1]} channels, but conv1 reads {channels}; "
            f"give 1 channel or {channels}, for example by choosing one sequence of an MRI"
        )
    found = multi_level_embedding(feature_maps(blocks, images, levels, recompute))  # (slices that exist, E)
    if places is not None:
        found = found.new_zeros(volume.shape[:2].numel(), found.shape[1]).index_copy(0, places, found)
    return rearrange(found, "(b f) e -> b f e", b=volume.shape[0])


class SliceEncoder(nn.Module):
    """f_intra of its own, for use without VISSL: torchvision's ResNet-50 read at several levels (Eq. 9).

    Args:
        levels: Levels to concatenate; `PAPER_LEVELS` by default.
    """

    def __init__(self, levels: Sequence[str] = PAPER_LEVELS) -> None:
        super().__init__()
        self.embedding_width = embedding_width(levels)
        self.levels = tuple(levels)
        resnet = torchvision.models.resnet50(weights=None)
        names = {"conv1": "conv1", "bn1": "bn1", "conv1_relu": "relu", "maxpool": "maxpool"}
        names |= {name: name for name in ("layer1", "layer2", "layer3", "layer4")}
        self.blocks = nn.ModuleDict({ours: getattr(resnet, theirs) for ours, theirs in names.items()})

    def forward(self, volume: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed ``(B, F, C, H, W)`` to ``(B, F, E)``; without ``valid``, slices that are NaN count as padding."""
        return encode_slices(self.blocks, volume, self.levels, valid_slices(volume) if valid is None else valid)
