"""Faster R-CNN on a feature pyramid over f_intra: torchvision's, with our ResNet-50 in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from vissl_jointssl.checkpoints import CheckpointError
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.views import GREY_DEVIATION, GREY_MEAN

if TYPE_CHECKING:
    from torchvision.models.detection import FasterRCNN

BATCHNORMS = ("frozen", "training")
ALL_LAYERS = 5
_BODY = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


class Detector(nn.Module):
    """A Faster R-CNN whose BatchNorm stays as it was where it should.

    Attributes:
        network: torchvision's; `body` is f_intra in it.
        batchnorm: `frozen`: f_intra normalises with the means and variances of its weights file, as MMDetection's
            does, and learns scale and shift alone. `training`: with those of the batch.
    """

    def __init__(self, network: FasterRCNN, batchnorm: str, trainable_layers: int) -> None:
        super().__init__()
        self.network, self.batchnorm = network, batchnorm
        self._frozen = _BODY[: len(_BODY) - trainable_layers] if trainable_layers < ALL_LAYERS else ()

    @property
    def body(self) -> nn.Module:
        """f_intra, under torchvision's names and without `fc.*`."""
        body: nn.Module = self.network.backbone.body
        return body

    def forward(
        self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]] | None = None
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Losses by name while it trains, boxes of each image else; images `(3, H, W)` in [0, 1], of any sizes."""
        return self.network(images, targets)

    def train(self, mode: bool = True) -> Detector:
        """As every module's, but for the BatchNorm that stays."""
        super().train(mode)
        for name, part in self.body.named_children():
            for module in part.modules():
                if isinstance(module, nn.BatchNorm2d) and (self.batchnorm == "frozen" or name in self._frozen):
                    module.eval()
        return self


def build_detector(
    start: Initialisation,
    classes: int,
    sides: tuple[int, int],
    anchor_sizes: Sequence[int],
    trainable_layers: int,
    batchnorm: str,
    detections: int,
    box_samples: int,
) -> Detector:
    """A network with the weights of a start.

    A random start trains all of its layers, with BatchNorm of the batch, as torchvision's do: it has no layers that
    are worth keeping, and its means and variances are those of nothing.

    Args:
        start: Whose ResNet-50 becomes the backbone; every weight of the backbone is taken from it.
        classes: Without the background.
        sides: An image is scaled until its short side has the first, or its long side the second, in pixels.
        anchor_sizes: Side of the anchors in pixels, for each of the five levels.
        trainable_layers: How many of layer4, layer3, layer2, layer1 and the stem learn; 3 is MMDetection's.
        batchnorm: See `Detector`.
        detections: Boxes of an image at most.
        box_samples: Proposals of a training image that the box head learns from.

    Raises:
        CheckpointError: If the start lacks a weight of the backbone, or has one that it does not know.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    if start.slice_encoder is None:
        trainable_layers, batchnorm = ALL_LAYERS, "training"
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=trainable_layers
    )
    if start.slice_encoder is not None:
        _take_over(start, backbone.body)
    network = FasterRCNN(
        backbone,
        num_classes=classes + 1,
        min_size=sides[0],
        max_size=sides[1],
        image_mean=[GREY_MEAN] * 3,
        image_std=[GREY_DEVIATION] * 3,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in anchor_sizes), ((0.5, 1.0, 2.0),) * len(anchor_sizes)
        ),
        box_detections_per_img=detections,
        box_batch_size_per_image=box_samples,
    )
    return Detector(network, batchnorm, trainable_layers)


def _take_over(start: Initialisation, body: nn.Module) -> None:
    weights = start.slice_encoder or {}
    wanted = body.state_dict()
    faults = [f"lacks {name}" for name in wanted.keys() - weights.keys()]
    faults += [f"has {name}, which a ResNet-50 has not" for name in weights.keys() - wanted.keys()]
    faults += [
        f"has {name} of shape {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted.keys() & weights.keys()
        if weights[name].shape != wanted[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"weights {start.name} ({start.path}): {'; '.join(sorted(faults)[:5])}{more}")
    body.load_state_dict(weights)
