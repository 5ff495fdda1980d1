from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from vissl_jointssl.views import (
    GREY_MEAN,
    ChannelRecipe,
    channel_count,
    draw_channel,
    draw_dropped,
    drop_channels,
    first_channel,
    take_channel,
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_volume_without_a_channel_axis_has_one_and_stays_as_it_is(random_volume):
    volume = random_volume(3, 4, 5)
    assert channel_count(volume) == 1
    assert take_channel(volume, 0) is volume


def test_every_channel_is_chosen_equally_often():
    generator = seeded()
    counts = Counter(draw_channel(ChannelRecipe("choose"), 4, generator) for _ in range(2000))
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(count - 500) < 80 for count in counts.values())


def test_all_takes_every_channel_and_a_number_that_one():
    assert draw_channel(ChannelRecipe("all"), 4, seeded()) is None
    assert {draw_channel(ChannelRecipe(2), 4, seeded()) for _ in range(10)} == {2}
    assert [first_channel(ChannelRecipe(mode), 4) for mode in ("choose", "all", 2)] == [0, None, 2]


def test_a_taken_channel_of_a_mapped_array_is_still_mapped(tmp_path):
    np.save(tmp_path / "v.npy", np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    taken = take_channel(mapped, 1)
    assert isinstance(taken, np.memmap)
    np.testing.assert_array_equal(taken, np.arange(60, 120).reshape(3, 4, 5))


def test_channels_drop_as_often_as_said_and_never_all_together():
    generator = seeded()
    drawn = [draw_dropped(ChannelRecipe("all", 0.3), 4, generator) for _ in range(2000)]
    for channel in range(4):
        assert sum(channel in dropped for dropped in drawn) / 2000 == pytest.approx(0.3, abs=0.04)
    generator = seeded()
    often = [draw_dropped(ChannelRecipe("all", 0.9), 2, generator) for _ in range(200)]
    assert set(often) == {(), (0,), (1,)}
    assert draw_dropped(ChannelRecipe("all"), 4, seeded()) == ()


def test_a_dropped_channel_turns_mean_grey_where_slices_exist(random_volume):
    view = random_volume(5, 3, 4, 4)
    view[3:] = float("nan")
    result = drop_channels(view, (0, 2))
    assert result[:3, [0, 2]].unique().tolist() == pytest.approx([GREY_MEAN])
    assert torch.equal(result[:3, 1], view[:3, 1])
    assert result[3:].isnan().all()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"channels": "each"}, "channels is 'each'; expected choose, all, or the number of one channel"),
        ({"channels": -1}, "channels is -1; expected choose, all, or the number"),
        ({"channels": "all", "channel_drop": 1.0}, "channel_drop is 1.0; expected a probability below 1"),
        ({"channel_drop": 0.2}, "channel_drop is 0.2, but views have one channel; set channels: all"),
    ],
)
def test_a_faulty_recipe_is_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        ChannelRecipe(**recipe)


def test_a_channel_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="channels is 4, but there are only 4, counted from 0"):
        draw_channel(ChannelRecipe(4), 4, seeded())
