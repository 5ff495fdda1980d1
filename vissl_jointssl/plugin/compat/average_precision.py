"""The average precision that VISSL's SVM trainers take for one number."""

from __future__ import annotations

from typing import Any

import numpy as np
from vissl.utils.svm_utils import svm_low_shot_trainer, svm_trainer
from vissl.utils.svm_utils.evaluate import get_precision_recall


def give_svms_one_number() -> None:
    """``vissl/utils/svm_utils/evaluate.py:11`` returns an array of one number, which NumPy 2.4 takes for no number.

    ``svm_trainer.py:256`` and ``svm_low_shot_trainer.py:176`` put it into one entry of a matrix: "only 0-dimensional
    arrays can be converted". VISSL's meter reads its first entry instead, so for the meter nothing changes. Not part of
    ``install()``: only the SVM tool needs it, and its imports take a second.
    """
    svm_trainer.get_precision_recall = precision_recall
    svm_low_shot_trainer.get_precision_recall = precision_recall


def precision_recall(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """VISSL's ``get_precision_recall`` with a number for the average precision."""
    precision, recall, score, average = get_precision_recall(*arguments)
    return precision, recall, score, float(np.asarray(average).item())
