"""Thousands of small steps on data that goes bad: memory stays flat, no step is lost, and every bad file is named.

The data set, its views, VISSL's data set around it, the loader with a worker, the collator, the training step, the
loss and the watch over numbers are those of a run. The model is f_intra's stem and a narrow f_inter: a whole ResNet-50
would take most of the time and hold nothing that could leak differently. VISSL's trainer and the launcher are left out.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import random
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vissl_jointssl.cli import main
from vissl_jointssl.manifest import Entry, ManifestError, read_manifest, read_quarantine, write_manifest
from vissl_jointssl.models.slice_encoder import SliceEncoder, encode_slices
from vissl_jointssl.models.valid_slices import valid_slices
from vissl_jointssl.models.volume_encoder import VolumeEncoder, volume_embedding
from vissl_jointssl.plugin.hooks.finite_numbers import FiniteNumbersHook
from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss
from vissl_jointssl.plugin.launch import compose
from vissl_jointssl.plugin.number_limits import NumberOptions
from vissl_jointssl.plugin.skipping import skippable

# isort: split
from vissl.config import AttrDict
from vissl.data import build_dataloader, build_dataset
from vissl.trainer.train_steps.standard_train_step import standard_train_step
from vissl.trainer.train_task import SelfSupervisionTask
from vissl.utils.hydra_config import convert_to_attrdict

BATCH, SLICES, SIDE, WIDTH, PROTOTYPES = 4, 4, 16, 16, 8
FLAT = 8  # MiB
SAMPLED = 10  # steps between two looks at the memory


class _Joint(nn.Module):
    """Two views of volumes to `[embeddings, scores]`: the joint trunk with the stem of f_intra alone, and a head."""

    nmb_heads = 1

    def __init__(self) -> None:
        super().__init__()
        blocks = SliceEncoder().blocks
        self.stem = nn.ModuleDict({name: blocks[name] for name in ("conv1", "bn1", "conv1_relu", "maxpool")})
        self.slice_projection = nn.Linear(64, WIDTH)
        self.volume_encoder = VolumeEncoder(width=WIDTH, downsample=(1,), heads=2, head_width=8, offset_groups=1)
        self.prototypes0 = nn.Linear(WIDTH, PROTOTYPES, bias=False)

    @property
    def heads(self) -> list[nn.Module]:
        return [self]

    def forward(self, views: list[Tensor]) -> list[list[Tensor]]:
        volumes = torch.cat(views)
        valid = valid_slices(volumes)
        slices = encode_slices(self.stem, volumes, ("res1",), valid)
        embeddings = volume_embedding(self.volume_encoder(self.slice_projection(slices), valid), valid)
        return [[normalize(embeddings, dim=1), self.prototypes0(embeddings)]]


class _SGD(torch.optim.SGD):
    def step(self, closure: Any = None, where: float | None = None) -> None:
        super().step(closure)


class _Soak(SelfSupervisionTask):
    """As much of VISSL's task as its epochs and its training step touch."""

    where = 0.5

    def __init__(self, config: AttrDict, folder: Path) -> None:
        torch.manual_seed(0)
        self.config = config
        self.base_model, self.distributed_model = _Joint(), None
        self.base_loss = InterSwAVLoss(
            temperature=0.1, epsilon=0.05, num_iters=3, num_views=2, assign_views=[0, 1], embedding_width=WIDTH,
            queue_length=64,
        )  # fmt: skip
        self.train, self.checkpoint, self.iteration, self.max_iteration = True, None, 0, 10**6
        self.perf_stats, self.amp_type, self.device = None, None, torch.device("cpu")
        self._enable_manual_gradient_reduction = False
        self.data_and_label_keys = {"input": ["data"], "target": ["label"]}
        self.hooks = [FiniteNumbersHook(NumberOptions(), folder, ProgressHook(folder)), InterPrototypesHook()]
        self.meters, self.losses, self.num_updates, self.data_iterator = [], [], 0, None
        self.optimizer = _SGD(self.base_model.parameters(), lr=0.01, momentum=0.9)
        self.take_step = skippable(standard_train_step)
        self.seen: dict[int, list[int]] = {}  # indices by epoch
        self.memory: list[tuple[int, int, int, int]] = []  # iteration, epoch, bytes here, bytes of the worker

    @property
    def loss(self) -> nn.Module:
        return self.base_loss

    def get_global_batchsize(self) -> int:
        return BATCH

    def open_data(self) -> None:
        """The data as they are now, as at the start of a run."""
        self.datasets = {"train": build_dataset(self.config, "TRAIN")}
        loader = build_dataloader(
            dataset=self.datasets["train"],
            dataset_config=self.config.DATA.TRAIN,
            num_dataloader_workers=1,
            pin_memory=False,
            multi_processing_method="fork",
            device=torch.device("cpu"),
        )
        self.dataloaders = {"train": loader}

    def epoch(self, number: int, last: int, on_step: Callable[[int], None] = lambda iteration: None) -> None:
        """Take the steps of an epoch, up to the last of the run."""
        self.recreate_data_iterator("train", epoch=number, compute_start_iter=False, train_phase_idx=number)
        self.data_iterator = self._noted(self.data_iterator, self.seen.setdefault(number, []))
        for _ in range(len(self.dataloaders["train"])):
            if self.iteration == last:
                break
            on_step(self.iteration)
            self.take_step(self)
            self.iteration += 1
            if self.iteration % SAMPLED == 0:
                workers = [_resident(child.pid) for child in multiprocessing.active_children() if child.pid]
                self.memory.append((self.iteration, number, _resident(os.getpid()), max(workers, default=0)))
        self.data_iterator = None
        gc.collect()

    @staticmethod
    def _noted(batches: Iterator[dict[str, Any]], seen: list[int]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            seen += batch["data_idx"][0][:BATCH].tolist()
            yield batch


def _resident(process: int) -> int:
    """Memory of a process that is its own, in bytes: what it maps of files comes and goes with the page cache."""
    _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


# --- the data


def _volume(draw: np.random.Generator, number: int) -> np.ndarray:
    volume = draw.random((draw.integers(SLICES - 1, SLICES + 2), SIDE + 4, SIDE + 4))
    return (volume * 65535).astype(np.uint16) if number % 2 else volume.astype(np.float16)


def _entry(path: Path, name: str, array: np.ndarray) -> Entry:
    return Entry(
        id=name, kind="volume", path=path.name, label_path=None, label=None, split="train", patient=f"p-{name}",
        modality="CT", spacing=(2.0, 1.0, 1.0), shape=array.shape, dtype=str(array.dtype),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip


def _spoil(path: Path, kind: int) -> None:
    if kind == 0:  # in place: a reader of the run has it mapped
        array = np.load(path, mmap_mode="r+")
        array[:, ::2] = np.nan
        array.flush()
    elif kind == 1:
        os.truncate(path, path.stat().st_size - 100)
    elif kind == 2:
        np.save(path, np.load(path)[:, :-1])
    else:
        path.write_bytes(b"")


def _write_data(folder: Path, good: int, bad: int) -> set[str]:
    """Rows of sound volumes, and among them those that are bad before the run starts; the bad ones' ids."""
    draw, entries, spoilt = np.random.default_rng(0), [], set()
    order = random.Random(0).sample(range(good + bad), bad)
    for number in range(good + bad):
        path = folder / f"v{number}.npy"
        array = _volume(draw, 0 if number in order else number)
        np.save(path, array)
        entries.append(_entry(path, f"v{number}", array))
        if number in order:
            _spoil(path, len(spoilt) % 4)
            spoilt.add(f"v{number}")
    write_manifest(folder / "manifest.csv", entries)
    return spoilt


def _doctor(folder: Path) -> set[str]:
    """Whom `jointssl doctor --quarantine` puts on the list."""
    before = set(read_quarantine(folder))
    report = folder / "report.json"
    main(["doctor", str(folder), "--quarantine", "--no-hash", "--jobs", "1", "--json", str(report)])
    found = set(read_quarantine(folder)) - before
    written = json.dumps(json.loads(report.read_text()))
    assert all(f'"{name}"' in written for name in found)
    return found


# --- the run


def _config(folder: Path) -> AttrDict:
    overrides = [
        "config=jointssl/stage3_swav",
        f"config.CHECKPOINT.DIR='{folder}'",
        f"config.DATA.TRAIN.DATA_PATHS=['{folder / 'manifest.csv'}']",
        f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={BATCH}",
        f"config.DATA.TRAIN.TRANSFORMS.0.size=[{SIDE},{SIDE}]",
        f"config.DATA.TRAIN.TRANSFORMS.0.num_slices={SLICES}",
        "config.MACHINE.DEVICE=cpu",
    ]
    _, config = convert_to_attrdict(compose(overrides), dump_config=False)
    return config


def _soak(folder: Path, steps: int, good: int, log: pytest.LogCaptureFixture) -> _Soak:
    """The whole story; every claim but the one on memory is checked here."""
    at_start = _write_data(folder, good, bad=good // BATCH)
    with pytest.raises(ManifestError) as refused:
        read_manifest(folder).check_files()
    assert {re.search(r"row '(\w+)'", fault)[1] for fault in refused.value.faults} == at_start
    assert _doctor(folder) == at_start
    read_manifest(folder).check_files()

    config = _config(folder)
    task = _Soak(config, folder)
    task.open_data()
    task.run_hooks("on_start")
    floats = [row.entry for row in task.datasets["train"].data_objs[0].rows if row.entry.dtype == "float16"]
    draw = random.Random(1)
    *to_nan, to_cut = draw.sample(floats, 4)
    an_epoch = len(task.dataloaders["train"])
    nan_at = dict(zip(draw.sample(range(an_epoch), 3), to_nan, strict=True))  # read in the second epoch at the latest

    def turn_to_nan(iteration: int) -> None:
        if iteration in nan_at:
            _spoil(folder / nan_at[iteration].path, 0)

    for number in itertools.count():
        before = task.iteration
        if number == 2:
            _spoil(folder / to_cut.path, 1)
            words = rf"{re.escape(to_cut.path)} \(row '{to_cut.id}'\) cannot be read"
            with pytest.raises((ManifestError, RuntimeError), match=words):
                task.epoch(number, steps)
            assert _doctor(folder) == {entry.id for entry in (*to_nan, to_cut)}
            task.open_data()  # as the command does when it is given again
            continue
        task.epoch(number, steps, turn_to_nan)
        assert len(set(task.seen[number])) == len(task.seen[number])
        if task.iteration == steps:
            break
        assert task.iteration - before == len(task.dataloaders["train"])
        assert len(task.seen[number]) == (task.iteration - before) * BATCH
    task.run_hooks("on_end")
    messages = [record.getMessage() for record in log.records if "the step is skipped" in record.getMessage()]
    named = {name for message in messages for name in re.findall(r"(v\d+) \(v\d+\.npy\) \[index", message)}
    assert named == {entry.id for entry in to_nan}
    assert task.num_updates == steps * BATCH
    assert len(task.losses) == steps - len(messages)
    assert np.isfinite(task.losses).all()
    assert all(weight.isfinite().all() for weight in task.base_model.state_dict().values())
    return task


def test_no_step_is_lost_and_every_bad_volume_is_named(
    tmp_path: Path, one_gloo_rank: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    _soak(tmp_path, steps=60, good=48, log=caplog)


@pytest.mark.slow
def test_two_thousand_steps_leave_memory_flat(
    tmp_path: Path,
    one_gloo_rank: None,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.WARNING)
    steps = 2000
    task = _soak(tmp_path, steps=steps, good=1600, log=caplog)
    quarters = [
        statistics.median(own for iteration, _, own, _ in task.memory if (iteration - 1) * 4 // steps == quarter)
        for quarter in range(4)
    ]
    growth = []  # of the worker, which lives for an epoch
    for epoch in task.seen:
        held = [worker for _, number, _, worker in task.memory if number == epoch]
        if len(held) >= 20:
            growth.append(statistics.median(held[-5:]) - statistics.median(held[5:10]))
    bad = len(read_quarantine(tmp_path))
    total = bad + len(read_manifest(tmp_path))
    quarters, growth = ([round(one / 2**20, 1) for one in found] for found in (quarters, growth))
    with capsys.disabled():
        sys.stdout.write(
            f"\nsoak: {steps} steps, {bad} bad files of {total}, {len(task.losses)} losses; "
            f"memory by quarters {quarters} MiB, growth of a worker within an epoch {growth} MiB\n"
        )
    assert abs(quarters[3] - quarters[1]) < FLAT
    assert growth
    assert max(growth) < FLAT
