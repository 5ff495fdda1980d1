"""One contestant of `jointssl speed memory`, alone in a process: what its step takes, as a line of JSON.

A process of its own, because a process's peak only ever grows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vissl_jointssl.models.freed_memory import give_back_freed_maps
from vissl_jointssl.models.slice_encoder import SliceEncoder, encode_slices
from vissl_jointssl.process_memory import peak_bytes, resident_bytes

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
    peak = torch.cuda.max_memory_allocated() if place.type == "cuda" else peak_bytes()
    found = {"seconds": seconds, "bytes": float(peak - before)}
    flat = torch.cat([one.grad.flatten() for one in encoder.parameters() if one.grad is not None])
    torch.save(flat.cpu(), gradients)
    return found


def _taken(place: torch.device) -> int:
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    taken = resident_bytes()
    if taken is None:
        raise OSError("this system does not tell how much memory a process has; measure on Linux, or on a GPU")
    return taken


if __name__ == "__main__":
    slices, side, device, recompute, gradients = sys.argv[1:]
    found = measure_step(int(slices), int(side), device, int(recompute), Path(gradients))
    sys.stdout.write(json.dumps(found) + "\n")
