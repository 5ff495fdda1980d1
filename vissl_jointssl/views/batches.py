"""Views in batches, on the device that trains: a worker reads windows and draws, the device does the rest.

`pack_windows` makes one tensor of bytes of a batch of windows, whatever their shapes and types, so that one block of
shared memory travels from a worker and one copy goes to the device; `make_views` turns it into a batch of views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vissl_jointssl.views.applying import fill_crop_views
from vissl_jointssl.views.drawing import ViewParameters
from vissl_jointssl.views.families import AnyParameters
from vissl_jointssl.views.planes import pool_slices
from vissl_jointssl.views.released import apply_released_view

ALIGNMENT = 64  # bytes; a window begins on a multiple of it, whatever its type


@dataclass(frozen=True)
class Windows:
    """Windows of volumes as they are stored, one after the other in memory.

    Attributes:
        memory: Bytes, `(n,)` uint8.
        places: Of each window: first byte, type, shape.
    """

    memory: Tensor
    places: tuple[tuple[int, torch.dtype, tuple[int, ...]], ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Tensor:
        """A window, in the same memory."""
        first, kind, shape = self.places[number]
        return self.memory[first : first + math.prod(shape) * kind.itemsize].view(kind).view(shape)

    def to(self, device: torch.device) -> Windows:
        """The same on a device, where a copy from pinned memory does not wait."""
        return replace(self, memory=self.memory.to(device, non_blocking=True))

    def pin_memory(self) -> Windows:
        """The same in memory that a GPU reads by itself; a data loader's pinning asks for it by this name."""
        return replace(self, memory=self.memory.pin_memory())


def pack_windows(windows: Sequence[Tensor]) -> Windows:
    """Put windows on the CPU one after the other; those that a view would pool should be pooled, see `least_window`."""
    places, size = [], 0
    for window in windows:
        places.append((size, window.dtype, tuple(window.shape)))
        size += -(-window.numel() * window.element_size() // ALIGNMENT) * ALIGNMENT
    packed = Windows(torch.empty(size, dtype=torch.uint8), tuple(places))
    for number, window in enumerate(windows):
        packed[number].copy_(window)
    return packed


def least_window(window: Tensor, parameters: AnyParameters) -> Tensor:
    """The window if a view of it takes it voxel by voxel; pooled, and float32 in [0, 1], where it is far finer.

    A slice of 512 x 512 pixels that is shown whole by 128 x 128 is sixteen times more to send than what is looked at.
    """
    if not isinstance(parameters, ViewParameters):
        return window
    sides = torch.empty(window.shape, dtype=window.dtype, device="meta")
    if pool_slices(sides.float(), parameters).shape == window.shape:
        return window
    return pool_slices(unit_interval(window), parameters)


def make_views(
    windows: Windows | Sequence[Tensor], parameters: Sequence[AnyParameters], *, same_noise: bool = True
) -> Tensor:
    """Make a batch of views of one family and size on the device that the windows are on.

    Equal to `apply_view` of each volume but for rounding, noise apart where `same_noise` is False.

    Args:
        windows: What `window` cuts out, `(F, H, W)` or `(C, F, H, W)`, of any of the types that are stored, integers
            standing for [0, 1] by their own range; C is the same for all, F, H and W are not. Or what `least_window`
            made of them.
        parameters: One view of each.
        same_noise: Draw noise on the CPU, as `apply_view` does. False draws it on the device, from the same seeds other
            numbers; a GPU then does not wait for the CPU.

    Returns:
        `(B, F, C, H, W)`, float32.

    Raises:
        ValueError: If the views are not of one family and size, or as `apply_view`.
    """
    kinds = {(type(view).__name__, view.num_slices, *view.size) for view in parameters}
    if len(windows) != len(parameters) or len(kinds) != 1:
        raise ValueError(
            f"{len(windows)} windows and {len(parameters)} views of kinds {sorted(kinds)}; expected one kind, one each"
        )
    first, view = windows[0], parameters[0]
    channels = 1 if first.ndim == 3 else len(first)
    views = torch.empty(len(parameters), view.num_slices, channels, *view.size, device=first.device)
    # Few steps for many voxels are a GPU's way; on a CPU, a view at a time stays in its cache.
    at_once = len(parameters) if first.is_cuda else 1
    for start in range(0, len(parameters), at_once):
        part = range(start, min(start + at_once, len(parameters)))
        voxels = [unit_interval(windows[number]) for number in part]
        _fill(views[part.start : part.stop], voxels, [parameters[number] for number in part], same_noise=same_noise)
    return views


def _fill(views: Tensor, voxels: Sequence[Tensor], parameters: Sequence[AnyParameters], *, same_noise: bool) -> None:
    crops = [view for view in parameters if isinstance(view, ViewParameters)]
    if crops:
        fill_crop_views(views, voxels, crops, same_noise=same_noise)
        return
    released = [view for view in parameters if not isinstance(view, ViewParameters)]
    for place, one, view in zip(views, voxels, released, strict=True):
        place.copy_(apply_released_view(one, view, same_noise=same_noise))


def unit_interval(stored: Tensor) -> Tensor:
    """As `as_unit_interval`, of tensors on any device: stored values as float32 in [0, 1]."""
    if stored.dtype.is_floating_point:
        return stored.to(torch.float32)
    return stored.to(torch.float32).div_(torch.iinfo(stored.dtype).max)
