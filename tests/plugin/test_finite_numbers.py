"""A step with a number that is not finite leaves no trace: VISSL's own training step and ours, on one rank and two."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from vissl_jointssl.models.valid_slices import valid_lengths, valid_slices
from vissl_jointssl.plugin.accumulated_train_step import accumulated_train_step
from vissl_jointssl.plugin.capture import capture_file, read_capture
from vissl_jointssl.plugin.hooks.finite_numbers import FiniteNumbersHook
from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss
from vissl_jointssl.plugin.number_limits import NumberOptions
from vissl_jointssl.plugin.skipping import skippable
from vissl_jointssl.plugin.volume_dataset import VolumeDataset

from classy_vision.tasks.classification_task import AmpType  # isort: skip - after the plugin has made VISSL importable
from vissl.config import AttrDict  # isort: skip
from vissl.trainer.train_steps.standard_train_step import standard_train_step  # isort: skip
from vissl.trainer.train_task import SelfSupervisionTask  # isort: skip

VOLUMES, SLICES, SIDE, WIDTH, PROTOTYPES, SAMPLES = 4, 3, 2, 6, 5, 8
FAULTS = ("input", "output", "loss", "gradient")
STEPS = {1: standard_train_step, 2: accumulated_train_step}  # by parts of the batch


class _BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


class _Encoder(nn.Module):
    """Two views of volumes to `[embeddings, scores]`, or with one output to embeddings; refuses what has no slice."""

    def __init__(self, single: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(SIDE * SIDE, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, WIDTH))
        self.single = single
        if not single:
            self.prototypes0 = nn.Linear(WIDTH, PROTOTYPES, bias=False)
        self.nmb_heads = 1
        self.fault = ""

    @property
    def heads(self) -> list[nn.Module]:
        return [self]

    def forward(self, views: list[Tensor]) -> list[Any]:
        volumes = torch.cat(views)
        valid = valid_slices(volumes)
        lengths = valid_lengths(valid)
        slices = torch.where(valid[..., None], volumes.flatten(2), 0)
        embeddings = normalize(self.body(slices.sum(dim=1) / lengths[:, None]), dim=1)
        if self.fault == "output":
            embeddings = embeddings * torch.nan
        if self.fault == "gradient":
            embeddings = _BadGradient.apply(embeddings)
        return [embeddings] if self.single else [[embeddings, self.prototypes0(embeddings)]]


class _Loss(InterSwAVLoss):
    fault = ""

    def forward(self, output: list[Tensor], target: Any) -> Tensor:
        value = super().forward(output, target)
        return value * torch.inf if self.fault == "loss" else value


class _SGD(torch.optim.SGD):
    def step(self, closure: Any = None, where: float | None = None) -> None:
        super().step(closure)


class _Task(SelfSupervisionTask):
    """As much of VISSL's task as a step and our hook touch; steps as VISSL's trainer does."""

    where = 0.5

    def __init__(self, folder: Path, batches: list[list[Tensor]], parts: int = 1, **options: int) -> None:
        torch.manual_seed(0)
        self.base_model, self.distributed_model = _Encoder(), None
        self.base_loss = _Loss(
            temperature=0.1,
            epsilon=0.05,
            num_iters=3,
            num_views=2,
            assign_views=[0, 1],
            embedding_width=WIDTH,
            queue_length=8,
        )
        self.world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        if self.world > 1:
            self.distributed_model = DistributedDataParallel(self.base_model)
        self.train, self.checkpoint, self.iteration, self.max_iteration = True, None, 0, 100
        self.perf_stats, self.amp_type, self.device = None, None, torch.device("cpu")
        self._enable_manual_gradient_reduction = False
        self.config = AttrDict({"JOINT_SSL": {"MICRO_BATCHES": parts}, "METERS": {"enable_training_meter": False}})
        self.data_and_label_keys = {"input": ["data"], "target": ["label"]}
        self.datasets = {"train": SimpleNamespace(data_objs=[object()])}
        self.data_iterator = iter([self._as_loaded(batch, number) for number, batch in enumerate(batches)])
        self.hooks = [FiniteNumbersHook(NumberOptions(**options), folder, ProgressHook(folder)), InterPrototypesHook()]
        self.meters, self.losses, self.num_updates = [], [], 0
        # AdamW's moments and SGD's momentum are both under `optimizer.state_dict()`
        self.optimizer = _SGD(self.base_model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        self.step_once = skippable(STEPS[parts])

    @staticmethod
    def _as_loaded(batch: list[Tensor], number: int) -> dict[str, list[Any]]:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        indices = (torch.arange(VOLUMES) + VOLUMES * (number + rank)) % SAMPLES
        both = indices.repeat(2)
        return {"data": [batch], "label": [both], "data_valid": [both], "data_idx": [both]}

    @property
    def loss(self) -> nn.Module:
        return self.base_loss

    def get_global_batchsize(self) -> int:
        return VOLUMES * self.world

    def start(self) -> _Task:
        self.run_hooks("on_start")
        return self

    def step(self, fault: str = "") -> None:
        self.base_model.fault = self.base_loss.fault = fault
        self.step_once(self)
        self.iteration += 1

    @property
    def numbers(self) -> FiniteNumbersHook:
        return self.hooks[0]


def _batches(count: int, bad: int | None = None, seed: int = 3) -> list[list[Tensor]]:
    """Volumes of which some are shorter; in batch `bad`, one voxel of volume 1's second view is infinite."""
    generator = torch.Generator().manual_seed(seed)
    batches = [
        [torch.randn(VOLUMES, SLICES, 1, SIDE, SIDE, generator=generator) for _ in range(2)] for _ in range(count)
    ]
    for batch in batches:
        batch[0][2, 2:] = torch.nan  # padding
    if bad is not None:
        batches[bad][1][1, 0, 0, 1, 1] = torch.inf
    return batches


def _state(task: _Task) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "model": task.base_model.state_dict(),
            "loss": task.loss.state_dict(),
            "optimizer": task.optimizer.state_dict(),
            "losses": task.losses,
        }
    )


def _same_bits(found: Any, wanted: Any, path: str = "") -> None:
    if isinstance(wanted, Tensor):
        assert torch.equal(found, wanted), path
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            _same_bits(found[key], wanted[key], f"{path}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), path
        for number, one in enumerate(wanted):
            _same_bits(found[number], one, f"{path}.{number}")
    else:
        assert found == wanted, path


@pytest.mark.usefixtures("one_gloo_rank")
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_skipped_step_leaves_every_bit_as_it_was(
    fault: str, parts: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = _Task(tmp_path, _batches(4, bad=2 if fault == "input" else None), parts).start()
    task.step()
    task.step()
    before = _state(task)
    assert before["optimizer"]["state"][0]["momentum_buffer"].any()
    assert before["model"]["body.1.num_batches_tracked"] == 2 * parts
    assert before["loss"]["queue.filled"] == 8
    with caplog.at_level(logging.WARNING):
        task.step(fault)
    _same_bits(_state(task), before)
    assert task.numbers.state.skipped == [2]
    assert task.num_updates == 3 * VOLUMES  # the schedules go on
    named = "the gradient of prototypes0.weight" if fault == "gradient" else f"the {fault}"
    named = "the gradient of body.3.bias and 5 more" if fault == "gradient" else named
    assert f"iteration 2: {named} is NaN or infinite first, on rank 0" in caplog.text
    samples = ["sample 1"] if fault == "input" else [f"sample {index}" for index in range(4)]
    assert ", ".join(f"{name} [index {name[-1]}, rank 0]" for name in samples) + "; the step is skipped" in caplog.text
    task.step()
    assert task.numbers.state.skipped == [2]
    assert not torch.equal(task.base_model.body[0].weight, before["model"]["body.0.weight"])


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_run_with_a_skipped_batch_ends_where_a_run_without_that_batch_does(tmp_path: Path) -> None:
    batches = _batches(5, bad=2)
    ours = _Task(tmp_path, batches).start()
    theirs = _Task(tmp_path, [batch for number, batch in enumerate(batches) if number != 2])
    theirs.hooks = theirs.hooks[1:]
    theirs.start()
    for _ in range(5):
        ours.step()
    for _ in range(4):
        theirs.step()
    _same_bits(_state(ours), _state(theirs))


@pytest.mark.usefixtures("one_gloo_rank")
def test_padding_is_no_fault_and_half_a_slice_of_nan_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches = _batches(3)
    batches[1][0][0, 1, 0, 0, 1] = torch.nan  # within a slice
    batches[2][0][3] = torch.nan  # a volume that the model would refuse: no slice at all
    task = _Task(tmp_path, batches).start()
    for _ in batches:
        task.step()
    assert task.numbers.state.skipped == [1, 2]
    assert "iteration 1: the input is NaN or infinite first, on rank 0, with sample 4 [index 4, rank 0];" in caplog.text
    assert "iteration 2: the input is NaN or infinite first, on rank 0, with sample 3 [index 3, rank 0];" in caplog.text


@pytest.mark.usefixtures("one_gloo_rank")
def test_samples_are_named_as_in_the_manifest_and_the_progress_says_so_once(
    tmp_path: Path, tiny_manifest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = AttrDict({"DATA": {"TRAIN": {}}})
    volumes = VolumeDataset(cfg=config, path=str(tiny_manifest), split="TRAIN", dataset_name="", data_source="")
    task = _Task(tmp_path, _batches(2, bad=1)).start()
    task.datasets = {"train": SimpleNamespace(data_objs=[volumes])}
    task.step("output")
    task.step()
    assert "with volume5 (volume5.npy) [index 5, rank 0]; the step is skipped on all ranks, 2 in a row" in caplog.text
    task.run_hooks("on_end")
    task.numbers._progress.on_end(task)
    warnings = json.loads((tmp_path / "progress.json").read_text())["warnings"]
    assert len(warnings) == 1
    assert "iteration 0: the output is NaN" in warnings[0]


@pytest.mark.usefixtures("one_gloo_rank")
def test_the_fourth_step_in_a_row_stops_the_run_and_leaves_a_capture(tmp_path: Path) -> None:
    task = _Task(tmp_path, _batches(6)).start()
    task.step()
    before = _state(task)
    for _ in range(3):
        task.step("output")
    with pytest.raises(
        FloatingPointError, match=r"3 steps in a row have been skipped .*JOINT_SSL\.NUMBERS\.SKIP\)"
    ) as e:
        task.step("output")
    assert f"`jointssl replay {tmp_path}/capture_rank0.pt` finds the place" in str(e.value)
    assert f"No checkpoint has been written to {tmp_path} yet" in str(e.value)
    _same_bits(_state(task) | {"losses": []}, before | {"losses": []})
    capture = read_capture(capture_file(tmp_path, 0))
    _same_bits(capture.model, before["model"])
    _same_bits(capture.loss, before["loss"])
    torch.testing.assert_close(capture.batch, _batches(6)[4], rtol=0, atol=0, equal_nan=True)
    assert capture.samples == [f"sample {index}" for index in range(4)]
    assert (capture.rank, capture.faulty_ranks, capture.iteration, capture.scale) == (0, [0], 4, None)
    assert "MICRO_BATCHES: 1" in capture.config


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_good_step_ends_the_row_but_not_the_count_of_the_last_1000(tmp_path: Path) -> None:
    task = _Task(tmp_path, _batches(9), skip=2, skip_per_1000=2).start()
    for fault in ("loss", "", "loss", ""):
        task.step(fault)
    task.iteration = 1000  # the step 0 is 1000 steps ago, and out
    task.step("loss")
    with pytest.raises(FloatingPointError, match="2 of the last 1000 steps have been skipped"):
        task.step("loss")


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    task = _Task(tmp_path, _batches(2), skip_per_1000=1)
    task.checkpoint = {"classy_state_dict": {"hooks": {"FiniteNumbersHook": {"skipped": [3]}}}}
    task.start()
    task.iteration = 7
    with pytest.raises(FloatingPointError, match="1 of the last 1000 steps"):
        task.step("loss")


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_capture_that_cannot_be_written_is_said_and_stops_the_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    task = _Task(tmp_path, _batches(1), skip=0).start()
    task.numbers._folder = tmp_path / "file"
    with pytest.raises(FloatingPointError, match=r"0 steps in a row .*capture_rank0\.pt could not be written"):
        task.step("loss")


@pytest.mark.usefixtures("one_gloo_rank")
def test_the_memory_of_deepclusterv2_is_as_before(tmp_path: Path) -> None:
    task = _Task(tmp_path, _batches(3, bad=2))
    task.base_model = _Encoder(single=True)
    task.base_loss = InterDeepClusterV2Loss(
        temperature=0.1,
        num_clusters=[2],
        kmeans_iters=2,
        memory_views=[0, 1],
        num_views=2,
        embedding_width=WIDTH,
        num_train_samples=SAMPLES,
        seed=0,
    )
    task.base_loss.assignments.zero_()
    task.optimizer = _SGD(task.base_model.parameters(), lr=0.1)
    task.hooks = task.hooks[:1]
    task.start()
    task.step()
    task.step()
    before = {name: buffer.clone() for name, buffer in task.loss.named_buffers()}
    assert before["memory.fresh"].all()
    task.step()
    assert task.numbers.state.skipped == [2]
    _same_bits(dict(task.loss.named_buffers()), before)


# --- mixed precision


def _mixed(task: _Task, scale: float) -> _Task:
    task.amp_type = AmpType.PYTORCH
    task.amp_grad_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return task.start()


@pytest.mark.usefixtures("one_gloo_rank")
def test_an_infinite_gradient_that_comes_from_the_scale_is_the_scalers_business(tmp_path: Path) -> None:
    task = _mixed(_Task(tmp_path, _batches(4), parts=2, skip=0), scale=2.0**127)
    before = copy.deepcopy(task.base_model.body[0].weight)
    task.step("gradient")
    assert task.numbers.state.skipped == []
    assert task.amp_grad_scaler.get_scale() == 2.0**126
    assert torch.equal(task.base_model.body[0].weight, before)


@pytest.mark.usefixtures("one_gloo_rank")
@pytest.mark.parametrize(("fault", "scale"), [("gradient", 1.0), ("output", 1024.0), ("loss", 1024.0)])
def test_what_no_scale_can_mend_is_a_fault_and_the_scaler_works_on(fault: str, scale: float, tmp_path: Path) -> None:
    task = _mixed(_Task(tmp_path, _batches(3), parts=2), scale)
    task.step()
    before, scaler = _state(task), task.amp_grad_scaler.state_dict()
    task.step(fault)
    assert task.numbers.state.skipped == [1]
    _same_bits(_state(task), before)
    assert task.amp_grad_scaler.state_dict() == scaler
    task.step()  # raises if the scaler were in the middle of a step
    assert not torch.equal(task.base_model.body[0].weight, before["model"]["body.0.weight"])


# --- how often it waits


class _Waits(TorchDispatchMode):
    """Counts reads of a number from a tensor, each of which waits for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func) or "nonzero" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_good_step_waits_once_more_than_without_the_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vissl_jointssl.plugin.hooks import finite_numbers

    exchanges = []

    def exchange(flags: list[Tensor], device: torch.device) -> list[list[bool]]:
        exchanges.append(len(flags))
        return [[False] * len(flags)]

    monkeypatch.setattr(finite_numbers, "on_all_ranks", exchange)
    waits = []
    for watched in (True, False):
        task = _Task(tmp_path, _batches(1))
        task.hooks = task.hooks if watched else task.hooks[1:]
        task.start()
        with _Waits() as mode:
            task.step()
        waits.append(mode.count)
    assert exchanges == [5]  # once: four kinds of faults, and whether somebody has asked the run to stop
    assert waits[0] == waits[1] > 0


# --- two ranks


def _on_rank(rank: int, folder: Path, fault: str, **options: int) -> tuple[Any, ...]:
    batches = _batches(3, bad=1 if fault == "input" and rank == 1 else None, seed=10 + rank)
    if fault == "no slice" and rank == 1:
        batches[1][0][0] = torch.nan
    task = _Task(folder, batches, **options).start()
    task.step()
    before = _state(task)
    said = ""
    try:
        task.step(fault if rank == 1 else "")
    except FloatingPointError as error:
        said = str(error)
    after = _state(task) | ({"losses": before["losses"]} if said else {})
    _same_bits(after, before)
    skipped = list(task.numbers.state.skipped)
    if not said:
        task.step()
    weights = task.base_model.body[0].weight.detach().numpy()
    return skipped, weights, said, task.loss.state_dict()["queue.stored"].numpy()


@pytest.mark.parametrize("fault", [*FAULTS, "no slice"])
def test_a_fault_on_one_rank_is_skipped_on_both(on_two_ranks: Callable[..., Any], tmp_path: Path, fault: str) -> None:
    answers = on_two_ranks(lambda rank: _on_rank(rank, tmp_path, fault))
    assert [skipped for skipped, *_ in answers] == [[1], [1]]
    (_, first, _, first_queue), (_, second, _, second_queue) = answers
    assert (first == second).all()
    assert (first_queue != second_queue).any()  # each its own


@pytest.mark.parametrize("fault", ["input", "gradient"])
def test_a_fault_on_one_rank_stops_both_with_the_same_words(
    on_two_ranks: Callable[..., Any], tmp_path: Path, fault: str
) -> None:
    answers = on_two_ranks(lambda rank: _on_rank(rank, tmp_path, fault, skip=0))
    (_, _, first, _), (_, _, second, _) = answers
    assert first == second
    where = "on rank 1, with sample 1 [index 1, rank 1];" if fault == "input" else "on ranks 0, 1 (averaged over ranks)"
    assert where in first
    for rank in range(2):
        capture = read_capture(capture_file(tmp_path, rank))
        assert capture.rank == rank
        assert capture.faulty_ranks == ([1] if fault == "input" else [0, 1])
        assert capture.samples == (["sample 1"] if rank == 1 else []) or fault == "gradient"
    assert f"capture_rank{1 if fault == 'input' else 0}.pt" in first
