"""The average precision of VISSL's SVMs and of its mean-AP meter."""

from __future__ import annotations

import numpy as np
from vissl.utils.svm_utils import evaluate

from vissl_jointssl.plugin.compat.patching import replace_everywhere

_vissl_calculate_ap = evaluate.calculate_ap


def replace_calculate_ap() -> None:
    """``vissl/utils/svm_utils/evaluate.py:11`` returns an array of one number, which NumPy 2.4 takes for no number.

    ``svm_trainer.py:256`` puts it into one entry of a matrix: "only 0-dimensional arrays can be converted".
    """
    replace_everywhere(_vissl_calculate_ap, calculate_ap)


def calculate_ap(rec: np.ndarray, prec: np.ndarray) -> float:
    """Area under a precision-recall curve.

    Args:
        rec: Recall at each rank, ascending, ``(n,)``.
        prec: Precision at each rank, ``(n,)``.
    """
    return float(np.asarray(_vissl_calculate_ap(rec, prec)).item())
