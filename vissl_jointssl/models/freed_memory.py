"""Memory that is free for the system, too, on a CPU."""

from __future__ import annotations

import ctypes

LARGE = 2**22
"""Bytes. Smaller maps are few beside these, and to give each of them back would cost more than it saves."""

_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


def give_back_freed_maps() -> bool:
    """From now on a large tensor's memory goes back to the system when the tensor goes; False without glibc.

    glibc's malloc learns from what is freed and keeps blocks of up to 32 MiB for itself. Where things that live on lie
    between the maps of a step, the holes fit no later map: a recomputed step of 64 slices of 112x112 held 1.0 GiB that
    way, and holds 0.5. The system clears what it gives anew, which costs time; so this is for who is short of memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LARGE) == 1
