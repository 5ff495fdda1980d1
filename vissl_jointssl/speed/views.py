"""`jointssl speed views`: batches of views on the training device, against TorchIO's transforms of the same volumes."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.timing import machine, time_by_turns
from vissl_jointssl.speed.torchio_twins import torchio_twin
from vissl_jointssl.views import (
    AnyParameters,
    ReleasedRecipe,
    ReleasedViewParameters,
    ViewRecipe,
    apply_view,
    draw_view,
    make_views,
)
from vissl_jointssl.views.batches import unit_interval
from vissl_jointssl.views.released.parameters import TRANSFORMS, Flip

SHAPE = (64, 128, 128)  # F, H, W of the volumes, and of the views that the paper trains on
PACKAGES = ("torch", "torchio")
FAMILIES = ("crop", "released")
TOLERANCE = 2e-3  # of [0, 1]; the rounding of an interpolation
STRAY = 1e-3  # share of voxels that may be farther off: at ties, rounding decides which voxel is nearest
_OTHER = "torchio"
_WAYS = {
    _OTHER: "TorchIO, seven transforms",
    "released": "ours, the same seven, a batch",
    "crop": "ours, the default views, a batch",
}


@dataclass(frozen=True)
class Round:
    """What every contestant does once.

    Attributes:
        volume: `(F, H, W)` uint16, as the cache stores it, on the device that makes our views.
        unit: The same as TorchIO reads it, `(1, F, H, W)` in [0, 1], on the CPU.
        released: One view for each of the seven transforms.
        crop: As many default views.
    """

    volume: Tensor
    unit: Tensor
    released: list[ReleasedViewParameters]
    crop: list[AnyParameters]


def measure(settings: Settings) -> dict[str, Any]:
    """Time rounds of seven views of a volume, each in all ways, and check that both make the same views.

    TorchIO gets the volume as floats in memory; ours is still as stored, and is converted for every view.

    Raises:
        ValueError: If TorchIO is missing, or a contestant made other views.
    """
    return measure_views(settings.repetitions, torch.device("cuda" if settings.device == "gpu" else "cpu"))


def measure_views(repetitions: int, device: torch.device, shape: tuple[int, int, int] = SHAPE) -> dict[str, Any]:
    """As `measure`, of volumes of another shape, too."""
    if importlib.util.find_spec("torchio") is None:
        raise ValueError("torchio is not installed, and it is what we are measured against; pip install torchio")
    rounds = [_draw_round(number, device, shape) for number in range(repetitions + 1)]
    contestants: Mapping[str, Callable[[Round], list[Tensor]]] = {
        _OTHER: _torchio_views,
        "released": lambda case: _our_views(case.volume, case.released),
        "crop": lambda case: _our_views(case.volume, case.crop),
    }
    time_by_turns(contestants, rounds[:1], check_same)  # imports, and what else happens once
    timings = time_by_turns(contestants, rounds[1:], check_same)
    views = len(TRANSFORMS)
    seconds = {name: statistics.median(timing.seconds) / views for name, timing in timings.items()}
    return {
        "what": "views",
        "machine": machine(PACKAGES),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "shape": shape,
        "views": views,
        "repetitions": repetitions,
        "seconds_per_round": {name: timing.summary() for name, timing in timings.items()},
        "views_per_second": {name: 1 / taken for name, taken in seconds.items()},
        "times_as_fast": {name: seconds[_OTHER] / seconds[name] for name in FAMILIES},
    }


def table(measured: Mapping[str, Any]) -> str:
    """Lines of text, the last without a line break."""
    made, width = measured["machine"], max(map(len, _WAYS.values()))
    rows = [f"{'views by':{width}}  {'ms each':>8}  {'a second':>8}  {'times TorchIO':>13}"]
    for name, way in _WAYS.items():
        rate = measured["views_per_second"][name]
        times = rate / measured["views_per_second"][_OTHER]
        rows.append(f"{way:{width}}  {1000 / rate:>8.1f}  {rate:>8.1f}  {times:>13.1f}")
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    shape = " x ".join(map(str, measured["shape"]))
    return "\n".join(
        [
            f"{measured['views']} views of a volume of {shape}, {measured['repetitions']} times, medians; ours on: "
            f"{measured['device']}, {measured['threads']} threads",
            f"{made['cores']} cores, {made['processor']}; {versions}; commit {made['commit']}",
            "",
            *rows,
        ]
    )


def ratios(measured: Mapping[str, Any]) -> dict[str, float]:
    """How many times as many views a second as TorchIO's: of the family that does the same work, and of the default."""
    faster = measured["times_as_fast"]
    return {"views_speedup": faster["released"], "default_views_speedup": faster["crop"]}


def check_same(case: Round, results: Mapping[str, Sequence[Tensor]]) -> None:
    """Raise where views differ: a time for other views says nothing.

    TorchIO's against ours of the released family, and the batch of the crop family against its views one by one.

    Raises:
        ValueError: With the view and how far off it is.
    """
    same = not case.volume.is_cuda
    released = results["released"] if same else _our_views(case.volume, case.released, same_noise=True)
    crop = results["crop"] if same else _our_views(case.volume, case.crop, same_noise=True)
    pairs = [
        (f"TorchIO's {type(view.transform).__name__}", expected, made)
        for view, expected, made in zip(case.released, results[_OTHER], released, strict=True)
    ]
    pairs += [
        (f"crop view {number} of the batch", apply_view(case.unit[0], view), made)
        for number, (view, made) in enumerate(zip(case.crop, crop, strict=True))
    ]
    for name, expected, made in pairs:
        if expected.shape != made.shape:
            raise ValueError(f"{name} has shape {tuple(expected.shape)}, ours {tuple(made.shape)}")
        near = (expected - made.cpu()).abs() <= TOLERANCE  # never of NaN
        off = 1 - near.double().mean().item()
        if off > STRAY:
            raise ValueError(f"{name} is another view than ours: {off:.2%} of its voxels are off by over {TOLERANCE}")


def _our_views(volume: Tensor, views: Sequence[AnyParameters], *, same_noise: bool = False) -> list[Tensor]:
    made = make_views([volume] * len(views), views, same_noise=same_noise)
    if volume.is_cuda:
        torch.cuda.synchronize(volume.device)
    return list(made)


def _torchio_views(case: Round) -> list[Tensor]:
    import torchio

    made = []
    for view in case.released:
        assert view.transform is not None  # drawn, not plain
        made.append(torchio_twin(view.transform)(torchio.ScalarImage(tensor=case.unit)).data.transpose(0, 1))
    return made


def _draw_round(seed: int, device: torch.device, shape: tuple[int, int, int]) -> Round:
    """A volume that is smooth as anatomy is, and views of it that keep it whole along the slices."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, *(max(2, side // 8) for side in shape), generator=generator)
    smooth = functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)[0, 0]
    volume = (smooth * torch.iinfo(torch.uint16).max).to(torch.int32).to(torch.uint16)
    sizes: Any = {"size": shape[1:], "num_slices": shape[0]}
    released = []
    for name in TRANSFORMS:
        view = draw_view(ReleasedRecipe(**sizes, transforms=(name,)), shape, generator)
        assert isinstance(view, ReleasedViewParameters)
        # RandomFlip does nothing half of the time; here it always has work to do.
        released.append(replace(view, transform=Flip((0,))) if name == "flip" else view)
    crop = [draw_view(ViewRecipe(**sizes), shape, generator) for _ in TRANSFORMS]
    return Round(volume.to(device), unit_interval(volume)[None], released, crop)
