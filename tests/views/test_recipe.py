from __future__ import annotations

import pytest

from vissl_jointssl.views import ViewRecipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 4)}, r"size is \(0, 4\); expected two positive numbers of pixels"),
        ({"size": 128}, "size is 128; expected two positive numbers of pixels"),
        ({"num_slices": 0}, "num_slices is 0; expected a positive number"),
        ({"area": (0.0, 1.0)}, r"area is \(0.0, 1.0\); expected \(smallest, largest\), positive"),
        ({"area": (0.5, 1.5)}, "a crop covers at most 1, the whole slice"),
        ({"ratio": (2.0, 1.0)}, r"ratio is \(2.0, 1.0\)"),
        (
            {"crop_millimetres": (0.0, 9.0)},
            r"crop_millimetres is \(0.0, 9.0\); expected \(smallest, lar",
        ),
        ({"depth_millimetres": 40.0}, r"depth_millimetres is 40.0; expected \(smallest, largest\)"),
        ({"area": None}, r"area is None; expected \(smallest, largest\)"),
        ({"gamma": (-1.0, 1.0)}, r"gamma is \(-1.0, 1.0\)"),
        ({"contrast": (1.0, float("nan"))}, r"contrast is \(1.0, nan\)"),
        ({"blur": (2.0, 1.0)}, r"blur is \(2.0, 1.0\)"),
        ({"flip_rows": 1.2}, "flip_rows is 1.2; expected a probability"),
        ({"blur_probability": -0.1}, "blur_probability is -0.1; expected a probability"),
        ({"rotation": 200.0}, "rotation is 200.0; expected 0 to 180"),
        ({"brightness": -0.1}, "brightness is -0.1; expected 0 to 1"),
        ({"noise": float("nan")}, "noise is nan; expected 0 to 1"),
    ],
)
def test_a_faulty_recipe_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ViewRecipe(**change)


def test_all_faults_come_at_once():
    with pytest.raises(ValueError, match=r"num_slices is 0.*; .*brightness is 2"):
        ViewRecipe(num_slices=0, brightness=2)
