from __future__ import annotations

import math

import pytest
import torch

from vissl_jointssl.report.neighbours import nearest


def _cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


@pytest.mark.parametrize("grouped", [False, True])
def test_neighbours_equal_a_search_one_by_one(grouped: bool) -> None:
    embeddings = torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
    names = [f"volume {place // 3}" for place in range(12)]
    queries = [0, 7, 11]

    rows, cosines = nearest(embeddings, queries, 4, groups=names if grouped else None)

    plain = embeddings.tolist()
    for query, found, scores in zip(queries, rows.tolist(), cosines.tolist(), strict=True):
        others = [o for o in range(12) if o != query and not (grouped and names[o] == names[query])]
        expected = sorted(others, key=lambda other: -_cosine(plain[query], plain[other]))[:4]
        assert found == expected
        assert scores == pytest.approx([_cosine(plain[query], plain[other]) for other in expected], abs=1e-6)


def test_length_of_an_embedding_does_not_matter() -> None:
    embeddings = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    scaled = embeddings * torch.tensor([1.0, 9.0, 0.1, 5.0, 2.0, 7.0])[:, None]
    assert torch.equal(nearest(embeddings, [0], 3)[0], nearest(scaled, [0], 3)[0])


def test_too_few_candidates_are_named() -> None:
    with pytest.raises(ValueError, match="query 0 has 1 rows to choose 2 neighbours from; lower k"):
        nearest(torch.ones(3, 2), [0], 2, groups=["a", "a", "b"])


def test_a_query_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"queries \[-1, 3\] are not rows of 3 embeddings"):
        nearest(torch.ones(3, 2), [-1, 1, 3], 1)


def test_one_group_name_is_needed_for_each_row() -> None:
    with pytest.raises(ValueError, match="2 group names for 3 embeddings"):
        nearest(torch.ones(3, 2), [0], 1, groups=["a", "b"])
