"""A 2D U-Net whose encoder is f_intra, a ResNet-50."""

from __future__ import annotations

from torch import nn

from vissl_jointssl.evaluation.initialisation import Initialisation


class CoverageError(ValueError):
    """Weights that would leave a part of the encoder random; the message names them."""


def build_unet(labels: int, initialisation: Initialisation) -> nn.Module:
    """The U-Net of segmentation_models_pytorch.

    Its decoder is random from PyTorch's generator, and the same for every start under one seed.

    Args:
        labels: How many masks it gives.
        initialisation: Its `slice_encoder` becomes the encoder; without one that stays random.

    Returns:
        Pictures `(b, 3, H, W)` to logits `(b, labels, H, W)`; H and W are multiples of 32.

    Raises:
        CoverageError: If a weight of the encoder is not in the start or of another shape, or one has no place.
    """
    import segmentation_models_pytorch

    network: nn.Module = segmentation_models_pytorch.Unet(
        "resnet50", encoder_weights=None, in_channels=3, classes=labels
    )
    if initialisation.slice_encoder is not None:
        _load_encoder(network, initialisation)
    return network


def _load_encoder(network: nn.Module, initialisation: Initialisation) -> None:
    encoder = network.get_submodule("encoder")
    wanted = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in (initialisation.slice_encoder or {}).items()}
    faults = [f"{name} is absent" for name in wanted if name not in given]
    faults += [f"{name} has no place" for name in given if name not in wanted]
    faults += [
        f"{name} is {given[name]}, expected {shape}"
        for name, shape in wanted.items()
        if given.get(name, shape) != shape
    ]
    if faults:
        raise CoverageError(
            f"{initialisation.name}: does not cover the U-Net's encoder, {len(faults)} of {len(wanted)} weights are at "
            f"fault: {'; '.join(faults[:3])}{'; ...' if len(faults) > 3 else ''}; give a whole ResNet-50"
        )
    encoder.load_state_dict(dict(initialisation.slice_encoder or {}), strict=True)
