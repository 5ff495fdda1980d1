"""Blocks that keep only their input in the forward pass and compute their inside again in the backward pass.

A block sees the whole batch both times, so BatchNorm's statistics, and the gradient through them, are those of the
whole batch: the gradients are the plain step's. A batch cut into chunks of slices could not have this, since BatchNorm
ties the slices of all chunks together. Only running statistics would move twice; the second time they are copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STEM = ("conv1", "bn1", "conv1_relu", "maxpool")
"""Blocks of VISSL's trunk that are one chunk: the inside of the stem is the largest map of all."""

NOT_RECOMPUTED = "layer4"
"""Keeps its inside: a twentieth of the activations of a ResNet-50, and a fifth of its forward pass."""

Chunk = list[nn.Module]


def recomputed(chunk: Chunk, inputs: Tensor) -> Tensor:
    """Run modules one after the other; the backward pass does it again, from the input.

    Autocast is the same both times. Random numbers would not be: for modules that draw none, such as a ResNet's.
    Without gradient it is a plain forward pass.

    Args:
        chunk: Modules in order of execution.
        inputs: Of the first; kept until the backward pass has been here, and not to be changed before.

    Returns:
        The last one's output.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), buffers_set_aside(chunk)

    # Not reentrant: DDP's hooks and gradients of weights alone (images need none) work as without.
    output: Tensor = checkpoint(run, chunk, inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return output


def run(chunk: Chunk, inputs: Tensor) -> Tensor:
    """The modules one after the other."""
    for module in chunk:
        inputs = module(inputs)
    return inputs


def chunks_of(blocks: Mapping[str, nn.Module], size: int) -> Iterator[tuple[str, Chunk]]:
    """The blocks of a ResNet in chunks, in order of execution, each with the name of the block that it belongs to.

    Args:
        blocks: Named as in VISSL's trunk; the chunk of the stem is named after its last block.
        size: Bottlenecks in a chunk, at most; chunks end where a layer ends, since levels are read there. More keep
            fewer inputs, but compute a longer inside at once.

    Raises:
        ValueError: If ``size`` is not positive.
    """
    if size < 1:
        raise ValueError(f"recompute is {size}; a chunk needs at least 1 block, and 0 recomputes nothing")
    stem = [name for name in STEM if name in blocks]
    if stem:
        yield stem[-1], [blocks[name] for name in stem]
    for name, block in blocks.items():
        if name not in stem:
            parts = list(block) if isinstance(block, nn.Sequential) else [block]
            for first in range(0, len(parts), size):
                yield name, parts[first : first + size]


@contextmanager
def buffers_set_aside(chunk: Chunk) -> Iterator[None]:
    """Let modules work on copies of their buffers: running statistics and counts stay as they are.

    The buffers are replaced, not written back: an earlier step of the same graph may have saved them for its backward.
    """
    own = [
        (module, name, buffer)
        for part in chunk
        for module in part.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in own:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:  # the second pass ends with an exception of PyTorch's as soon as it has all it needs
        for module, name, buffer in own:
            setattr(module, name, buffer)
