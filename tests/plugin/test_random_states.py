"""The global generators kept and given back, and samples that are drawn from their key alone."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vissl_jointssl.plugin.random_states import give_back_random_states, seeded_for, take_random_states
from vissl_jointssl.views import SampleKey

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable
from vissl.data import build_dataset  # isort: skip
from vissl.data.collators import get_collator  # isort: skip
from vissl.trainer.train_task import SelfSupervisionTask  # isort: skip

STAGE_1 = [
    {"name": "ImgPilToMultiCrop", "total_num_crops": 3, "size_crops": [16, 8], "num_crops": [2, 1],
     "crop_scales": [[0.14, 1], [0.05, 0.14]]},
    {"name": "RandomHorizontalFlip", "p": 0.5},
    {"name": "ImgPilColorDistortion", "strength": 1.0},
    {"name": "ImgPilGaussianBlur", "p": 0.5, "radius_min": 0.1, "radius_max": 2.0},
    {"name": "ToTensor"},
]  # fmt: skip


def draw() -> list[float]:
    """From every generator; an odd number of Gaussians leaves a second one waiting in Python's and NumPy's."""
    return [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), *torch.rand(3).tolist()]


def written_and_read(states: dict[str, Any]) -> Any:
    """As a checkpoint does it."""
    stream = io.BytesIO()
    torch.save(states, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def test_every_generator_goes_on_where_its_state_was_taken() -> None:
    draw()
    states = take_random_states()
    wanted = [draw() for _ in range(3)]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    give_back_random_states(written_and_read(states))
    assert [draw() for _ in range(3)] == wanted


def test_a_sample_is_drawn_from_its_key_and_from_nothing_else() -> None:
    def sample(*key: int) -> tuple[float, ...]:
        with seeded_for(SampleKey(*key)):
            return tuple(draw())

    first = sample(5, 0, 3)
    draw()
    assert sample(5, 0, 3) == first
    others = {first, sample(6, 0, 3), sample(5, 1, 3), sample(5, 0, 4), sample(0, 5, 3)}
    assert len(others) == 5
    assert all(len({each[position] for each in others}) == 5 for position in range(len(first)))


def test_the_generators_go_on_as_if_no_sample_had_been_drawn() -> None:
    def unreadable() -> None:
        with seeded_for(SampleKey(0, 0, 0)):
            draw()
            raise OSError("unreadable")

    states = take_random_states()
    wanted = draw()
    give_back_random_states(states)
    with pytest.raises(OSError, match="unreadable"):
        unreadable()
    assert draw() == wanted


def test_a_negative_seed_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="expected a seed, an epoch and a sample that count from 0"),
        seeded_for(SampleKey(-1, 0, 0)),
    ):
        pass


def data_set(manifest: Path, ours: bool = True) -> Any:
    """Stage 1's, of small crops, as VISSL builds it."""
    section = {
        "DATA_SOURCES": ["slice_dataset"], "LABEL_SOURCES": [], "DATASET_NAMES": ["tiny"],
        "DATA_PATHS": [str(manifest)], "LABEL_PATHS": [], "BATCHSIZE_PER_REPLICA": 4,
        "LABEL_TYPE": "sample_index", "DATA_LIMIT": -1, "TRANSFORMS": STAGE_1, "COPY_TO_LOCAL_DISK": False,
    }  # fmt: skip
    config = {"DATA": {"TRAIN": section, "TEST": section}, "SEED_VALUE": 3, **({"JOINT_SSL": {}} if ours else {})}
    return build_dataset(AttrDict(config), "TRAIN")


def batches(data: Any, workers: int) -> list[Any]:
    """An epoch of it."""
    torch.manual_seed(workers)  # another state of the main process, and other seeds of the workers
    collate = get_collator("multicrop_collator", {})
    loader = DataLoader(
        data, 4, collate_fn=collate, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    return [view for batch in loader for view in batch["data"][0]]


def test_any_number_of_workers_gives_the_same_samples(tiny_manifest: Path) -> None:
    data = data_set(tiny_manifest)
    alone = batches(data, 0)
    assert len(alone) > 30
    for workers in (1, 2):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(alone, batches(data, workers), strict=True))
    data.drawn_epoch = 1
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(alone, batches(data, 0), strict=True))


def test_a_stock_config_draws_as_vissl_does(tiny_manifest: Path) -> None:
    data = data_set(tiny_manifest, ours=False)
    before = take_random_states()
    drawn = data[3]["data"]
    after = draw()
    give_back_random_states(before)
    source, index = data.data_objs[0], 3
    expected = data.transform({"data": [source[index][0]], "data_valid": [1], "data_idx": [index], "label": [index]})[
        "data"
    ]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(drawn, expected, strict=True))
    assert draw() == after


def test_a_data_set_knows_its_epoch_before_workers_start(tiny_manifest: Path) -> None:
    task = SelfSupervisionTask.__new__(SelfSupervisionTask)
    task.datasets, task.dataloaders = {"train": data_set(tiny_manifest)}, {"train": object()}
    views = {}
    for phase in (-1, 0, 1):  # VISSL's -1: an evaluation before any training
        task.set_epoch("train", epoch=9, start_iter=0, train_phase_idx=phase)
        views[phase] = task.datasets["train"][2]["data"][0]
    assert torch.equal(views[-1], views[0])
    assert not torch.equal(views[0], views[1])
