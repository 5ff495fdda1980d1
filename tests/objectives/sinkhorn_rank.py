"""One rank of the two-rank Sinkhorn test; run as a program: rank, folder."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from vissl_jointssl.objectives.sinkhorn import sinkhorn


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    scores = torch.load(folder / "scores.pt", weights_only=True)
    codes = sinkhorn(scores.chunk(2)[rank], epsilon=0.05, iterations=3)
    torch.save(codes, folder / f"codes{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
