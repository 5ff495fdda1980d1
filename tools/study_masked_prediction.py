"""How far stage 2's task gets below two naive guesses, on volumes that it has not trained on.

    python tools/study_masked_prediction.py MANIFEST STAGE1_CHECKPOINT [--every 3] [--steps 1000]

Trains f_inter and f_decode at stage 2's defaults on cached embeddings of f_intra, which is frozen there too: the same
task without paying for the ResNet in every step. Takes the training split's volumes, every so many slices, and scores
the test split's: the loss, and what "the mean embedding" and "the average of both neighbours" would have.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import trange

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, read_checkpoint
from vissl_jointssl.manifest import Manifest, as_unit_interval, read_manifest
from vissl_jointssl.models.masked_decoder import MaskedDecoder
from vissl_jointssl.models.masking import draw_mask, hide_slices
from vissl_jointssl.models.slice_encoder import SliceEncoder
from vissl_jointssl.models.volume_encoder import VolumeEncoder, volume_embedding
from vissl_jointssl.objectives.collapse import mean_cosine
from vissl_jointssl.objectives.masked_baselines import mean_embedding_distance, neighbour_distance
from vissl_jointssl.objectives.masked_embedding import masked_embedding_loss
from vissl_jointssl.views import (
    GREY_DEVIATION,
    GREY_MEAN,
    SampleKey,
    ViewRecipe,
    apply_view,
    draw_view,
    view_generator,
    window,
)

WIDTH, MASK_RATIO, BATCH, VIEWS = 640, 0.1, 16, 4
RATE, WARM_UP, WEIGHT_DECAY = 2e-4, 0.1, 0.01  # as configs/config/jointssl/stage2_swav.yaml


class MaskedPrediction(nn.Module):
    """What stage 2 trains: the map E -> D, [MASK], f_inter and f_decode."""

    def __init__(self, embedding_width: int, slices: int) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding_width, WIDTH)
        self.mask_token = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.f_inter = VolumeEncoder(width=WIDTH, reference_length=max(2, slices))
        self.f_decode = MaskedDecoder(WIDTH, embedding_width)

    def forward(self, target: Tensor, mask: Tensor) -> Tensor:
        """Predictions for `(B, F, E)` with the slices of `mask` `(B, F)` hidden."""
        return self.f_decode(self.f_inter(hide_slices(self.projection(target), mask, self.mask_token)))


def main() -> int:
    """Train, and print one line of scores now and then."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("checkpoint", type=Path, help="of stage 1")
    parser.add_argument("--every", type=int, default=1, help="take every so many slices: thicker ones")
    parser.add_argument("--slices", type=int, default=24, help="F before that")
    parser.add_argument("--size", type=int, default=32, help="H and W")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    torch.manual_seed(0)
    encoder = SliceEncoder().eval()
    trunk = read_checkpoint(args.checkpoint).trunk
    weights = {name.removeprefix(SLICE_ENCODER_PREFIX): value for name, value in trunk.items()}
    encoder.blocks.load_state_dict({name: weights[name] for name in encoder.blocks.state_dict()})
    recipe = ViewRecipe(size=(args.size, args.size), num_slices=args.slices)
    manifest = read_manifest(args.manifest)
    train, test = (embed(manifest, split, encoder, recipe)[:, :: args.every] for split in ("train", "test"))
    model = MaskedPrediction(train.shape[-1], train.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    print(f"{len(train)} views of {train.shape[1]} slices to train, {len(test)} of other volumes to test")
    for step in trange(args.steps, unit="step"):
        share = step / args.steps
        rate = RATE * min(1, (share + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        target = train[torch.randint(len(train), (BATCH,))]
        mask = draw_mask(torch.ones(target.shape[:2], dtype=torch.bool), MASK_RATIO)
        loss = masked_embedding_loss(model(target, mask), target, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % max(1, args.steps // 5) == 0:
            print(f"\nstep {step + 1}: {score(model, test)}")
    return 0


@torch.no_grad()
def embed(manifest: Manifest, split: str, encoder: SliceEncoder, recipe: ViewRecipe) -> Tensor:
    """Embeddings of some views of each volume, `(volumes * VIEWS, F, E)`; volumes with fewer slices are left out."""
    embeddings = []
    for number, entry in enumerate(manifest.select(kind="volume", splits=[split])):
        if entry.shape[0] < recipe.num_slices:
            print(f"{entry.id}: {entry.shape[0]} slices, fewer than {recipe.num_slices}; left out")
            continue
        volume = manifest.open(entry)
        for view in range(VIEWS):
            drawn = draw_view(recipe, volume.shape, view_generator(SampleKey(0, 0, number), view), entry.spacing)
            pixels = torch.from_numpy(np.ascontiguousarray(as_unit_interval(window(volume, drawn))))
            embeddings.append(encoder((apply_view(pixels, drawn)[None] - GREY_MEAN) / GREY_DEVIATION)[0])
    return torch.stack(embeddings)


@torch.no_grad()
def score(model: MaskedPrediction, target: Tensor) -> str:
    """The loss on unseen volumes beside both guesses, and how alike the volumes' embeddings are."""
    valid = torch.ones(target.shape[:2], dtype=torch.bool)
    mask = draw_mask(valid, MASK_RATIO, torch.Generator().manual_seed(1))
    model.eval()
    loss = masked_embedding_loss(model(target, mask), target, mask)
    volumes = volume_embedding(model.f_inter(model.projection(target)))
    model.train()
    mean, neighbours = (guess(target, mask, valid) for guess in (mean_embedding_distance, neighbour_distance))
    return (
        f"loss {loss:.4f}, the mean embedding {mean:.4f}, the average of both neighbours {neighbours:.4f}; "
        f"mean cosine of volumes {mean_cosine(volumes):.4f}"
    )


if __name__ == "__main__":
    sys.exit(main())
