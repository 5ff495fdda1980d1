"""What hooks that take times share: a clock that waits for the device, and an iterator that is watched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def device_time(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class WatchedIterator:
    """An iterator that shows each item, and how long it took; it can end before it is through.

    Args:
        inner: An epoch's, such as `task.data_iterator`.
        show: Called with each item and the seconds that it was waited for.
    """

    def __init__(self, inner: Any, show: Callable[[Any, float], None]) -> None:
        self._inner = inner
        self._show = show
        self._length = len(inner)

    def end(self) -> None:
        """There is no further item."""
        self._inner = iter(())

    def __len__(self) -> int:
        """Steps of the epoch; VISSL's and Classy Vision's hooks ask."""
        return self._length

    def __iter__(self) -> WatchedIterator:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        item = next(self._inner)
        self._show(item, time.perf_counter() - start)
        return item
