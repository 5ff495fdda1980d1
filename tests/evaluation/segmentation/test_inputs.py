from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vissl_jointssl.evaluation.best_epoch import BestEpoch
from vissl_jointssl.evaluation.segmentation.inputs import read_input, read_masks, resized, resized_masks
from vissl_jointssl.evaluation.segmentation.losses import dice_and_cross_entropy
from vissl_jointssl.evaluation.segmentation.slices import Sample
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry


def test_a_slice_is_grey_normalised_and_has_three_equal_channels(
    add_row: Callable[..., Entry], make_job: Callable[..., Job]
) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 65536, (2, 3, 4, 5)).astype(np.uint16)  # (C, F, H, W)
    labels = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    manifest = make_job([row := add_row("v", volume, labels)]).manifest
    for channel, number in ((0, 2), (1, 0)):
        found = read_input(manifest, Sample(row, number), channel)
        expected = (volume[channel, number] / 65535 - 0.449) / 0.226
        assert found.shape == (3, 4, 5)
        for plane in found:
            np.testing.assert_allclose(plane.numpy(), expected, atol=1e-5)
    assert np.array_equal(read_masks(manifest, Sample(row, 1), Targets((2, 1)))[0], labels[1] == 2)


def test_colours_of_an_image_stay_apart(add_row: Callable[..., Entry], make_job: Callable[..., Job]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    manifest = make_job([row := add_row("i", image, image[..., 0])]).manifest
    expected = (image.transpose(2, 0, 1) / 255 - 0.449) / 0.226
    np.testing.assert_allclose(read_input(manifest, Sample(row)).numpy(), expected, atol=1e-5)


def test_pictures_and_masks_keep_their_place_when_resized() -> None:
    mask = torch.zeros(1, 1, 40, 60)
    mask[..., 10:20, 30:45] = 1
    small = resized_masks(mask.bool(), (20, 20))
    assert torch.equal(small[0, 0].nonzero().float().mean(dim=0), torch.tensor([7.0, 12.0]))
    back = resized(resized(mask, (20, 20)), (40, 60))[0, 0]
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    centre = [float((back * axis).sum() / back.sum()) for axis in (rows, columns)]
    assert centre == pytest.approx([14.5, 37.0], abs=0.05)


def loss_by_loops(logits: Tensor, masks: Tensor) -> float:
    dice, cross = [], []
    for label in range(logits.shape[1]):
        both = total = 0.0
        for value, truth in zip(logits[:, label].flatten().tolist(), masks[:, label].flatten().tolist(), strict=True):
            probability = 1 / (1 + np.exp(-value))
            both += probability * truth
            total += probability + truth
            cross.append(-np.log(probability if truth else 1 - probability))
        dice.append(1 - 2 * both / total if masks[:, label].any() else 0.0)
    return float(np.mean(dice) + np.mean(cross))


@pytest.mark.parametrize("absent", [False, True])
def test_the_loss_is_dice_over_the_batch_plus_cross_entropy(absent: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 2, 5, 4, generator=generator)
    masks = (torch.rand(3, 2, 5, 4, generator=generator) < 0.3).float()
    if absent:
        masks[:, 1] = 0
    assert float(dice_and_cross_entropy(logits, masks)) == pytest.approx(loss_by_loops(logits, masks), rel=1e-5)


def test_a_label_that_is_absent_is_pushed_away() -> None:
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    dice_and_cross_entropy(logits, torch.zeros(2, 1, 4, 4)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_the_first_of_equally_good_epochs_is_kept_over_a_kill() -> None:
    network = torch.nn.Linear(1, 1)
    best = BestEpoch()
    best.restore(network)  # nothing seen: nothing changes
    for epoch, (weight, score) in enumerate([(1.0, 0.2), (2.0, 0.7), (3.0, 0.7), (4.0, 0.1)]):
        torch.nn.init.constant_(network.weight, weight)
        best.offer(epoch, score, network)
    after = BestEpoch()
    after.load_state_dict(best.state_dict())
    after.offer(4, 0.6, network)
    after.restore(network)
    assert float(network.weight.detach()) == 2.0
    assert after.epoch == 1
