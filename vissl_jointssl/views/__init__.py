"""Views: from a cached volume to V transformed copies of it, drawing apart from applying.

`draw_view` turns chance into parameters, a few plain numbers; `apply_view` is a function of those and the volume, so a
view can be replayed, and a batch equals its elements one by one; `make_views` does a batch at once, on a GPU or a CPU,
of windows as they are stored. Chance itself is a function of (seed, epoch, sample, view), see `view_generator`. A
volume is `(F, H, W)` or, with channels, `(C, F, H, W)`; a view is `(F, C, H, W)`.

A slice that does not exist is NaN in every voxel (`MISSING_SLICE`); the models mask it. NaN rather than a mask beside
it, because a view then passes through collators and samplers that know nothing of masks, and because whoever forgets it
sees NaN at once instead of learning from black slices.
"""

from vissl_jointssl.views.applying import MISSING_SLICE
from vissl_jointssl.views.batches import Windows, least_window, make_views, pack_windows
from vissl_jointssl.views.channels import (
    GREY_DEVIATION,
    GREY_MEAN,
    ChannelRecipe,
    channel_count,
    draw_channel,
    draw_dropped,
    drop_channels,
    first_channel,
    take_channel,
)
from vissl_jointssl.views.drawing import ViewParameters
from vissl_jointssl.views.families import (
    FAMILIES,
    AnyParameters,
    AnyRecipe,
    apply_view,
    apply_views,
    centre_view,
    draw_view,
    window,
)
from vissl_jointssl.views.recipe import ViewRecipe
from vissl_jointssl.views.released import ReleasedRecipe, ReleasedViewParameters
from vissl_jointssl.views.seeding import SampleKey, sample_generator, view_generator

__all__ = [
    "FAMILIES",
    "GREY_DEVIATION",
    "GREY_MEAN",
    "MISSING_SLICE",
    "AnyParameters",
    "AnyRecipe",
    "ChannelRecipe",
    "ReleasedRecipe",
    "ReleasedViewParameters",
    "SampleKey",
    "ViewParameters",
    "ViewRecipe",
    "Windows",
    "apply_view",
    "apply_views",
    "centre_view",
    "channel_count",
    "draw_channel",
    "draw_dropped",
    "draw_view",
    "drop_channels",
    "first_channel",
    "least_window",
    "make_views",
    "pack_windows",
    "sample_generator",
    "take_channel",
    "view_generator",
    "window",
]
