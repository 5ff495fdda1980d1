"""Names that torchvision and NumPy have dropped since VISSL 0.1.6 was written."""

from __future__ import annotations

import importlib
import types
from typing import Any

import numpy as np

# Modules that use one of the names below when they are called.
_MODULES_WITH_OLD_NUMPY_NAMES = (
    "vissl.meters.mean_ap_meter",  # :70 np.float
    "vissl.data.collators.cutmixup_collator",  # :372, :388 np.bool, absent from NumPy 1.24 to 1.26
    "vissl.utils.svm_utils.evaluate",  # :43 np.float
    "vissl.utils.instance_retrieval_utils.rmac",  # :102 np.int
    "vissl.utils.instance_retrieval_utils.evaluate",  # :133, :134 np.in1d
    "classy_vision.dataset.transforms.autoaugment",  # :170 np.int
)


class NumpyWithOldNames(types.ModuleType):
    """NumPy plus the four names VISSL still uses; stands in for ``np`` inside single modules of VISSL."""

    float = float
    int = int
    bool = bool
    in1d = staticmethod(np.isin)

    def __getattr__(self, name: str) -> Any:
        """Everything else is NumPy's own."""
        return getattr(np, name)


def restore_kinetics400() -> None:
    """``CV/dataset/classy_kinetics400.py:11`` imports torchvision's ``Kinetics400``, absent at least since 0.19.

    The class is called ``Kinetics`` now. Without the alias 98 of VISSL's 158 modules cannot be imported; nothing here
    ever makes an object of it.
    """
    from torchvision.datasets import kinetics

    if not hasattr(kinetics, "Kinetics400"):
        kinetics.Kinetics400 = kinetics.Kinetics


def restore_numpy_names() -> None:
    """Six modules use ``np.float``, ``np.int``, ``np.bool`` (gone since NumPy 1.24) or ``np.in1d`` (since 2.4).

    Only the ``np`` of those modules is exchanged: setting the names on NumPy itself would mislead every library that
    asks NumPy which names it has.
    """
    stand_in = NumpyWithOldNames("numpy")
    for name in _MODULES_WITH_OLD_NUMPY_NAMES:
        vars(importlib.import_module(name))["np"] = stand_in
