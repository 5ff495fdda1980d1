"""`jointssl speed step`: training steps inside VISSL's engine, by turns with a bare ResNet-50 and the released step."""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vissl_jointssl.speed.engine_runs import StepTimes, prepare_scans, random_start, timed_run
from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.timed_engine import ALONE, BY_TURNS, CEILING, RELEASED, THREE_BY_TURNS
from vissl_jointssl.speed.timing import Timing, machine, machine_line

WARM_UP = 2  # steps; libraries choose algorithms, memory grows
SCAN_SHAPE = (160, 160, 96)  # columns, rows, slices: more than a view has
PACKAGES = ("torch", "torchvision", "vissl", "deformable-attention")
STEP_OVER_CEILING, STAGE1_OVER_CEILING = "step_over_ceiling", "stage1_over_ceiling"
RELEASED_OVER_CEILING, DATA_WAIT, START_UP = "released_over_ceiling", "data_wait_share", "start_up_seconds"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sizes:
    """What a step is made of.

    Args:
        volumes: A step's, per device; two views of each.
        slices: F of a view.
        size: Side of a view, pixels.
        images: Stage 1's, per device; eight crops of each.
        crops: Sides of stage 1's large and small crops.
    """

    volumes: int = 1
    slices: int = 64
    size: int = 128
    images: int = 8
    crops: tuple[int, int] = (224, 96)


CPU_SIZES = Sizes()
GPU_SIZES = Sizes(volumes=6, images=64)  # stage 3's own batch


def measure(settings: Settings, sizes: Sizes | None = None) -> dict[str, Any]:
    """Stage 3 and stage 1 (SwAV) by turns with their ceilings, then stage 3 alone, to see it wait for data.

    Raises:
        RecipeError: If a run fails, for one because deformable-attention is missing.
    """
    sizes = sizes or (GPU_SIZES if settings.device == "gpu" else CPU_SIZES)
    steps = settings.repetitions + WARM_UP
    with tempfile.TemporaryDirectory(prefix="jointssl-speed-") as name:
        scratch = Path(name)
        manifest = prepare_scans(scratch, steps * sizes.volumes, SCAN_SHAPE)
        common = [f"config.DATA.TRAIN.DATA_PATHS=[{manifest}]", *device_overrides(settings.device)]
        stage3 = [*common, *stage3_overrides(sizes, random_start(scratch))]
        _log.info("stage 3, %d steps by turns with its ceiling and the released step", steps)
        step = timed_run(scratch / "stage3", THREE_BY_TURNS, stage3)
        _log.info("stage 1, %d steps by turns with its ceiling", steps)
        stage1 = timed_run(scratch / "stage1", BY_TURNS, [*common, *stage1_overrides(sizes, steps)])
        _log.info("stage 3 alone, %d steps", steps)
        alone = timed_run(scratch / "alone", ALONE, stage3)
    return {
        "what": "step",
        "machine": machine(PACKAGES),
        "device": settings.device,
        "stage3": {"images": 2 * sizes.volumes * sizes.slices, "size": sizes.size} | _summary(step),
        "stage1": {"images": 8 * sizes.images, "sizes": sizes.crops} | _summary(stage1),
        "alone": {
            "step": Timing(alone.steps[WARM_UP:]).summary(),
            "parts": {name: statistics.median(seconds[WARM_UP:]) for name, seconds in alone.parts.items()},
            START_UP: alone.start_up,
            DATA_WAIT: sum(alone.waits[WARM_UP:]) / sum(alone.steps[WARM_UP:]),
        },
    }


def table(measured: Mapping[str, Any]) -> str:
    """Steps, ceilings and their ratios, as lines."""
    lines = [machine_line(measured["machine"]), f"device: {measured['device']}", ""]
    for name, what in (("stage3", "stage 3"), ("stage1", "stage 1")):
        of = measured[name]
        lines += [
            f"{what}: step {of['step']['median']:.3f} s, ceiling {of['ceiling']['median']:.3f} s "
            f"for {of['images']} images; {of['over_ceiling']:.3f} times the ceiling "
            f"(quartiles of the ratio {of['quartiles'][0]:.3f} to {of['quartiles'][1]:.3f})"
        ]
    released, over = measured["stage3"][RELEASED], measured["stage3"][RELEASED_OVER_CEILING]
    lines.append(f"the released step: {released['median']:.3f} s, {over:.3f} times the ceiling")
    alone = measured["alone"]
    parts = ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in alone["parts"].items())
    lines.append(f"a step of stage 3 alone: {alone['step']['median']:.3f} s; its parts, ms: {parts}")
    lines.append(f"waiting for data: {100 * alone[DATA_WAIT]:.2f} % of it")
    lines.append(f"from the program's start to the first step: {alone[START_UP]:.1f} s")
    return "\n".join(lines)


def ratios(measured: Mapping[str, Any]) -> dict[str, float]:
    """For `jointssl speed all`."""
    return {
        STEP_OVER_CEILING: measured["stage3"]["over_ceiling"],
        STAGE1_OVER_CEILING: measured["stage1"]["over_ceiling"],
        RELEASED_OVER_CEILING: measured["stage3"][RELEASED_OVER_CEILING],
        DATA_WAIT: measured["alone"][DATA_WAIT],
    }


def device_overrides(device: str) -> list[str]:
    """One process on one device, in bfloat16 on a GPU; a CPU's loader has one worker, for the step needs the cores."""
    if device == "gpu":
        return [
            "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
            "config.MODEL.AMP_PARAMS.USE_AMP=True",
            "config.MODEL.AMP_PARAMS.AMP_TYPE=bfloat16",
        ]
    return [
        "config.MACHINE.DEVICE=cpu",
        "config.DISTRIBUTED.BACKEND=gloo",
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
        "config.MODEL.AMP_PARAMS.USE_AMP=False",
        "config.DATA.NUM_DATALOADER_WORKERS=1",
    ]


def stage3_overrides(sizes: Sizes, start: Path) -> list[str]:
    """Stage 3, SwAV, for one epoch."""
    return [
        "config=jointssl/stage3_swav",
        "+config.JOINT_SSL.SKIP_STAGE_2=True",
        "+config.JOINT_SSL.ALLOW_UNRECORDED_PARENT=True",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE={start}",
        f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={sizes.volumes}",
        f"config.DATA.TRAIN.TRANSFORMS.0.num_slices={sizes.slices}",
        f"config.DATA.TRAIN.TRANSFORMS.0.size=[{sizes.size},{sizes.size}]",
        "config.OPTIMIZER.num_epochs=1",
    ]


def stage1_overrides(sizes: Sizes, steps: int) -> list[str]:
    """Stage 1, SwAV, for as many steps."""
    return [
        "config=jointssl/stage1_swav",
        f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={sizes.images}",
        f"config.DATA.TRAIN.TRANSFORMS.0.size_crops=[{sizes.crops[0]},{sizes.crops[1]}]",
        f"config.DATA.TRAIN.DATA_LIMIT={steps * sizes.images}",
        "config.OPTIMIZER.num_epochs=1",
    ]


def _summary(times: StepTimes) -> dict[str, Any]:
    """Without the warm-up; quartiles are those of each step's ratio to the ceiling right after it."""
    steps, ceilings = times.steps[WARM_UP:], times.others[CEILING][WARM_UP:]
    ratios = Timing(tuple(step / ceiling for step, ceiling in zip(steps, ceilings, strict=True)))
    ceiling = Timing(ceilings).median
    found = {
        "step": Timing(steps).summary(),
        CEILING: Timing(ceilings).summary(),
        "over_ceiling": Timing(steps).median / ceiling,
        "quartiles": ratios.quartiles,
    }
    if RELEASED in times.others:
        released = Timing(times.others[RELEASED][WARM_UP:])
        found |= {RELEASED: released.summary(), RELEASED_OVER_CEILING: released.median / ceiling}
    return found
