"""`jointssl speed scaling`: a step's time against slices and volumes, an epoch's against the data set, and memory."""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vissl_jointssl.speed.engine_runs import StepTimes, prepare_scans, random_start, timed_run
from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.step import PACKAGES, WARM_UP, Sizes, device_overrides, stage3_overrides
from vissl_jointssl.speed.timed_engine import ALONE
from vissl_jointssl.speed.timing import Timing, machine, machine_line

SLICES, VOLUMES, DATA_SET, RANKS = "slices", "volumes", "data_set", "ranks"
AXES = {SLICES: "slices of a view, F", VOLUMES: "volumes of a step, B", DATA_SET: "volumes of the data set, N"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Range:
    """What is run.

    Args:
        slices: F, at one volume a step.
        volumes: B, at `few_slices`.
        data_set: N, one volume a step, at `few_slices`.
        few_slices: F where F does not vary.
        size: Side of a slice, pixels.
    """

    slices: tuple[int, ...] = (16, 32, 64, 128, 256)
    volumes: tuple[int, ...] = (1, 2, 4, 8)
    data_set: tuple[int, ...] = (8, 16, 32, 64)
    few_slices: int = 16
    size: int = 64


def measure(settings: Settings, extent: Range | None = None) -> dict[str, Any]:
    """Stage 3 (SwAV) at each place of three axes, and on one rank and two; each is a run of its own.

    Ranks have the same batch, and on a CPU one thread each.

    Raises:
        RecipeError: If a run fails.
    """
    extent = extent or Range()
    steps = settings.repetitions + WARM_UP
    with tempfile.TemporaryDirectory(prefix="jointssl-speed-") as name:
        scratch = Path(name)
        most = max(*extent.data_set, steps * max(extent.volumes))
        shape = (extent.size, extent.size, max(extent.slices) + extent.few_slices)
        manifest = prepare_scans(scratch, most, shape)
        common = [f"config.DATA.TRAIN.DATA_PATHS=[{manifest}]", *device_overrides(settings.device)]
        start = random_start(scratch)

        def run(axis: str, place: int, slices: int, volumes: int, limit: int, ranks: int | None = None) -> StepTimes:
            _log.info("%s: %d", axis, place)
            sizes = Sizes(volumes=volumes, slices=slices, size=extent.size)
            overrides = [*common, *stage3_overrides(sizes, start), f"config.DATA.TRAIN.DATA_LIMIT={limit}"]
            if ranks is not None:
                overrides.append(f"config.DISTRIBUTED.NUM_PROC_PER_NODE={ranks}")
            return timed_run(scratch / f"{axis}{place}", ALONE, overrides, threads=ranks and 1)

        few = extent.few_slices
        by_slices = {place: run(SLICES, place, place, 1, steps) for place in extent.slices}
        by_volumes = {place: run(VOLUMES, place, few, place, steps * place) for place in extent.volumes}
        by_data_set = {place: run(DATA_SET, place, few, 1, place) for place in extent.data_set}
        by_ranks = {ranks: run(RANKS, ranks, few, 1, ranks * steps, ranks) for ranks in _ranks(settings.device)}
    of_ranks = {str(ranks): Timing(times.steps[WARM_UP:]).median for ranks, times in by_ranks.items()}
    return {
        "what": "scaling",
        "machine": machine(PACKAGES),
        "device": settings.device,
        "size": extent.size,
        SLICES: _axis({place: Timing(times.steps[WARM_UP:]).median for place, times in by_slices.items()}),
        VOLUMES: _axis({place: Timing(times.steps[WARM_UP:]).median for place, times in by_volumes.items()}),
        DATA_SET: _axis({place: sum(times.steps) for place, times in by_data_set.items()})
        | {"peak_bytes": {str(place): times.peak for place, times in by_data_set.items()}},
        RANKS: {"seconds": of_ranks, "efficiency": of_ranks["1"] / of_ranks["2"] if "2" in of_ranks else None},
    }


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """Of the least-squares line through the logarithms of both: 1 is linear growth, 2 quadratic."""
    fit = statistics.linear_regression([math.log(place) for place in places], [math.log(value) for value in values])
    return float(fit.slope)


def table(measured: Mapping[str, Any]) -> str:
    """Seconds at each place and the slopes, as lines."""
    lines = [machine_line(measured["machine"]), f"device: {measured['device']}; slices of {measured['size']} pixels"]
    for axis, words in AXES.items():
        found = measured[axis]
        unit = "epoch" if axis == DATA_SET else "step"
        lines += ["", f"{words}: {unit} ~ {words[-1]}^{found['slope']:.2f}"]
        lines += [f"{int(place):8d}  {seconds:9.3f} s" for place, seconds in found["seconds"].items()]
    peaks = measured[DATA_SET]["peak_bytes"]
    lines += [
        "",
        "most memory: " + ", ".join(f"{peak / 2**20:.0f} MiB at N = {place}" for place, peak in peaks.items()),
    ]
    ranks = measured[RANKS]
    taken = ", ".join(f"{seconds:.3f} s on {count}" for count, seconds in ranks["seconds"].items())
    efficiency = "not measured on two" if ranks["efficiency"] is None else f"efficiency {ranks['efficiency']:.2f}"
    lines.append(f"ranks, the same batch on each: a step {taken}; {efficiency}")
    return "\n".join(lines)


def ratios(measured: Mapping[str, Any]) -> dict[str, float]:
    """Slopes, and the memory of the largest data set over that of the smallest."""
    peaks = list(measured[DATA_SET]["peak_bytes"].values())
    found = {f"{axis}_slope": measured[axis]["slope"] for axis in AXES} | {"memory_growth": peaks[-1] / peaks[0]}
    efficiency = measured[RANKS]["efficiency"]
    return found if efficiency is None else found | {"efficiency_of_two_ranks": efficiency}


def _ranks(device: str) -> tuple[int, ...]:
    """Each needs a GPU of its own."""
    if device == "cpu":
        return 1, 2
    import torch

    return tuple(range(1, min(torch.cuda.device_count(), 2) + 1))


def _axis(seconds: Mapping[int, float]) -> dict[str, Any]:
    return {
        "seconds": {str(place): value for place, value in seconds.items()},
        "slope": slope(list(seconds), list(seconds.values())),
    }
