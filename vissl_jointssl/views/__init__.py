"""Views: from a cached volume `(F, H, W)` to V transformed copies of it, drawing apart from applying.

`draw_view` turns chance into a `ViewParameters`, a few plain numbers; `apply_view` is a function of those and the
volume, so a view can be replayed, and a batch equals its elements one by one. A slice that does not exist is NaN in
every voxel (`MISSING_SLICE`); the models mask it. NaN rather than a mask beside it, because a view then passes through
collators and samplers that know nothing of masks, and because whoever forgets it sees NaN at once instead of learning
from black slices.
"""

from vissl_jointssl.views.applying import MISSING_SLICE, apply_view, apply_views, window
from vissl_jointssl.views.drawing import ViewParameters, centre_view, draw_view
from vissl_jointssl.views.recipe import ViewRecipe

__all__ = [
    "MISSING_SLICE",
    "ViewParameters",
    "ViewRecipe",
    "apply_view",
    "apply_views",
    "centre_view",
    "draw_view",
    "window",
]
