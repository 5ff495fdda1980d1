"""`jointssl speed inter`: f_inter forward and backward, against the blocks that the released code is made of."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from vissl_jointssl.models.entry_distance_bias import with_exact_bias
from vissl_jointssl.models.released_volume_encoder import ReleasedVolumeEncoder
from vissl_jointssl.models.volume_encoder import AttentionBlock, VolumeEncoder
from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.timing import machine, machine_line, time_by_turns

BATCH = 2  # one volume, two views
SLICES = 64
WIDTH = 640
FEED_FORWARD_WIDTH = 720
BLOCKS = 4
OUTPUT_TOLERANCE = 1e-4  # outputs end in a LayerNorm: their entries are of order one
GRADIENT_TOLERANCE = 1e-3  # of the length of the input's gradient
PACKAGES = ("deformable-attention", "numpy", "torch")
WAYS = {
    "package": "DeformableAttention1D of deformable-attention",
    "exact": "the same along the entries, ours, every pair",
    "released": "the same along the entries, ours, by table",
    "slice": "along the slices (the default)",
}
NAMES = {  # the package's weights: ours
    "to_q": "queries",
    "to_k": "keys",
    "to_v": "values",
    "to_out": "output",
    "to_offsets.0": "offsets.0",
    "to_offsets.2": "offsets.2",
    "rel_pos_bias.mlp.0.0": "position_bias.network.0",
    "rel_pos_bias.mlp.1.0": "position_bias.network.2",
    "rel_pos_bias.mlp.2": "position_bias.network.4",
}
_SEED = 0
_log = logging.getLogger(__name__)

Case = tuple[Tensor, Tensor]  # embeddings (B, F, D), and what the outputs are weighed with in the loss
Result = tuple[Tensor, Tensor]  # outputs, and the gradient of the embeddings


def measure(settings: Settings) -> dict[str, Any]:
    """As `measure_inter` at the released sizes."""
    return measure_inter(settings.repetitions, settings.device)


def measure_inter(
    repetitions: int, device: str = "cpu", *, batch: int = BATCH, width: int = WIDTH, blocks: int = BLOCKS
) -> dict[str, Any]:
    """Time forward and backward of every way by turns in float32, and check that equal weights give equal numbers.

    Args:
        repetitions: Turns of each way.
        device: ``cpu`` or ``gpu``.
        batch: B.
        width: D.
        blocks: Blocks of each way along the entries; the default axis has its four.

    Returns:
        What `table` shows; the README of its keys is docs/speed.md.

    Raises:
        ValueError: If deformable-attention is missing, or if a way gave other outputs or gradients than the package.
    """
    where = torch.device("cuda" if device == "gpu" else device)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        encoders = {name: encoder.to(where) for name, encoder in _encoders(width, blocks).items()}
        cases = [
            (torch.randn(batch, SLICES, width, device=where), torch.randn(batch, SLICES, width, device=where))
            for _ in range(repetitions)
        ]
    contestants = {name: _forward_and_backward(encoder) for name, encoder in encoders.items()}
    _log.info("f_inter, %d turns of %d ways", repetitions, len(contestants))
    time_by_turns(contestants, cases[:1], check_same)  # allocations, and what else happens once
    timings = time_by_turns(contestants, cases, check_same)
    package = timings["package"].median
    return {
        "what": "inter",
        "machine": machine(PACKAGES),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "input": {"size": [batch, SLICES, width], "count": repetitions},
        "seconds_per_pass": {name: timing.summary() for name, timing in timings.items()},
        "times_as_fast": {name: package / timing.median for name, timing in timings.items()},
    }


def table(measured: Mapping[str, Any]) -> str:
    """Lines of text."""
    size = " x ".join(map(str, measured["input"]["size"]))
    lines = [
        f"f_inter forward and backward of {size}, float32, {measured['input']['count']} turns",
        machine_line(measured["machine"]),
        f"device: {measured['device']}; {measured['threads']} threads; along the entries, every way gave the same",
        "",
        f"{'attention':<46}{'median':>10}{'quartiles':>22}{'times as fast':>16}",
    ]
    for name, words in WAYS.items():
        taken = measured["seconds_per_pass"][name]
        first, median, third = (1000 * taken[key] for key in ("first_quartile", "median", "third_quartile"))
        span = f"{first:.0f} to {third:.0f} ms"
        lines.append(f"{words:<46}{median:>7.0f} ms{span:>22}{measured['times_as_fast'][name]:>16.1f}")
    return "\n".join(lines)


def ratios(measured: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast as the package's blocks the default axis and the released preset are."""
    faster = measured["times_as_fast"]
    return {"inter_speedup": faster["slice"], "inter_released_speedup": faster["released"]}


def check_same(case: Case, results: Mapping[str, Result]) -> None:
    """Hold the ways along the entries to the package's; the default axis is another function.

    Raises:
        ValueError: If the outputs or the input's gradient differ by more than rounding and the table explain.
    """
    outputs, gradient = results["package"]
    for name in ("exact", "released"):
        off = float((results[name][0] - outputs).abs().max())
        turned = float((results[name][1] - gradient).norm() / gradient.norm())
        if not (off <= OUTPUT_TOLERANCE and turned <= GRADIENT_TOLERANCE):  # NaN is not the same either
            raise ValueError(
                f"{WAYS[name]}: outputs differ from the package's by up to {off:.1e} (at most {OUTPUT_TOLERANCE:.0e}), "
                f"the input's gradient by {turned:.1e} of its length (at most {GRADIENT_TOLERANCE:.0e}); "
                "no ratio is told of ways that compute different things"
            )


def package_blocks(slices: int, *, width: int = WIDTH, blocks: int = BLOCKS, dropout: float = 0.0) -> nn.Sequential:
    """f_inter of the released code: ``(B, F, D)`` to the same, with PyPI's attention along the entries.

    Raises:
        ValueError: If deformable-attention is missing.
    """
    if importlib.util.find_spec("deformable_attention") is None:
        raise ValueError(
            "deformable_attention is not installed, and it is what we are measured against; "
            "pip install deformable-attention"
        )
    return nn.Sequential(
        *(AttentionBlock(_Package(slices), width, FEED_FORWARD_WIDTH, dropout=dropout) for _ in range(blocks))
    )


class _Package(nn.Module):
    """The package's attention, called as an `AttentionBlock` calls."""

    def __init__(self, slices: int) -> None:
        super().__init__()
        from deformable_attention import DeformableAttention1D

        self.wrapped = DeformableAttention1D(dim=slices, downsample_factor=4, offset_scale=2, offset_kernel_size=6)

    def forward(self, sequence: Tensor, valid: Tensor | None = None) -> Tensor:
        found: Tensor = self.wrapped(sequence)
        return found


def _encoders(width: int, blocks: int) -> dict[str, nn.Module]:
    """f_inter by way, without dropout; those along the entries have equal weights."""
    package = package_blocks(SLICES, width=width, blocks=blocks)
    released = ReleasedVolumeEncoder(
        width=width, slices=SLICES, blocks=blocks, feed_forward_width=FEED_FORWARD_WIDTH, dropout=0.0
    )
    released.blocks.load_state_dict({_our_name(name): value for name, value in package.state_dict().items()})
    slices = VolumeEncoder(width=width, feed_forward_width=FEED_FORWARD_WIDTH, dropout=0.0)
    return {"package": package, "exact": with_exact_bias(released), "released": released, "slice": slices}


def _our_name(name: str) -> str:
    """``0.attention.wrapped.to_q.weight`` is our ``0.attention.queries.weight``; other names are equal."""
    before, wrapped, after = name.partition("wrapped.")
    if not wrapped:
        return name
    layer, _, kind = after.rpartition(".")
    return f"{before}{NAMES[layer]}.{kind}"


def _forward_and_backward(encoder: nn.Module) -> Callable[[Case], Result]:
    def run(case: Case) -> Result:
        embeddings = case[0].clone().requires_grad_()
        encoder.zero_grad()
        outputs = encoder(embeddings)
        (outputs * case[1]).sum().backward()
        if outputs.is_cuda:
            torch.cuda.synchronize()
        return outputs.detach(), cast("Tensor", embeddings.grad)

    return run
