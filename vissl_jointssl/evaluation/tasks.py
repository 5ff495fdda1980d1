"""Every downstream task by its name in a YAML; each imports what it needs when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from vissl_jointssl.evaluation.plan import PlanError
from vissl_jointssl.evaluation.task import Task
from vissl_jointssl.spelling import nearest

# name: (module, class)
TASKS = {
    "segmentation_2d": ("vissl_jointssl.evaluation.segmentation.images", "ImageSegmentation"),
    "segmentation_3d": ("vissl_jointssl.evaluation.segmentation.volumes", "VolumeSegmentation"),
    "classification_3d": ("vissl_jointssl.evaluation.classification.volumes", "VolumeClassification"),
    "detection_2d": ("vissl_jointssl.evaluation.detection.images", "ImageDetection"),
    "probe": ("vissl_jointssl.evaluation.probes", "Probe"),
}


def build_task(name: str, options: Mapping[str, Any]) -> Task:
    """A task with its options.

    Raises:
        PlanError: If the task or an option is unknown, or a value is out of its limits.
    """
    if name not in TASKS:
        raise PlanError(f"no task is called {name!r}{nearest(name, TASKS)}")
    module, kind = TASKS[name]
    task = getattr(importlib.import_module(module), kind)
    known = list(inspect.signature(task).parameters)
    faults = [f"options.{key} is read by nothing{nearest(key, known)}" for key in options if key not in known]
    if faults:
        raise PlanError("\n  - ".join([f"task {name} cannot be run:", *faults]))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return task(**values)
    except (TypeError, ValueError) as error:
        raise PlanError(f"task {name}: {error}") from error
