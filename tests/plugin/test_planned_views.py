"""Views that the device makes, against those that loader workers make, through VISSL's own loader."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.planned_views import PlanningCollator, views_device
from vissl_jointssl.plugin.volume_sample import VolumeSample
from vissl_jointssl.plugin.volume_views import VolumeViews
from vissl_jointssl.views import SampleKey

# isort: split
from vissl.config import AttrDict
from vissl.data import build_dataloader, build_dataset
from vissl.data.collators import get_collator

SMALL = ["config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2", "config.SEED_VALUE=5"]
SMALL += ["config.DATA.TRAIN.TRANSFORMS.0.size=[16,16]", "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6"]


@pytest.fixture
def start_method() -> Iterator[None]:
    """VISSL sets the process-wide way to start workers (vissl/utils/misc.py, setup_multiprocessing_method)."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def _batches(config: AttrDict, views_on: str, workers: int = 0) -> list[dict[str, Any]]:
    config = copy.deepcopy(config)
    config.JOINT_SSL["VIEWS_ON"] = views_on
    loader = build_dataloader(
        dataset=build_dataset(config, "TRAIN"),
        dataset_config=config.DATA.TRAIN,
        num_dataloader_workers=workers,
        pin_memory=False,
        multi_processing_method="fork",
        device=torch.device("cpu"),
    )
    batches = iter(loader)
    assert len(batches) == len(loader)
    return list(batches)


@pytest.mark.parametrize("collator", ["multicrop_collator", "simclr_collator"])
@pytest.mark.parametrize("family", ["crop", "released"])
def test_a_batch_is_the_one_that_workers_make(
    config_of: Callable[..., AttrDict], one_gloo_rank: None, start_method: None, collator: str, family: str
) -> None:
    config = config_of("stage3_swav", *SMALL, f"config.DATA.TRAIN.COLLATE_FUNCTION={collator}")
    transform = config.DATA.TRAIN.TRANSFORMS[0]
    if family == "released":
        size = {key: transform[key] for key in ("name", "total_num_crops", "size", "num_slices")}
        config.DATA.TRAIN.TRANSFORMS[0] = AttrDict({**size, "family": "released"})
    expected = _batches(config, "workers")
    for workers in (0, 2):
        made = _batches(config, "device", workers)
        assert len(made) == len(expected) == 4
        for ours, theirs in zip(made, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0, equal_nan=True)  # every key, every nesting


def test_workers_send_what_is_stored_in_one_piece() -> None:
    sample = VolumeSample(np.zeros((6, 16, 16), np.uint8), (2.0, 1.0, 1.0), SampleKey(0, 0, 0), "scan")
    transform = VolumeViews(size=[16, 16], num_slices=6)
    transform.plan_only = True
    item = {"data": transform(sample), "label": [0, 0], "data_valid": [1, 1], "data_idx": [0, 0]}
    planned = PlanningCollator(get_collator("multicrop_collator", {}))([item, item])
    assert planned.windows.memory.numel() == 2 * 2 * 6 * 16 * 16  # bytes; as float32 views it would be four times that


def test_dropped_channels_are_dropped_on_the_device_too() -> None:
    volume = np.random.default_rng(0).integers(0, 255, (3, 4, 16, 16)).astype(np.uint8)
    sample = VolumeSample(volume, (2.0, 1.0, 1.0), SampleKey(0, 0, 0), "mri")
    transform = VolumeViews(total_num_crops=6, size=[8, 8], num_slices=6, channels="all", channel_drop=0.5)
    expected = transform(sample)
    transform.plan_only = True
    item = {"data": transform(sample), "label": [0] * 6, "data_valid": [1] * 6, "data_idx": [0] * 6}
    planned = PlanningCollator(get_collator("multicrop_collator", {}))([item])
    (made,) = planned.make(torch.device("cpu"))["data"]
    assert any((view[:4] == 0).all(dim=(0, 2, 3)).any() for view in expected)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours[0], theirs, atol=2e-5, rtol=0, equal_nan=True)


def test_a_collator_that_makes_something_else_of_views_is_named() -> None:
    sample = VolumeSample(np.zeros((6, 16, 16), np.uint8), None, SampleKey(0, 0, 0), "scan")
    transform = VolumeViews(size=[16, 16], num_slices=6)
    transform.plan_only = True
    planned = PlanningCollator(lambda samples: {"data": torch.stack([torch.stack(one["data"]) for one in samples])})
    with pytest.raises(ValueError, match=r"COLLATE_FUNCTION gave a tensor of 2 axes .*VIEWS_ON=workers, or use multi"):
        planned([{"data": transform(sample)}]).make(torch.device("cpu"))


@pytest.mark.parametrize(
    ("machine", "asked", "device"),
    [
        ("cpu", None, None),
        ("cpu", "auto", None),
        ("cpu", "device", torch.device("cpu")),
        ("gpu", "workers", None),
        ("gpu", "auto", torch.device("cuda:3")),
        ("gpu", "device", torch.device("cuda:3")),
    ],
)
def test_a_gpu_makes_the_views_unless_the_config_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, machine: str, asked: str | None, device: torch.device | None
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    section = {} if asked is None else {"VIEWS_ON": asked}
    assert views_device({"MACHINE": {"DEVICE": machine}, "JOINT_SSL": section}) == device


def test_only_views_of_volumes_can_be_left_to_the_device(config_of: Callable[..., AttrDict]) -> None:
    config = config_of("stage1_swav", "+config.JOINT_SSL.VIEWS_ON=device")
    with pytest.raises(ConfigError, match=r"VIEWS_ON is device, but config.DATA.TRAIN.TRANSFORMS end in '\w+': only"):
        prepare(config)
    config = config_of("stage1_swav", "+config.JOINT_SSL.VIEWS_ON=devices")
    with pytest.raises(ConfigError, match=r"JOINT_SSL.VIEWS_ON is 'devices'; did you mean device\?"):
        prepare(config)
