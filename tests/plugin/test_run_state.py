"""A run of toy size goes on bit for bit from any of its checkpoints, on one rank and on two that have little in common.

The loop is VISSL's (vissl/trainer/trainer_main.py:172), losses and hooks are the real ones; whole engines run in
test_exact_resume.py.
"""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vissl_jointssl.objectives.over_ranks import over_ranks, rank_and_world
from vissl_jointssl.plugin.compat import resume
from vissl_jointssl.plugin.compat.checkpoints import broadcast_object
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.hooks import hook_generator
from vissl_jointssl.plugin.hooks.cluster_memory import InterClusterMemoryHook
from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.hooks.run_state import RunStateHook
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss
from vissl_jointssl.plugin.random_states import take_random_states
from vissl_jointssl.plugin.resharding import Place
from vissl_jointssl.plugin.resumable_sampler import ResumableSampler
from vissl_jointssl.plugin.run_state import Layout, hand_out, numbers_of

from classy_vision.generic import distributed_util  # isort: skip - after the plugin has made VISSL importable
from vissl.config import AttrDict  # isort: skip
from vissl.hooks.deepclusterv2_hooks import ClusterMemoryHook, InitMemoryHook  # isort: skip
from vissl.hooks.swav_hooks import SwAVUpdateQueueScoresHook  # isort: skip
from vissl.losses.deepclusterv2_loss import DeepClusterV2Loss  # isort: skip
from vissl.losses.swav_loss import SwAVLoss  # isort: skip
from vissl.trainer.train_task import SelfSupervisionTask  # isort: skip

SAMPLES, BATCH, WIDTH, PROTOTYPES, EPOCHS, QUEUE = 12, 2, 5, 3, 2, 4
LOSSES = ("inter_swav_loss", "inter_deepclusterv2_loss", "swav_loss", "deepclusterv2_loss")
OnTwoRanks = Callable[[Callable[[int], Any]], list[Any]]


class _Model(nn.Module):
    """Layers that draw, statistics that each rank has for itself, and prototypes."""

    def __init__(self, scores: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, WIDTH))
        self.prototypes0 = nn.Linear(WIDTH, PROTOTYPES, bias=False)
        self.nmb_heads, self.scores = 1, scores

    @property
    def heads(self) -> list[nn.Module]:
        return [self]

    def forward(self, views: list[Tensor] | Tensor) -> list[Tensor]:
        embeddings = normalize(self.body(torch.cat(views) if isinstance(views, list) else views), dim=1)
        return [embeddings, self.prototypes0(embeddings)] if self.scores else [embeddings]


class _Loader:
    """As PyTorch's: an epoch's beginning draws a seed. Its samples are drawn from the process' generators."""

    def __init__(self, batch: int) -> None:
        self.sampler, self.batch = ResumableSampler(range(SAMPLES), batch), batch

    def __len__(self) -> int:
        return len(self.sampler) // self.batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        torch.empty((), dtype=torch.int64).random_()
        indices = list(self.sampler)
        return (self._batch(indices[at : at + self.batch]) for at in range(0, len(indices), self.batch))

    @staticmethod
    def _batch(indices: list[int]) -> dict[str, Any]:
        index = torch.tensor(indices)
        views = [torch.sin(index[:, None] * torch.tensor([1.0, 2.0, 3.0]) + view) for view in range(2)]
        noisy = [view + 0.1 * random.gauss(0, 1) + 0.1 * np.random.randn() for view in views]
        return {"data": [noisy], "data_idx": [index.repeat(2)]}


def _loss(name: str, queue: int) -> nn.Module:
    world = rank_and_world()[1]
    if name == "inter_swav_loss":
        return InterSwAVLoss(
            temperature=0.1, epsilon=0.05, num_iters=3, num_views=2, assign_views=[0, 1], embedding_width=WIDTH,
            queue_length=queue, queue_start_iter=1,
        )  # fmt: skip
    if name == "inter_deepclusterv2_loss":
        return InterDeepClusterV2Loss(
            temperature=0.1, num_clusters=[3, 2], kmeans_iters=3, memory_views=[0, 1], num_views=2,
            embedding_width=WIDTH, num_train_samples=SAMPLES, seed=1,
        )  # fmt: skip
    if name == "swav_loss":
        return SwAVLoss(AttrDict({
            "temperature": 0.1, "crops_for_assign": [0, 1], "num_crops": 2, "num_iters": 3, "epsilon": 0.05,
            "use_double_precision": False, "num_prototypes": [PROTOTYPES], "embedding_dim": WIDTH,
            "temp_hard_assignment_iters": 0, "output_dir": "",
            "queue": {"start_iter": 1, "queue_length": 2 * queue, "local_queue_length": 2 * queue // world},
        }))  # fmt: skip
    return DeepClusterV2Loss(AttrDict({
        "num_train_samples": SAMPLES, "DROP_LAST": True, "BATCHSIZE_PER_REPLICA": BATCH, "num_crops": 2,
        "temperature": 0.1, "num_clusters": [3], "kmeans_iters": 3,
        "memory_params": {"crops_for_mb": [0, 1], "embedding_dim": WIDTH},
    }))  # fmt: skip


HOOKS: dict[str, list[type]] = {
    "inter_swav_loss": [InterPrototypesHook],
    "inter_deepclusterv2_loss": [InterClusterMemoryHook],
    "swav_loss": [SwAVUpdateQueueScoresHook],
    "deepclusterv2_loss": [InitMemoryHook, ClusterMemoryHook],
}


class _Run:
    """VISSL's task and trainer in one, as far as hooks look; checkpoints after each epoch and every second step."""

    train, checkpoint_path, num_train_phases, device = True, "model_iteration2.torch", EPOCHS, torch.device("cpu")

    def __init__(self, name: str, checkpoint: dict[str, Any] | None = None, batch: int = BATCH, queue: int = QUEUE):
        rank, self.world = rank_and_world()
        torch.manual_seed(0)
        self.base_model = self.model = _Model("swav" in name)
        random.seed(rank), np.random.seed(rank), torch.manual_seed(100 + rank)
        self.loss = _loss(name, queue)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.amp_grad_scaler = torch.amp.GradScaler("cpu", growth_interval=3)
        self.dataloaders = {"train": _Loader(batch)}
        self.config = AttrDict({
            "CHECKPOINT": {"CHECKPOINT_ITER_FREQUENCY": 2, "CHECKPOINT_FREQUENCY": 1}, "LOSS": {"name": name},
            "DATA": {"TRAIN": {"BATCHSIZE_PER_REPLICA": batch}},
        })  # fmt: skip
        self.keeper = RunStateHook()
        self.hooks = [*(kind() for kind in HOOKS[name]), self.keeper]
        self.iteration, self.train_phase_idx, self.num_updates, self.losses = 0, -1, 0, []
        self.checkpoint, self.written = checkpoint, {}
        if checkpoint is not None:
            self._load(checkpoint, Layout(batch, len(self.dataloaders["train"]), Place(rank, self.world)))
        elif name == "inter_deepclusterv2_loss":
            self.loss.remember(torch.randn(2 * SAMPLES, WIDTH), torch.arange(SAMPLES).repeat(2))

    def _load(self, checkpoint: dict[str, Any], now: Layout) -> None:
        self.own_state = hand_out(checkpoint, self.loss, now)
        self.loss.load_state_dict(checkpoint["loss"])
        state = checkpoint["classy_state_dict"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.train_phase_idx = checkpoint["iteration"], checkpoint["train_phase_idx"]
        self.num_updates, self.losses = state["num_updates"], state["losses"]
        iter(self.dataloaders["train"])  # VISSL's resume draws once more than the run did

    def _hooks(self, moment: str) -> None:
        for hook in self.hooks:
            getattr(hook, moment)(self)

    def finish(self) -> _Run:
        if self.checkpoint is None and hasattr(self.loss, "memory"):
            self.loss.memory.exchange()
        self._hooks("on_start")
        loader = self.dataloaders["train"]
        while self.train_phase_idx + 1 < EPOCHS:
            self.train_phase_idx += 1
            last = self.checkpoint
            resumes = last is not None and last["train_phase_idx"] == self.train_phase_idx - 1
            loader.sampler.set_epoch(self.train_phase_idx)
            loader.sampler.set_start_iter(last["iteration"] - self.train_phase_idx * len(loader) if resumes else 0)
            batches, self.losses = iter(loader), []
            self._hooks("on_phase_start")
            for batch in batches:
                self._step(batch)
                self.iteration += 1
                self._hooks("on_step")
                if self.iteration % 2 == 0:
                    self._write(f"iteration{self.iteration}", self.train_phase_idx - 1)
            self._hooks("on_phase_end")
            self._write(f"phase{self.train_phase_idx}", self.train_phase_idx)
        return self

    def _step(self, batch: dict[str, Any]) -> None:
        output = self.model(batch["data"][0])
        self._hooks("on_forward")
        loss = self.loss(output if len(output) > 1 else output[0], batch["data_idx"][0])
        self.losses.append(over_ranks(loss.detach()).item())
        self.optimizer.zero_grad()
        self.amp_grad_scaler.scale(loss).backward()
        for weight in self.model.parameters():
            if weight.grad is not None:
                weight.grad = over_ranks(weight.grad) / self.world
        self.amp_grad_scaler.step(self.optimizer)
        self.amp_grad_scaler.update()
        self._hooks("on_update")
        self.num_updates += self.dataloaders["train"].batch * self.world

    def _write(self, name: str, epochs_done: int) -> None:
        state = {
            "hooks": {"RunStateHook": self.keeper.get_classy_state()}, "losses": self.losses,
            "num_updates": self.num_updates, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        content = {
            "loss": self.loss.state_dict(), "iteration": self.iteration, "train_phase_idx": epochs_done,
            "classy_state_dict": state,
        }  # fmt: skip
        self.written[name] = broadcast_object(_bytes(content), src=0)

    def everything(self) -> dict[str, bytes]:
        """All that a next step would depend on."""
        content = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()["state"],
            "loss": self.loss.state_dict(), "numbers": numbers_of(self.loss), "losses": self.losses,
            "scaler": self.amp_grad_scaler.state_dict(), "random": take_random_states(),
            "counts": [self.iteration, self.train_phase_idx, self.num_updates],
        }  # fmt: skip
        return {name: bytes(_bytes(value).numpy()) for name, value in _flat("", content)}


def _bytes(content: Any) -> Tensor:
    stream = io.BytesIO()
    torch.save(content, stream)
    return torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)


def _read(content: Tensor) -> Any:
    return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(f"{name}.{key}", one)
    else:
        yield name, value.contiguous().clone() if isinstance(value, Tensor) else value


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A process group of this one process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/alone", world_size=1, rank=0)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed_util, "_cuda_device_index", -1)


def differences(name: str) -> dict[str, list[str]]:
    """What ends otherwise than in the undisturbed run, by the checkpoint that a run was resumed from."""
    whole = _Run(name).finish()
    wanted = whole.everything()
    found = {}
    for written, content in whole.written.items():
        resumed = _Run(name, _read(content)).finish().everything()
        assert set(resumed) == set(wanted)
        found[written] = [item for item in wanted if resumed[item] != wanted[item]]
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_a_run_goes_on_bit_for_bit_from_each_of_its_checkpoints(name: str, tmp_path: Path) -> None:
    with alone(tmp_path):
        found = differences(name)
    assert found == {kind: [] for kind in found}
    assert {"iteration2", "iteration8", "iteration12", "phase0", "phase1"} <= set(found)


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_go_on_each_as_it_was(name: str, on_two_ranks: OnTwoRanks) -> None:
    for found in on_two_ranks(lambda _: differences(name)):
        assert found == {kind: [] for kind in found}
        assert {"iteration2", "iteration4", "iteration6", "phase0"} <= set(found)  # three steps in an epoch


def test_ranks_do_differ_and_vissls_own_resume_would_not_do(on_two_ranks: OnTwoRanks) -> None:
    def states(_: int) -> tuple[bytes, bytes, list[str]]:
        run = _Run("inter_swav_loss").finish()
        wanted = run.everything()
        written = _read(run.written["phase0"])
        del written["classy_state_dict"]["hooks"]["RunStateHook"]
        resumed = _Run("inter_swav_loss", written).finish().everything()
        other = [item for item in wanted if resumed[item] != wanted[item]]
        return wanted[".loss.queue.stored"], wanted[".model.body.1.running_mean"], other

    first, second = on_two_ranks(states)
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert {".model.body.0.weight", ".scaler.scale", ".random.cpu"} <= set(first[2])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("written", ["phase0", "iteration4"])
def test_two_ranks_checkpoints_resume_on_one_and_back_and_say_that_this_is_not_exact(
    name: str, written: str, on_two_ranks: OnTwoRanks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def first(_: int) -> bytes:
        return _Run(name).finish().written[written].numpy().tobytes()

    content = torch.frombuffer(bytearray(on_two_ranks(first)[0]), dtype=torch.uint8)
    with alone(tmp_path), caplog.at_level(logging.INFO):
        run = _Run(name, _read(content), queue=QUEUE)
        start = run.iteration
        run.finish()
        back = run.written["iteration10"].numpy().tobytes()
    assert "Written by 2 ranks with 2 samples a step, resumed by 1 with 2" in caplog.text
    assert "this resume is not bit-exact" in caplog.text
    # 12 samples: an epoch of 3 steps is one of 6, and a step into the second is two
    assert (start, run.iteration) == (6 if written == "phase0" else 8, 12)
    assert run.num_updates == SAMPLES * EPOCHS
    assert np.isfinite(run.losses).all()
    assert len(run.losses) == 6 if written == "phase0" else 5  # a step of two ranks counts once

    def second(_: int) -> tuple[int, int, int, list[float]]:
        again = _Run(name, _read(torch.frombuffer(bytearray(back), dtype=torch.uint8)))
        begun = again.iteration
        again.finish()
        return begun, again.iteration, again.num_updates, again.losses

    for begun, iteration, updates, losses in on_two_ranks(second):
        assert (begun, iteration, updates) == (5, 6, SAMPLES * EPOCHS)
        assert np.isfinite(losses).all()


def test_another_batch_counts_steps_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with alone(tmp_path), caplog.at_level(logging.INFO):
        whole = _Run("inter_swav_loss").finish()
        run = _Run("inter_swav_loss", _read(whole.written["iteration8"]), batch=4)
        assert run.iteration == 3 + 1
        run.finish()
    assert "1 ranks with 2 samples a step, resumed by 1 with 4" in caplog.text
    assert (run.iteration, run.num_updates) == (6, SAMPLES * EPOCHS)


def test_a_checkpoint_without_every_ranks_state_resumes_and_says_what_it_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with alone(tmp_path), caplog.at_level(logging.INFO):
        content = _read(_Run("inter_swav_loss").finish().written["phase0"])
        del content["classy_state_dict"]["hooks"]["RunStateHook"]
        loss = _loss("inter_swav_loss", QUEUE)
        assert hand_out(content, loss, Layout(BATCH, 6, Place(0, 1))) is None
        assert content["iteration"] == 6
        # of two ranks: the epoch that begins must not begin in its middle
        assert hand_out(content, loss, Layout(BATCH, 3, Place(1, 2))) is None
        assert (content["iteration"], content["classy_state_dict"]["num_updates"]) == (3, SAMPLES)
    assert "The checkpoint has rank 0's state alone: this resume is not bit-exact" in caplog.text


def test_only_a_checkpoint_that_vissl_writes_is_gathered_for(tmp_path: Path) -> None:
    with alone(tmp_path):
        run, hook = _Run("inter_swav_loss"), RunStateHook()
        hook.on_start(run)
        run.train_phase_idx = 0
        gathered = []
        for run.iteration in (1, 2, 3):
            hook.on_step(run)
            gathered.append(bool(hook.get_classy_state()))
        assert gathered == [False, True, False]
        run.config.CHECKPOINT.CHECKPOINT_FREQUENCY = 2
        for run.num_train_phases, run.train_phase_idx, wanted in ((9, 4, True), (9, 5, False), (6, 5, True)):
            hook.on_phase_end(run)
            assert bool(hook.get_classy_state()) is wanted
            hook.on_phase_start(run)
            assert not hook.get_classy_state()  # a later checkpoint must not hold an earlier state
        run.train = False
        run.iteration = 2
        hook.on_step(run)
        hook.on_phase_end(run)
        assert not hook.get_classy_state()


def test_what_is_alike_on_all_ranks_is_held_once(on_two_ranks: OnTwoRanks) -> None:
    def parts(_: int) -> list[dict[str, list[str]]]:
        state = _read(_Run("inter_deepclusterv2_loss").finish().written["phase0"])["classy_state_dict"]
        held = state["hooks"]["RunStateHook"]["parts"]
        return [{kind: sorted(part[kind]) for kind in ("loss", "model")} for part in held]

    for first, second in on_two_ranks(parts):
        assert first == {"loss": [], "model": []}
        assert second["loss"] == []  # the memory is everyone's
        assert second["model"] == ["body.1.running_mean", "body.1.running_var"]


def test_the_hook_stands_right_before_vissls_writer_in_our_runs_alone(config_of: Callable[..., AttrDict]) -> None:
    cfg = prepare(config_of("stage1_swav"))
    names = [type(hook).__name__ for hook in hook_generator(cfg)]
    assert names[names.index("RunStateHook") + 1] == "LogLossMetricsCheckpointHook"
    assert names.index("RunStateHook") > names.index("SetDataSamplerEpochHook")  # which forgets an epoch's losses
    del cfg["JOINT_SSL"]
    assert "RunStateHook" not in [type(hook).__name__ for hook in hook_generator(cfg)]


@pytest.mark.parametrize("ours", [True, False])
def test_vissl_loads_a_ranks_own_loss_in_our_runs_alone(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Layout] = []
    monkeypatch.setattr(resume, "_vissl_build_loss", lambda task: nn.Identity())
    monkeypatch.setattr(resume, "hand_out", lambda checkpoint, loss, now: handed.append(now))
    task = SelfSupervisionTask.__new__(SelfSupervisionTask)
    task.checkpoint, task.dataloaders = {"loss": {}}, {"train": range(5)}
    task.config = AttrDict({"DATA": {"TRAIN": {"BATCHSIZE_PER_REPLICA": 3}}, **({"JOINT_SSL": {}} if ours else {})})
    assert isinstance(task._build_loss(), nn.Identity)
    assert handed == ([Layout(3, 5, Place(0, 1))] if ours else [])
