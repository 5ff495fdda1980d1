"""Dice + cross-entropy, with a sigmoid for each label (paper, Table 8)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def dice_and_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Sum of both, each a mean over the labels.

    Dice is taken over all pixels of the batch, label by label: slice by slice it would jump wherever a target is
    absent. A label that no pixel of the batch has adds nothing to it; cross-entropy alone teaches it to stay away.

    Args:
        logits: `(b, n, H, W)`.
        masks: 0.0 and 1.0, likewise.

    Returns:
        Scalar.
    """
    from segmentation_models_pytorch.losses import MULTILABEL_MODE, DiceLoss

    overlap: Tensor = DiceLoss(MULTILABEL_MODE)(logits, masks)
    return overlap + binary_cross_entropy_with_logits(logits, masks)
