"""One contestant of `jointssl speed memory`, alone in a process: what its step takes, as a line of JSON.

A process of its own, because a process's peak only ever grows.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vissl_jointssl.models.freed_memory import give_back_freed_maps
from vissl_jointssl.models.slice_encoder import SliceEncoder, encode_slices

STEPS = 2  # the first finds its memory, the second has it; the faster counts
WARM_UP = (2, 64)  # slices and side: weights' gradients and the optimizer's state are there before


def measure_step(slices: int, side: int, device: str, recompute: int, gradients: Path) -> dict[str, float]:
    """Training steps of f_intra, with SGD at rate 0, so that every step is the same.

    Args:
        slices: Slices of a step.
        side: H and W, pixels.
        device: ``cpu``, or ``gpu`` with bf16 autocast.
        recompute: As in `feature_maps`.
        gradients: A file to leave the gradients of all weights in, one long vector.

    Returns:
        `seconds` of the faster step, and `bytes` of its peak above what is there before it.
    """
    place = torch.device("cuda" if device == "gpu" else "cpu")
    if place.type == "cpu" and recompute:
        give_back_freed_maps()
    torch.manual_seed(0)
    encoder = SliceEncoder().to(place)
    cast(Any, encoder).to(memory_format=torch.channels_last)  # as in training; PyTorch's annotations lack it
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.0, momentum=0.9)
    weights = torch.randn(encoder.embedding_width, device=place)

    def step(volume: Tensor) -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(place.type, dtype=torch.bfloat16, enabled=place.type == "cuda"):
            embeddings = encode_slices(encoder.blocks, volume, encoder.levels, recompute=recompute)
        (embeddings * weights).sum().backward()
        optimizer.step()
        if place.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    step(torch.rand(1, WARM_UP[0], 1, WARM_UP[1], WARM_UP[1], device=place))
    volume = torch.rand(1, slices, 1, side, side, device=place)
    before = _taken(place)
    seconds = min(step(volume) for _ in range(STEPS))
    found = {"seconds": seconds, "bytes": float(_peak(place) - before)}
    flat = torch.cat([one.grad.flatten() for one in encoder.parameters() if one.grad is not None])
    torch.save(flat.cpu(), gradients)
    return found


def _taken(place: torch.device) -> int:
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _peak(place: torch.device) -> int:
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


if __name__ == "__main__":
    slices, side, device, recompute, gradients = sys.argv[1:]
    found = measure_step(int(slices), int(side), device, int(recompute), Path(gradients))
    sys.stdout.write(json.dumps(found) + "\n")
