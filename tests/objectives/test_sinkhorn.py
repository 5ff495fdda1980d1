from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vissl_jointssl
from vissl_jointssl.objectives.sinkhorn import sinkhorn


def cosines(samples: int, prototypes: int, seed: int = 0) -> Tensor:
    """Scores as training makes them: products of unit vectors, float64."""
    generator = torch.Generator().manual_seed(seed)
    make = [torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (samples, prototypes)]
    z, c = (torch.nn.functional.normalize(rows, dim=1) for rows in make)
    return z @ c.T


def sinkhorn_slowly(scores: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """Eq. 2 by alternating division of plain numbers, samples in columns as the paper has them."""
    samples, prototypes = scores.shape
    plan = [[math.exp(scores[b, k].item() / epsilon) for b in range(samples)] for k in range(prototypes)]
    for _ in range(iterations):
        for k in range(prototypes):
            mass = sum(plan[k])
            plan[k] = [value / mass / prototypes for value in plan[k]]
        for b in range(samples):
            mass = sum(plan[k][b] for k in range(prototypes))
            for k in range(prototypes):
                plan[k][b] = plan[k][b] / mass / samples
    return [[plan[k][b] * samples for k in range(prototypes)] for b in range(samples)]


@pytest.mark.parametrize(("samples", "prototypes"), [(6, 3), (4, 9), (1, 5), (5, 1)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_codes_equal_a_loop_over_equation_2(samples: int, prototypes: int, iterations: int) -> None:
    scores = cosines(samples, prototypes)
    expected = torch.tensor(sinkhorn_slowly(scores, 0.05, iterations), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, 0.05, iterations), expected)


def test_codes_equal_those_of_vissl() -> None:
    import vissl_jointssl.plugin  # noqa: F401 - VISSL cannot be imported before it

    # isort: split
    from vissl.losses.distibuted_sinkhornknopp import distributed_sinkhornknopp

    scores = cosines(24, 30)
    theirs = distributed_sinkhornknopp(
        Q=torch.exp(scores / 0.05).t().contiguous(),
        num_iter=3,
        hard_assignment=False,
        world_size=1,
        use_double_prec=True,
        use_gpu=False,
    )
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3).float(), theirs, rtol=1e-5, atol=1e-7)


def test_each_sample_gives_one_unit_and_with_many_rounds_each_prototype_takes_the_same() -> None:
    codes = sinkhorn(cosines(12, 4), iterations=500)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64), rtol=1e-3, atol=0)


def test_a_constant_added_to_all_scores_changes_nothing() -> None:
    scores = cosines(6, 5)
    torch.testing.assert_close(sinkhorn(scores + 7.0), sinkhorn(scores))


def test_the_order_of_samples_and_prototypes_is_kept() -> None:
    scores = cosines(6, 5)
    rows, columns = torch.randperm(6), torch.randperm(5)
    torch.testing.assert_close(sinkhorn(scores[rows][:, columns]), sinkhorn(scores)[rows][:, columns])


def test_no_gradient_flows_through_the_codes() -> None:
    assert not sinkhorn(cosines(4, 3).requires_grad_()).requires_grad


def test_the_scores_are_left_as_they_were() -> None:
    scores = cosines(4, 3)
    before = scores.clone()
    sinkhorn(scores)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_codes_are_float32_even_for_half_precision_scores_under_autocast(dtype: torch.dtype, autocast: bool) -> None:
    scores = cosines(16, 12).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        codes = sinkhorn(scores)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes, sinkhorn(scores.double()).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e3, 1e20, 3e38])
def test_any_finite_scores_give_finite_codes(size: float) -> None:
    scores = (cosines(6, 4).sign() * size).float()
    scores[0] = -size
    scores[1] = size
    codes = sinkhorn(scores)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(6))


def test_equal_scores_give_uniform_codes() -> None:
    torch.testing.assert_close(sinkhorn(torch.full((3, 4), 0.7)), torch.full((3, 4), 0.25))


def test_two_ranks_equal_one_rank_with_both_batches(tmp_path: Path) -> None:
    scores = cosines(10, 7)
    torch.save(scores, tmp_path / "scores.pt")
    root = Path(vissl_jointssl.__file__).parents[1]
    program = Path(__file__).with_name("sinkhorn_rank.py")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, str(program), str(rank), str(tmp_path)], env=environment) for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    codes = torch.cat([torch.load(tmp_path / f"codes{rank}.pt", weights_only=True) for rank in range(2)])
    assert codes.dtype == torch.float64
    torch.testing.assert_close(codes, sinkhorn(scores), rtol=1e-12, atol=1e-14)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon must be positive, got 0"):
        sinkhorn(torch.zeros(2, 2), epsilon=0.0)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        sinkhorn(torch.zeros(2, 2), iterations=0)
