"""How far a change of grey values moves a slice's embedding by f_intra, as a share of how far people are apart.

    python tools/study_grey_values.py MANIFEST [START ...] [--size 48]

Takes the middle slice of each volume that is not in the training split. For random weights and each START, anything
that `load_pretrained` reads, it prints the mean distance between the embeddings of a slice before and after the change
over the mean distance between two people's slices: 0 is a model that does not see it, 1 one to which it is as much as
another person. A shift in the plane stands beside it as a change of another kind.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from vissl_jointssl.manifest import Manifest, as_unit_interval, read_manifest
from vissl_jointssl.pretrained import load_pretrained
from vissl_jointssl.views import GREY_DEVIATION, GREY_MEAN, ViewParameters, apply_view, window

SHIFT = 0.125  # of the plane
CHANGES: dict[str, dict[str, Any]] = {
    "gamma 0.7": {"gamma": 0.7},
    "gamma 1.4": {"gamma": 1.4},
    "contrast 0.75": {"contrast": 0.75},
    "brightness +0.1": {"brightness": 0.1},
    "shift": {"affine": ((1.0, 0.0, SHIFT), (0.0, 1.0, 0.0))},
}


def main() -> int:
    """Print one line for each start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("starts", type=Path, nargs="*", help="folders of runs, or files of weights")
    parser.add_argument("--size", type=int, default=48, help="H and W")
    args = parser.parse_args()
    slices = middle_slices(read_manifest(args.manifest), args.size)
    untouched = as_input(slices, {})
    changed = [as_input(slices, change) for change in CHANGES.values()]
    print(f"{len(untouched)} slices; moved by: " + ", ".join(CHANGES))
    for start in [None, *args.starts]:
        model = random_model() if start is None else load_pretrained(start, model="slice")
        moved = [distance_moved(model, untouched, one) for one in changed]
        print(f"{start or 'random'}: " + ", ".join(f"{share:.2f}" for share in moved))
    return 0


def middle_slices(manifest: Manifest, size: int) -> list[tuple[Tensor, ViewParameters]]:
    """Of every volume outside the training split: what a view of its middle slice needs, and that view."""
    slices = []
    for entry in manifest.select(kind="volume", splits=["val", "test"]):
        volume = manifest.open(entry)
        drawn = ViewParameters((size, size), 1, first_slice=entry.shape[0] // 2, slices=1)
        slices.append((torch.from_numpy(np.ascontiguousarray(as_unit_interval(window(volume, drawn)))), drawn))
    return slices


def as_input(slices: list[tuple[Tensor, ViewParameters]], change: dict[str, Any]) -> Tensor:
    """The slices, changed, as f_intra takes them: `(N, 3, H, W)`."""
    views = torch.stack([apply_view(pixels, replace(drawn, **change))[0] for pixels, drawn in slices])
    return ((views - GREY_MEAN) / GREY_DEVIATION).expand(-1, 3, -1, -1)


@torch.no_grad()
def distance_moved(model: nn.Module, untouched: Tensor, changed: Tensor) -> float:
    """Mean distance of `(N, 3, H, W)` to the same slices changed, over that between two slices."""
    before, after = model(untouched), model(changed)
    return float((before - after).norm(dim=1).mean() / torch.pdist(before).mean())


def random_model() -> nn.Module:
    """f_intra at a random start."""
    torch.manual_seed(0)
    model = resnet50()
    model.fc = nn.Identity()
    return model.eval()


if __name__ == "__main__":
    sys.exit(main())
