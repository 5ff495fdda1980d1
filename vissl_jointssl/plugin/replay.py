"""Takes a captured step again on the CPU, and finds the first place where a number is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from classy_vision.generic.distributed_util import set_cpu_device
from classy_vision.losses import LOSS_REGISTRY, build_loss
from torch import Tensor, nn
from vissl.config import AttrDict
from vissl.models import MODEL_REGISTRY, build_model
from vissl.models.heads import MODEL_HEADS_REGISTRY
from vissl.models.trunks import MODEL_TRUNKS_REGISTRY

from vissl_jointssl.plugin.capture import Capture, CaptureError
from vissl_jointssl.plugin.finite_checks import bad_samples, largest, tensors_of
from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.micro_batches import cut_input, join_rows, number_of_views, replayed
from vissl_jointssl.plugin.step_state import StepState
from vissl_jointssl.spelling import nearest

HALF_PRECISION_LIMIT = torch.finfo(torch.float16).max  # 65504
Say = Callable[[str], object]


def replay(capture: Capture, say: Say) -> str | None:
    """Forward and backward on one rank's captured batch.

    In full precision, and with this rank's batch alone: BatchNorm over ranks and codes over ranks are those of one. For
    a run in mixed precision, a number beyond what half precision holds counts as a fault, since there it was one.

    First without gradient, which needs little memory; the backward pass only if the forward pass has no fault.

    Args:
        capture: As `read_capture` gives it.
        say: Called with a line for each module, in the order in which they run, until the fault is found.

    Returns:
        Where the first fault is, in words; None if there is none.

    Raises:
        CaptureError: If the model or loss of its config is not registered, or does not take its weights.
    """
    views = [capture.batch] if isinstance(capture.batch, Tensor) else capture.batch
    for number, view in enumerate(views):
        rows = bad_samples(view).nonzero().flatten().tolist()
        if rows:
            return f"the input: view {number}, rows {rows} of the batch"
    set_cpu_device()  # VISSL's losses ask it where to compute
    config = AttrDict(yaml.safe_load(capture.config))
    model, loss = _rebuild(capture, config)
    step = partial(_loss_of, capture, config, model, loss)
    before = StepState(model, loss)
    watch = _Watch(model, capture.scale, say)
    try:
        with torch.no_grad():
            value = step()
    except (RuntimeError, ValueError, IndexError) as error:
        if watch.first is None:
            raise CaptureError(f"the captured step fails before any number is at fault: {error}") from error
        return f"{watch.first}; what came after it failed ({error})"
    watch.end()
    if watch.first or not torch.isfinite(value):
        return watch.first or f"the loss {config.LOSS.name}, which is {float(value):g}"
    say(f"{config.LOSS.name}: {float(value):.4g}")
    before.restore()
    with torch.enable_grad():
        watch = _Watch(model, capture.scale, lambda line: None)
        step().backward()
    watch.end()
    return watch.first or _first_bad_gradient(model, watch.gradient_limit)


class _Watch:
    """Hooks on every module that name the first one whose output, or whose output's gradient, is at fault."""

    def __init__(self, model: nn.Module, scale: float | None, say: Say) -> None:
        self.first: str | None = None
        self.gradient_limit = math.inf if scale is None else HALF_PRECISION_LIMIT / scale
        self._output_limit = math.inf if scale is None else HALF_PRECISION_LIMIT
        self._say = say
        # Children run before the module they are in returns, so that the first at fault is the innermost.
        self._handles = [
            module.register_forward_hook(partial(self._see_output, name or "the model"))
            for name, module in model.named_modules()
        ]

    def end(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _see_output(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if self.first is not None:
            return
        self.first = _fault(f"the output of {name} ({type(module).__name__})", tensors_of(output), self._output_limit)
        if self.first is None and not list(module.children()):
            self._say(f"{name}: largest {float(largest(tensors_of(output))):.4g}")
        for tensor in _with_graph(output):
            tensor.register_hook(partial(self._see_gradient, name, type(module).__name__))

    def _see_gradient(self, name: str, kind: str, gradient: Tensor) -> None:
        if self.first is None:
            where = f"the gradient by the output of {name} ({kind}), in the backward pass of what comes after it"
            self.first = _fault(where, [gradient], self.gradient_limit)


def _fault(where: str, tensors: list[Tensor], limit: float) -> str | None:
    size = float(largest(tensors))
    if not math.isfinite(size):
        return f"{where}: {'NaN' if math.isnan(size) else 'infinite'}"
    return f"{where}: {size:.4g}, which half precision cannot hold" if size > limit else None


def _with_graph(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    return [tensor for one in values for tensor in _with_graph(one)]


def _first_bad_gradient(model: nn.Module, limit: float) -> str | None:
    """By the order of the backward pass, from the last weight to the first."""
    for name, weight in reversed(list(model.named_parameters())):
        found = None if weight.grad is None else _fault(f"the gradient of {name}", [weight.grad], limit)
        if found is not None:
            return found
    return None


def _rebuild(capture: Capture, config: AttrDict) -> tuple[nn.Module, nn.Module]:
    """Model and loss as they were before the step; names resolve through VISSL's registries and nowhere else."""
    known: list[tuple[str, str, Mapping[str, Any]]] = [
        ("MODEL.BASE_MODEL_NAME", config.MODEL.BASE_MODEL_NAME, MODEL_REGISTRY),
        ("MODEL.TRUNK.NAME", config.MODEL.TRUNK.NAME, MODEL_TRUNKS_REGISTRY),
        ("LOSS.name", config.LOSS.name, LOSS_REGISTRY),
        *(("MODEL.HEAD.PARAMS", name, MODEL_HEADS_REGISTRY) for name in _head_names(config.MODEL.HEAD.PARAMS)),
    ]
    for key, name, registry in known:
        if name not in registry:
            raise CaptureError(f"the capture's config.{key} is {name!r}, not registered{nearest(str(name), registry)}")
    model = build_model(config.MODEL, config.OPTIMIZER)
    loss = build_loss(AttrDict({**config.LOSS[config.LOSS.name], "name": config.LOSS.name}))
    try:
        model.load_state_dict(capture.model)
    except RuntimeError as error:
        raise CaptureError(f"the captured weights do not fit the captured config's model: {error}") from error
    _take_buffers(loss, capture.loss)
    return model.train(), loss.train()


def _head_names(heads: list[Any]) -> list[str]:
    """Heads are `[name, options]`, or lists of such (vissl/models/base_ssl_model.py:326)."""
    return [name for head in heads for name in ([head[0]] if isinstance(head[0], str) else _head_names(head))]


def _take_buffers(loss: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """As `load_state_dict`, but of any shape: a memory's depends on the number of ranks, which is one here."""
    unknown = set(buffers) ^ set(loss.state_dict())
    if unknown:
        raise CaptureError(f"the captured buffers do not fit the captured config's loss: {sorted(unknown)}")
    for name, value in buffers.items():
        owner, _, own = name.rpartition(".")
        loss.get_submodule(owner).register_buffer(own, value.clone())


def _loss_of(capture: Capture, config: AttrDict, model: nn.Module, loss: nn.Module) -> Tensor:
    """The forward pass, with the random numbers of the captured one."""
    parts = cut_input(capture.batch, config.JOINT_SSL.get("MICRO_BATCHES") or 1)
    with replayed((capture.random[0], None)):  # a GPU's generator draws other numbers than a CPU's
        outputs = [tuple(_flat(model(part))) for part in parts]
    views = number_of_views(capture.batch)
    joined = [join_rows(each, views) for each in zip(*outputs, strict=True)]
    output = joined[0] if len(joined) == 1 else joined
    if config.LOSS.name == "inter_swav_loss":  # VISSL's swav_loss has its queue's scores in a buffer
        InterPrototypesHook().on_forward(SimpleNamespace(model=model, loss=loss))
    value: Tensor = loss(output, capture.target)
    return value


def _flat(output: Any) -> list[Tensor]:
    """A model's output as VISSL's step shows it to the loss (vissl/trainer/train_steps/standard_train_step.py:146)."""
    output = output[0] if len(output) == 1 else output
    return [output] if isinstance(output, Tensor) else list(output)
