"""Which slices of a padded batch exist.

Volumes of different length share a batch by padding at the end. A slice that does not exist is NaN in every voxel, a
value no real slice can have (zero is air in many scans, and a constant slice may be real), so that the tensor itself
says where each volume ends and nothing else has to travel with it through loaders and collators.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FAULTY = (
    "a volume of the batch has no valid slice, or padding before an existing slice; "
    "run valid_lengths on the batch on the CPU to see which"
)


def valid_slices(volume: Tensor) -> Tensor:
    """Tell the slices that exist from the padding.

    Only the first voxel of each slice is looked at: padding is NaN everywhere, and a real slice holds no NaN (the
    manifest is checked for that), so one voxel decides and the cost does not grow with the image.

    Args:
        volume: Slices in order, ``(B, F, C, H, W)``, padded at the end with NaN.

    Returns:
        True where the slice exists, ``(B, F)``.

    Raises:
        ValueError: If ``volume`` does not have five axes.
    """
    if volume.ndim != 5:
        raise ValueError(
            f"a batch of volumes has the shape (B, F, C, H, W), got {tuple(volume.shape)}; "
            "add the missing axes, for example volume[None, :, None] for one (F, H, W) array"
        )
    return ~torch.isnan(volume[:, :, 0, 0, 0])


def valid_lengths(valid: Tensor) -> Tensor:
    """Count the slices of each volume, after checking that padding lies only at the end.

    On a device the check does not wait for the answer: a faulty batch ends the process a little later, by an assertion
    of the device that cannot say which volume it is. On the CPU it can.

    Args:
        valid: True where a slice exists, ``(B, F)``.

    Returns:
        Number of slices that exist, ``(B,)``, int64, each at least one.

    Raises:
        ValueError: If ``valid`` is not a boolean ``(B, F)``, if a volume has no slice, or if a padded slice lies
            before one that exists; the latter two on the CPU only.
    """
    if valid.ndim != 2 or valid.dtype != torch.bool:
        raise ValueError(f"valid must be a boolean (B, F), got {valid.dtype} of shape {tuple(valid.shape)}")
    lengths = valid.sum(dim=1)
    in_order = valid == (torch.arange(valid.shape[1], device=valid.device) < lengths[:, None])
    sound = ((lengths > 0) & in_order.all(dim=1)).all()
    if valid.device.type != "cpu":
        torch._assert_async(sound, _FAULTY)
        return lengths
    if sound:
        return lengths
    empty = (lengths == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"volumes {empty} of the batch have no valid slice; drop them or check how they were cropped")
    broken = (~in_order.all(dim=1)).nonzero().flatten().tolist()
    raise ValueError(
        f"volumes {broken} of the batch have padding before an existing slice; pad only at the end of a volume"
    )
