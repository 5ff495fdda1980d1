"""The views of the authors' released code: crop or pad, then one of seven transforms of TorchIO with its defaults.

Written anew in torch, so that drawing is apart from applying and a view can be replayed on any device. TorchIO's
spatial axes 0, 1, 2 are our F, H, W, as when it is given the array `(C, F, H, W)`: its RandomFlip, which flips axis 0,
reverses the slices. Sizes in mm (Affine, Blur) use the volume's spacing, and 1 mm where it is unknown, as TorchIO does
for arrays. Numbers named after TorchIO are facts of version 1.2.1, which is the oracle of the tests.

What differs from TorchIO, on purpose:

* an axis shorter than Anisotropy's factor keeps one sample, where SimpleITK refuses an empty image;
* grey values enter in [0, 1] (`manifest.as_unit_interval`), which gives Noise's deviation of up to 0.25 its meaning.

What is kept although it looks odd: slices and borders that padding adds are black and count as real (no
`MISSING_SLICE`: the released f_inter takes exactly 64 slices), grey values may leave [0, 1], and Anisotropy leaves
black borders where its coarse grid does not reach.
"""

from vissl_jointssl.views.released.applying import apply_released_view, released_window
from vissl_jointssl.views.released.drawing import draw_released_view, plain_released_view
from vissl_jointssl.views.released.parameters import ReleasedRecipe, ReleasedViewParameters

__all__ = [
    "ReleasedRecipe",
    "ReleasedViewParameters",
    "apply_released_view",
    "draw_released_view",
    "plain_released_view",
    "released_window",
]
