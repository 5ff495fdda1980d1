"""The views room as VISSL transforms: options, channels, and views that depend on four numbers alone."""

from __future__ import annotations

import copy
import multiprocessing
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from vissl_jointssl.plugin.volume_sample import VolumeSample
from vissl_jointssl.plugin.volume_views import VolumeCentreView, VolumeViews, read_view_recipe
from vissl_jointssl.views import GREY_DEVIATION, GREY_MEAN, ReleasedRecipe, SampleKey, ViewRecipe

# isort: split
from vissl.config import AttrDict
from vissl.data import build_dataloader, build_dataset
from vissl.models.trunks import get_model_trunk
from vissl.trainer.train_task import SelfSupervisionTask


def _sample(*shape: int, key: tuple[int, int, int] = (0, 0, 0), spacing: Any = (2.0, 1.0, 1.0)) -> VolumeSample:
    volume = np.random.default_rng(0).integers(0, 65535, shape).astype(np.uint16)
    return VolumeSample(volume, spacing, SampleKey(*key), "scan")


# --- options


@pytest.mark.parametrize("family", ["crop", "released"])
def test_views_have_the_recipes_shape(family: str) -> None:
    views = VolumeViews(total_num_crops=3, family=family, size=[16, 24], num_slices=8)(_sample(5, 40, 40))
    assert [view.shape for view in views] == [(8, 1, 16, 24)] * 3
    assert len({view.nan_to_num(0).sum().item() for view in views}) == 3


def test_slices_that_do_not_exist_are_nan() -> None:
    for view in VolumeViews(size=[16, 24], num_slices=8)(_sample(5, 40, 40)):
        assert torch.isnan(view[5:]).all()
        assert not torch.isnan(view[:5]).any()


def test_the_centre_view_is_the_volume_itself_normalised() -> None:
    sample = _sample(6, 16, 16)
    expected = (torch.from_numpy(sample.volume[1:5] / np.float32(65535)) - GREY_MEAN) / GREY_DEVIATION
    for family in ("crop", "released"):
        view = VolumeCentreView(family=family, size=[16, 16], num_slices=4)(sample)
        torch.testing.assert_close(view[:, 0], expected, atol=1e-5, rtol=0)


def test_the_family_chooses_the_recipe() -> None:
    assert read_view_recipe({"size": [8, 8]}).view == ViewRecipe(size=(8, 8))
    released = read_view_recipe({"family": "released", "transforms": ["flip"], "channels": "all", "channel_drop": 0.1})
    assert released.view == ReleasedRecipe(transforms=("flip",))
    assert (released.channels.channels, released.channels.channel_drop) == ("all", 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_slice": 3}, r"'num_slice' is read by nothing; did you mean num_slices\?"),
        ({"family": "release"}, r"family 'release' is not known; did you mean released\?"),
        ({"family": "released", "gamma": [1.0, 1.0]}, r"'gamma' is read by nothing"),
        ({"channel": "all"}, r"'channel' is read by nothing; did you mean channels\?"),
    ],
)
def test_what_nothing_reads_is_answered_with_the_nearest(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeViews(**arguments)


def test_a_volume_without_spacing_is_named_when_millimetres_are_asked_for() -> None:
    with pytest.raises(ValueError, match="volume 'scan': crop_millimetres need the size of the volume's voxels"):
        VolumeViews(crop_millimetres=[20.0, 30.0])(_sample(5, 40, 40, spacing=None))


def test_the_spacing_of_a_volume_reaches_its_views() -> None:
    options: dict[str, Any] = {"size": [8, 8], "num_slices": 4, "crop_millimetres": [8.0, 8.0]}
    options["depth_millimetres"] = [40.0, 40.0]
    for transform in (VolumeViews(total_num_crops=1, **options), VolumeCentreView(**options)):
        for apart, missing in ((4.0, [False] * 4), (2.0, [False, False, True, True])):  # 40 mm are there, or 20
            views = transform(_sample(10, 8, 8, spacing=(apart, 1.0, 1.0)))
            view = views[0] if isinstance(views, list) else views
            assert view.isnan().flatten(1).all(dim=1).tolist() == missing


# --- channels


def _channel_of(view: torch.Tensor, volume: np.ndarray) -> int:
    grey = view[0, 0, 0, 0].item() * GREY_DEVIATION + GREY_MEAN
    return int(np.abs(volume[:, 0, 0, 0] / 65535 - grey).argmin())


def test_both_views_show_the_same_channel_and_other_volumes_and_epochs_other_ones() -> None:
    volume = np.stack([np.full((6, 8, 8), level, np.uint16) for level in (6000, 22000, 38000, 60000)])
    plain = {"gamma": [1.0, 1.0], "contrast": [1.0, 1.0], "brightness": 0.0, "noise": 0.0}
    transform = VolumeViews(size=[8, 8], num_slices=6, **plain)
    chosen = []
    for epoch in range(3):
        for index in range(12):
            views = transform(VolumeSample(volume, None, SampleKey(0, epoch, index), "mri"))
            assert [view.shape for view in views] == [(6, 1, 8, 8)] * 2
            first, second = (_channel_of(view, volume) for view in views)
            assert first == second
            chosen.append(first)
    assert set(chosen) == {0, 1, 2, 3}
    assert chosen[:12] != chosen[12:24] != chosen[24:]
    centre = VolumeCentreView(size=[8, 8], num_slices=6)(VolumeSample(volume, None, SampleKey(0, 7, 7), "mri"))
    assert _channel_of(centre, volume) == 0


def test_all_channels_come_in_their_order_and_dropped_ones_are_zero() -> None:
    sample = _sample(4, 6, 16, 16)
    centre = VolumeCentreView(size=[16, 16], num_slices=6, channels="all")(sample)
    assert centre.shape == (6, 4, 16, 16)
    torch.testing.assert_close(
        centre.transpose(0, 1) * GREY_DEVIATION + GREY_MEAN, torch.from_numpy(sample.volume / np.float32(65535))
    )
    views = VolumeViews(total_num_crops=40, size=[16, 16], num_slices=8, channels="all", channel_drop=0.5)(sample)
    kept = [tuple(bool(view[:6, channel].any()) for channel in range(4)) for view in views]
    assert len(set(kept)) > 5
    assert all(any(one) for one in kept)
    assert all(torch.isnan(view[6:]).all() for view in views)


def test_a_chosen_channel_fits_the_pretrained_stem_and_four_at_once_are_refused(
    config_of: Callable[..., AttrDict],
) -> None:
    config = config_of("stage3_swav").MODEL
    config.TRUNK.JOINT_SSL = AttrDict({"STAGE": 3})
    trunk = get_model_trunk("joint_trunk")(config, "joint_trunk").eval()
    four, three = _sample(4, 6, 32, 32), _sample(3, 6, 32, 32)
    options: dict[str, Any] = {"size": [32, 32], "num_slices": 8}
    with torch.no_grad():
        assert trunk(torch.stack(VolumeViews(**options)(four)))[0].shape == (2, 640)
        assert trunk(torch.stack(VolumeViews(channels="all", **options)(three)))[0].shape == (2, 640)
        with pytest.raises(ValueError, match=r"slices have 4 channels, but conv1 reads 3; .* choosing one sequence"):
            trunk(torch.stack(VolumeViews(channels="all", **options)(four)))


# --- from (seed, epoch, sample, view) alone


def test_views_ignore_every_other_source_of_chance() -> None:
    transform, sample = VolumeViews(size=[16, 16], num_slices=5), _sample(5, 40, 40, key=(1, 2, 3))
    torch.manual_seed(3)
    first = transform(sample)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert all(torch.equal(one, other) for one, other in zip(first, transform(sample), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_each_of_the_four_numbers_changes_the_view() -> None:
    transform = VolumeViews(size=[16, 16], num_slices=5)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    views = [view for key in keys for view in transform(_sample(5, 40, 40, key=key))]
    assert len({view.sum().item() for view in views}) == 8


@pytest.fixture
def start_method() -> Iterator[None]:
    """VISSL sets the process-wide way to start workers (vissl/utils/misc.py, setup_multiprocessing_method)."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def _views_of(config: AttrDict, epochs: list[int]) -> dict[tuple[int, int, int], float]:
    """Sum of every view's voxels by (epoch, sample, view), through VISSL's own data set, loader and change of epoch."""
    task: Any = types.SimpleNamespace(config=config, data_iterator=None)
    for name in ("set_epoch", "set_train_epoch_start_iter", "recreate_data_iterator"):
        setattr(task, name, types.MethodType(getattr(SelfSupervisionTask, name), task))
    task.datasets = {"train": build_dataset(config, "TRAIN")}
    loader = build_dataloader(
        dataset=task.datasets["train"],
        dataset_config=config.DATA.TRAIN,
        num_dataloader_workers=config.DATA.NUM_DATALOADER_WORKERS,
        pin_memory=False,
        multi_processing_method=config.MULTI_PROCESSING_METHOD,
        device=torch.device("cpu"),
    )
    task.dataloaders = {"train": loader}
    found = {}
    for epoch in epochs:
        # as trainer_main.py:319 does, of a run with an evaluation phase after each epoch
        task.recreate_data_iterator("train", epoch=2 * epoch, compute_start_iter=False, train_phase_idx=epoch)
        for batch in task.data_iterator:
            indices = batch["data_idx"][0].view(len(batch["data"][0]), -1)
            for view, (volumes, samples) in enumerate(zip(batch["data"][0], indices, strict=True)):
                for volume, sample in zip(volumes, samples, strict=True):
                    found[epoch, int(sample), view] = volume.double().nan_to_num(0.5).sum().item()
    return found


@pytest.fixture
def views_config(config_of: Callable[..., AttrDict]) -> Callable[[int, str], AttrDict]:
    config = config_of(
        "stage3_swav",
        "config.SEED_VALUE=5",
        "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
        "config.DATA.TRAIN.TRANSFORMS.0.size=[16,16]",
        "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
    )

    def make(workers: int, method: str = "fork") -> AttrDict:
        ours = copy.deepcopy(config)
        ours.DATA.NUM_DATALOADER_WORKERS = workers
        ours.MULTI_PROCESSING_METHOD = method
        return ours

    return make


def _expected(config: AttrDict, epochs: list[int]) -> dict[tuple[int, int, int], float]:
    """The same, volume by volume, without a loader."""
    source = build_dataset(config, "TRAIN").data_objs[0]
    arguments = {key: value for key, value in config.DATA.TRAIN.TRANSFORMS[0].items() if key != "name"}
    transform, found = VolumeViews(**arguments), {}
    for epoch in epochs:
        source.set_train_phase_idx(epoch)
        for index in range(len(source)):
            for view, volume in enumerate(transform(source[index][0])):
                found[epoch, index, view] = volume.double().nan_to_num(0.5).sum().item()
    return found


def test_views_are_the_same_for_any_number_of_workers_and_after_a_resume(
    views_config: Callable[..., AttrDict], one_gloo_rank: None, start_method: None
) -> None:
    expected = _expected(views_config(0), [0, 1, 2])
    assert len(expected) == 3 * 8 * 2
    assert len(set(expected.values())) == len(expected)  # epochs, samples and views differ
    assert _views_of(views_config(0), [0, 1, 2]) == expected
    of_epoch_1 = {key: value for key, value in expected.items() if key[0] == 1}
    assert _views_of(views_config(3), [1]) == of_epoch_1
    resumed = _views_of(views_config(1, "forkserver"), [2])
    assert resumed == {key: value for key, value in expected.items() if key[0] == 2}


def test_views_are_the_same_on_two_ranks(
    views_config: Callable[..., AttrDict],
    on_two_ranks: Callable[..., list[dict[tuple[int, int, int], float]]],
    start_method: None,
) -> None:
    config, shared = views_config(0), {}
    for of_rank in on_two_ranks(lambda rank: _views_of(config, [0, 1])):
        assert len(of_rank) == 2 * 4 * 2
        shared |= of_rank
    assert shared == _expected(config, [0, 1])


def test_another_seed_gives_other_views(views_config: Callable[..., AttrDict]) -> None:
    first, other = views_config(0), views_config(0)
    other.SEED_VALUE = 6
    ours, theirs = _expected(first, [0]), _expected(other, [0])
    assert all(ours[key] != theirs[key] for key in ours)
