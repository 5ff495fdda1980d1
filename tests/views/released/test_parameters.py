from __future__ import annotations

import pytest

from vissl_jointssl.views import ReleasedRecipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 4)}, r"size is \(0, 4\); expected two positive numbers of pixels"),
        ({"size": 128}, "size is 128; expected two positive numbers of pixels"),
        ({"num_slices": 0}, "num_slices is 0; expected a positive number"),
        ({"transforms": ("flip", "blurr")}, r"transforms names 'blurr'; did you mean blur\?"),
        ({"transforms": ()}, r"transforms is \(\); expected a list of flip, affine"),
        ({"transforms": "flip"}, "transforms is 'flip'; expected a list of flip, affine"),
    ],
)
def test_a_faulty_recipe_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ReleasedRecipe(**change)


def test_all_faults_come_at_once():
    with pytest.raises(ValueError, match=r"num_slices is 0.*; transforms names 'a'"):
        ReleasedRecipe(num_slices=0, transforms=("a",))
