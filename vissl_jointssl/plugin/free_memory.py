"""Bytes that a rank may still take on the device it trains on."""

from __future__ import annotations

import torch

from vissl_jointssl.machine_memory import machine_memory


def free_memory(device: torch.device, ranks: int) -> int | None:
    """What is free for one rank, bytes; None where the system does not tell.

    On a GPU that is what the driver has and what PyTorch took and does not use. On a CPU it is a share of what the
    machine, or the job, has left; ranks on other machines are counted as if they were on this one, for the safe side.

    Args:
        device: Of the rank.
        ranks: How many the run has.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    memory = machine_memory()
    return None if memory is None else memory.allowed // ranks
