"""A batch in parts: the same step as with the whole batch, with the activations of one part in memory at a time.

The loss needs all embeddings at once (Sinkhorn balances over the batch), but only the embeddings. So a first pass
without gradient collects them part by part, the loss and its gradient by them are taken once, and a second pass
repeats each part and carries its rows of that gradient on to the weights. This is the chain rule and no approximation:
for a model that treats samples one by one, the gradient is the whole batch's. BatchNorm does not: its statistics are
those of one part (SyncBN: of one part on all ranks), and its running statistics take one update per part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

ModelInput = Tensor | list[Tensor]
RandomState = tuple[Tensor, Tensor | None]


def cut_input(batch: ModelInput, parts: int) -> list[ModelInput]:
    """Cut a batch by volumes, all views of a volume in the same part.

    Args:
        batch: V tensors ``(B, ...)``, one per view, as VISSL's `multicrop_collator` makes them; or one tensor whose
            rows the loss does not relate to each other, as `simclr_collator` makes it for stage 2.
        parts: Number of parts, n.

    Returns:
        n inputs of the same kind, with B / n rows in each tensor.

    Raises:
        ValueError: If n does not divide the rows.
    """
    if isinstance(batch, Tensor):
        return list(_chunks(batch, parts))
    return [list(views) for views in zip(*(_chunks(view, parts) for view in batch), strict=True)]


def _chunks(rows: Tensor, parts: int) -> Sequence[Tensor]:
    if rows.shape[0] % parts:
        raise ValueError(
            f"a batch of {rows.shape[0]} cannot be cut into {parts} equal parts; make config.JOINT_SSL.MICRO_BATCHES a "
            "divisor of config.DATA.TRAIN.BATCHSIZE_PER_REPLICA and set config.DATA.TRAIN.DROP_LAST=True"
        )
    return rows.chunk(parts)


def number_of_views(batch: ModelInput) -> int:
    """V, by which the rows of the model's output are blocked; 1 for a single tensor."""
    return len(batch) if isinstance(batch, list) else 1


def join_rows(parts: Sequence[Tensor], views: int) -> Tensor:
    """Outputs of n parts, each ``(V*b, ...)`` and view-major, in the order of the whole batch, ``(V*n*b, ...)``."""
    return rearrange(list(parts), "n (v b) ... -> (v n b) ...", v=views)


def cut_rows(rows: Tensor, views: int, parts: int) -> list[Tensor]:
    """The reverse of `join_rows`."""
    return list(rearrange(rows, "(v n b) ... -> n (v b) ...", v=views, n=parts))


def random_state() -> RandomState:
    """State of the generators that layers draw from: the CPU's, and the current GPU's once there is one."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.get_rng_state(), torch.cuda.get_rng_state() if on_gpu else None


@contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Draw once more what was drawn after `state` (dropout, hidden slices); the present state returns afterwards."""
    cpu, gpu = state
    with torch.random.fork_rng(devices=[] if gpu is None else [torch.cuda.current_device()]):
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Leave a model's buffers as they were: BatchNorm counts a part when it is repeated, not twice."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)


def gradient_of_outputs(loss: Tensor, outputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Derivative of the loss by each output, ``None`` where the loss does not depend on an output.

    Args:
        loss: Scalar, computed from `outputs`.
        outputs: As `as_leaves` gave them.
    """
    leaves = [output for output in outputs if output.requires_grad]
    found = iter(torch.autograd.grad(loss, leaves, allow_unused=True))
    return [next(found) if output.requires_grad else None for output in outputs]


def as_leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs by which a gradient can be taken; masks and indices as they are."""
    return [output.detach().requires_grad_(output.is_floating_point()) for output in outputs]


def backward_of_part(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add what one part contributes to the gradients of the weights.

    Args:
        outputs: The part's outputs, with their graph.
        gradients: Its rows of `gradient_of_outputs`. An output without a graph (a frozen target) takes none.
    """
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, gradients, strict=True)
        if gradient is not None and output.requires_grad
    ]
    torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])
