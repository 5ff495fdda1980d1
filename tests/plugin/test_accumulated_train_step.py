"""A step over a batch in parts is the step over the whole batch: VISSL's own step is the oracle where it can be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from vissl_jointssl.models.masking import draw_mask, hide_slices
from vissl_jointssl.plugin.accumulated_train_step import accumulated_train_step
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss
from vissl_jointssl.plugin.masked_embedding_loss import MaskedEmbeddingLoss
from vissl_jointssl.plugin.micro_batches import cut_input, join_rows

from classy_vision.hooks import ClassyHook  # isort: skip - after the plugin has made VISSL importable
from classy_vision.tasks.classification_task import AmpType  # isort: skip
from vissl.config import AttrDict  # isort: skip
from vissl.trainer.train_steps.standard_train_step import standard_train_step  # isort: skip
from vissl.trainer.train_task import SelfSupervisionTask  # isort: skip

VOLUMES, WIDTH, PROTOTYPES, SLICES = 12, 6, 5, 4


class _Encoder(nn.Module):
    """Two views of volumes to `[embeddings, scores]`, as a VISSL model returns them."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 16), *middle, nn.Tanh(), nn.Linear(16, WIDTH))
        self.prototypes0 = nn.Linear(WIDTH, PROTOTYPES, bias=False)

    def forward(self, views: list[Tensor]) -> list[list[Tensor]]:
        embeddings = normalize(self.body(torch.cat(views)), dim=1)
        return [[embeddings, self.prototypes0(embeddings)]]


class _MaskedPredictor(nn.Module):
    """Stage 2 in small: volumes `(B, F, D)` to `[predicted, target, mask]` with a mask drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.mask_token = nn.Parameter(torch.randn(WIDTH))
        self.predictor = nn.Sequential(nn.Flatten(), nn.Linear(SLICES * WIDTH, SLICES * WIDTH), nn.Dropout(0.3))

    def forward(self, volumes: Tensor) -> list[list[Tensor]]:
        target = self.frozen(volumes)
        mask = draw_mask(torch.ones(volumes.shape[:2], dtype=torch.bool), 0.4)
        visible = hide_slices(target, mask, self.mask_token)
        return [[self.predictor(visible).unflatten(1, (SLICES, WIDTH)), target, mask]]


class _SGD(torch.optim.SGD):
    def step(self, closure: Any = None, where: float | None = None) -> None:
        super().step(closure)


class _Recorder(ClassyHook):
    """Notes which hooks were called and what they saw, and shows the loss its prototypes."""

    on_start = on_phase_start = on_step = on_phase_end = on_end = ClassyHook._noop

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []

    def _note(self, name: str, task: Any) -> None:
        self.seen.append((name, sorted(vars(task.last_batch))))

    def on_forward(self, task: Any) -> None:
        self._note("forward", task)
        if isinstance(task.loss, InterSwAVLoss):
            task.loss.prototypes = [task.base_model.prototypes0.weight.detach()]

    def on_loss_and_meter(self, task: Any) -> None:
        self._note("loss_and_meter", task)

    def on_backward(self, task: Any) -> None:
        self._note("backward", task)

    def on_update(self, task: Any) -> None:
        self._note("update", task)


class _Meter:
    def __init__(self) -> None:
        self.updates: list[tuple[list[Tensor], Tensor]] = []

    def update(self, outputs: list[Tensor], target: Tensor) -> None:
        self.updates.append((outputs, target))


class _Task(SelfSupervisionTask):
    """As much of VISSL's task as a step touches."""

    where = 0.5

    def __init__(self, model: nn.Module, loss: nn.Module, batches: list[Any], parts: int = 1) -> None:
        self.base_model, self.base_loss, self.distributed_model = model, loss, None
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            self.distributed_model = DistributedDataParallel(model)
        self.train = True
        self.perf_stats, self.amp_type, self.device = None, None, torch.device("cpu")
        self._enable_manual_gradient_reduction = False
        self.config = AttrDict({"JOINT_SSL": {"MICRO_BATCHES": parts}, "METERS": {"enable_training_meter": True}})
        self.data_and_label_keys = {"input": ["data"], "target": ["label"]}
        self.data_iterator = iter(
            [{"data": [batch], "label": [_target(batch)], "data_valid": [_target(batch)]} for batch in batches]
        )
        self.hooks, self.meters, self.losses, self.num_updates = [_Recorder()], [_Meter()], [], 0
        self.optimizer = _SGD(model.parameters(), lr=0.1)

    @property
    def loss(self) -> nn.Module:
        return self.base_loss

    def get_global_batchsize(self) -> int:
        return VOLUMES


def _target(batch: Tensor | list[Tensor]) -> Tensor:
    return torch.arange(sum(len(view) for view in batch) if isinstance(batch, list) else len(batch))


def _view_batches(count: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        [torch.randn(VOLUMES, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)] for _ in range(count)
    ]


def _swav_loss(queue_length: int = 0) -> InterSwAVLoss:
    return InterSwAVLoss(
        temperature=0.1,
        epsilon=0.05,
        num_iters=3,
        num_views=2,
        assign_views=[0, 1],
        embedding_width=WIDTH,
        queue_length=queue_length,
    ).double()


def _encoder(*middle: nn.Module) -> _Encoder:
    torch.manual_seed(0)
    return _Encoder(*middle).double()


def _same_weights(found: nn.Module, wanted: nn.Module) -> None:
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-11, atol=1e-13)


def _parts_in_one_graph(task: _Task, batch: Tensor | list[Tensor], parts: int) -> Tensor:
    """The slow way: all parts in memory with their graphs, one backward pass."""
    pieces = []
    for part in cut_input(batch, parts):
        with torch.autocast("cpu", enabled=task.amp_type == AmpType.PYTORCH):
            pieces.append(task.base_model(part)[0])
    views = len(batch) if isinstance(batch, list) else 1
    output = [join_rows(each, views) for each in zip(*pieces, strict=True)]
    with torch.autocast("cpu", enabled=task.amp_type == AmpType.PYTORCH):
        loss = task.loss(output, None)
    loss.backward()
    return loss.detach()


@pytest.mark.usefixtures("one_gloo_rank")
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("queue_length", [0, 18])
def test_steps_in_parts_are_vissls_steps_of_the_whole_batch(parts: int, queue_length: int) -> None:
    batches = _view_batches(3)
    whole = _Task(_encoder(), _swav_loss(queue_length), batches)
    ours = _Task(_encoder(), _swav_loss(queue_length), batches, parts)
    for _ in batches:
        standard_train_step(whole)
        accumulated_train_step(ours)
    _same_weights(ours.base_model, whole.base_model)
    _same_weights(ours.loss, whole.loss)
    for found, wanted in zip(ours.base_model.parameters(), whole.base_model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-11, atol=1e-13)
    for found, wanted in zip(ours.last_batch.model_output, whole.last_batch.model_output, strict=True):
        torch.testing.assert_close(found.detach(), wanted.detach(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours.loss.last_codes, whole.loss.last_codes, rtol=1e-11, atol=1e-13)
    assert ours.loss.last_codes.shape == (2, VOLUMES, PROTOTYPES)
    assert ours.losses == pytest.approx(whole.losses, rel=1e-12)
    assert ours.num_updates == whole.num_updates


@pytest.mark.usefixtures("one_gloo_rank")
def test_hooks_and_meters_see_what_vissls_step_shows_them() -> None:
    whole = _Task(_encoder(), _swav_loss(), _view_batches(1))
    ours = _Task(_encoder(), _swav_loss(), _view_batches(1), parts=4)
    standard_train_step(whole)
    accumulated_train_step(ours)
    names = [name for name, _ in ours.hooks[0].seen]
    assert names == [name for name, _ in whole.hooks[0].seen] == ["forward", "loss_and_meter", "backward", "update"]
    for (_, found), (_, wanted) in zip(ours.hooks[0].seen, whole.hooks[0].seen, strict=True):
        assert set(wanted) <= set(found)
    (found,), (wanted,) = ours.meters[0].updates, whole.meters[0].updates
    assert torch.equal(found[1], wanted[1])
    torch.testing.assert_close(found[0][1], wanted[0][1].detach())
    assert torch.equal(ours.last_batch.target, whole.last_batch.target)
    assert set(ours.last_batch.sample) == set(whole.last_batch.sample)


@pytest.mark.parametrize("has_queue", [False, True], ids=["no queue", "queue"])
@pytest.mark.parametrize("parts", [1, 3])
def test_two_ranks_equal_one_rank_with_both_batches(
    on_two_ranks: Callable[..., Any], parts: int, has_queue: bool
) -> None:
    def one_of_two(rank: int) -> tuple[Any, ...]:
        batches = [[view.chunk(2)[rank] for view in batch] for batch in _view_batches(3)]
        task = _Task(_encoder(), _swav_loss(VOLUMES if has_queue else 0), batches, parts)
        for _ in batches:
            (standard_train_step if parts == 1 else accumulated_train_step)(task)
        gradients = [parameter.grad.numpy() for parameter in task.base_model.parameters()]
        return task.last_batch.loss.item(), task.loss.last_codes.numpy(), gradients

    answers = on_two_ranks(one_of_two)
    whole = _Task(_encoder(), _swav_loss(2 * VOLUMES if has_queue else 0), _view_batches(3))
    for _ in range(3):
        standard_train_step(whole)
    codes = torch.cat([torch.from_numpy(codes) for _, codes, _ in answers], dim=1)
    torch.testing.assert_close(codes, whole.loss.last_codes, rtol=1e-10, atol=1e-12)
    for loss, _, gradients in answers:
        assert loss == pytest.approx(whole.last_batch.loss.item(), rel=1e-11)
        for found, wanted in zip(gradients, whole.base_model.parameters(), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("one_gloo_rank")
@pytest.mark.parametrize("middle", [nn.Dropout(0.4), nn.BatchNorm1d(16)], ids=["dropout", "batch norm"])
def test_both_passes_of_a_part_drop_and_normalise_alike(middle: nn.Module) -> None:
    (batch,) = _view_batches(1)
    slow = _Task(_encoder(copy.deepcopy(middle)), _swav_loss(), [batch])
    ours = _Task(_encoder(copy.deepcopy(middle)), _swav_loss(), [batch], parts=3)
    torch.manual_seed(5)
    loss = _parts_in_one_graph(slow, batch, 3)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    accumulated_train_step(ours)
    assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(ours.last_batch.loss, loss)
    for found, wanted in zip(ours.base_model.parameters(), slow.base_model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-11, atol=1e-13)
    for found, wanted in zip(ours.base_model.buffers(), slow.base_model.buffers(), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("one_gloo_rank")
def test_stage_2_draws_the_same_hidden_slices_in_both_passes() -> None:
    batch = torch.randn(VOLUMES, SLICES, WIDTH, dtype=torch.float64)
    model = _MaskedPredictor().double()
    slow = _Task(copy.deepcopy(model), MaskedEmbeddingLoss(), [batch])
    ours = _Task(model, MaskedEmbeddingLoss(), [batch], parts=4)
    torch.manual_seed(5)
    loss = _parts_in_one_graph(slow, batch, 4)
    torch.manual_seed(5)
    accumulated_train_step(ours)
    torch.testing.assert_close(ours.last_batch.loss, loss)
    for found, wanted in zip(ours.base_model.parameters(), slow.base_model.parameters(), strict=True):
        if wanted.grad is None:
            assert found.grad is None
        else:
            torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-11, atol=1e-13)


class _EmbeddingsAlone(_Encoder):
    """A model with one output, which VISSL takes out of its list."""

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        return [super().forward(views)[0][1]]


class _FindTheSample(nn.Module):
    """A loss on one output that needs the sample indices, as DeepCluster-v2's does."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target % PROTOTYPES)


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_single_output_and_its_sample_indices_stay_together() -> None:
    torch.manual_seed(0)
    model = _EmbeddingsAlone().double()
    whole = _Task(copy.deepcopy(model), _FindTheSample(), _view_batches(2))
    ours = _Task(model, _FindTheSample(), _view_batches(2), parts=3)
    for _ in range(2):
        whole.meters, ours.meters = [], []
        standard_train_step(whole)
        accumulated_train_step(ours)
    _same_weights(ours.base_model, whole.base_model)
    torch.testing.assert_close(ours.last_batch.model_output.detach(), whole.last_batch.model_output.detach())


@pytest.mark.usefixtures("one_gloo_rank")
def test_mixed_precision_scales_the_gradient_of_every_part_and_loses_none() -> None:
    (batch,) = [[view.float() for view in views] for views in _view_batches(1)]
    slow, ours = (_Task(_encoder().float(), _swav_loss().float(), [batch], parts) for parts in (1, 3))
    for task in (slow, ours):
        task.amp_type, task.amp_grad_scaler = AmpType.PYTORCH, torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = copy.deepcopy(ours.base_model.state_dict())
    loss = _parts_in_one_graph(slow, batch, 3)
    accumulated_train_step(ours)
    assert torch.equal(ours.last_batch.loss, loss)
    assert loss.dtype == ours.loss.last_codes.dtype == torch.float32
    for name, wanted in slow.base_model.named_parameters():
        found = ours.base_model.get_parameter(name)
        torch.testing.assert_close(found.grad, wanted.grad, rtol=0.05, atol=1e-3)
        torch.testing.assert_close(found, before[name] - 0.1 * wanted.grad, rtol=0.05, atol=1e-3)
        assert not torch.equal(found, before[name])


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_test_phase_is_vissls_own_step() -> None:
    task = _Task(_encoder(), _swav_loss(), _view_batches(1), parts=5)  # 5 does not divide 12: nothing is cut
    task.train = False
    before = copy.deepcopy(task.base_model.state_dict())
    accumulated_train_step(task)
    assert [name for name, _ in task.hooks[0].seen] == ["forward", "loss_and_meter"]
    assert all(torch.equal(task.base_model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.usefixtures("one_gloo_rank")
def test_a_step_after_the_end_of_the_training_is_refused() -> None:
    task = _Task(_encoder(), _swav_loss(), _view_batches(1), parts=2)
    task.where = 1.0
    with pytest.raises(RuntimeError, match=r"asked for a step at 1.000 of the training, which is over"):
        accumulated_train_step(task)
