from __future__ import annotations

import math

import numpy as np
import pytest

from vissl_jointssl.evaluation.segmentation.scoring import score_all, score_case

EMPTY = np.zeros((4, 4), dtype=bool)
LEFT, RIGHT = EMPTY.copy(), EMPTY.copy()
LEFT[:, :2] = True
RIGHT[:, 2:] = True


def test_a_case_has_each_label_and_their_mean() -> None:
    scores = score_case(np.stack([LEFT, RIGHT]), np.stack([LEFT, LEFT]), (2, 7), ("dice", "iou", "hd95"), (3.0, 5.0))
    assert scores == {
        "dice": 0.5, "dice_2": 1.0, "dice_7": 0.0,
        "iou": 0.5, "iou_2": 1.0, "iou_7": 0.0,
        "hd95": 5.0, "hd95_2": 0.0, "hd95_7": 10.0,
    }  # fmt: skip
    assert score_case(LEFT[None], LEFT[None], (3,), ("iou",)) == {"iou": 1.0}


def test_an_undefined_label_makes_the_cases_mean_undefined() -> None:
    scores = score_case(np.stack([LEFT, EMPTY]), np.stack([LEFT, LEFT]), (1, 2), ("hd95", "iou"), (1.0, 1.0))
    assert scores["hd95_1"] == 0.0
    assert math.isnan(scores["hd95_2"])
    assert math.isnan(scores["hd95"])
    assert scores["iou"] == 0.5


def test_means_are_over_cases_first_and_leave_the_undefined_out() -> None:
    cases = {
        "a": {"hd95": 3.0, "hd95_1": 2.0, "hd95_2": 4.0},
        "b": {"hd95": math.nan, "hd95_1": 6.0, "hd95_2": math.nan},
        "c": {"hd95": math.nan, "hd95_1": 10.0, "hd95_2": math.nan},
    }
    found = score_all(cases, (1, 2), ("hd95",))
    assert found == {"hd95_1": 6.0, "hd95_2": 4.0, "hd95": 5.0, "hd95_undefined": 2.0}  # not the mean of 2, 6, 10, 4
    nothing = score_all({"a": {"hd95": math.nan}}, (1,), ("hd95",))
    assert math.isnan(nothing["hd95"])
    assert nothing["hd95_undefined"] == 1.0
    assert score_all({"a": {"iou": 0.5}, "b": {"iou": 1.0}}, (3,), ("iou",)) == pytest.approx({"iou": 0.75})
