"""Nearest neighbours: VISSL's `nearest_neighbor_test.py` on any device and for data sets of any size.

VISSL's own (tools/nearest_neighbor_test.py) puts everything on a GPU, takes no step below 100 test samples
(:52, chunks of n // 100) and needs five classes (:90). The votes are the same, those of the weighted k-NN of Wu et al.
2018, "Unsupervised feature learning via non-parametric instance discrimination".
"""

from __future__ import annotations

import json
import logging

import torch
from torch import Tensor
from torch.nn import functional
from vissl.config import AttrDict

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.plugin.extracted_features import Extraction, Features, class_ids, extract, read_features

RESULTS = "nearest_neighbor.json"
CHUNK = 1024  # test samples whose similarities to all training samples are held at once


def weighted_votes(
    features: Tensor,
    train_features: Tensor,
    train_classes: Tensor,
    *,
    classes: int,
    neighbours: int,
    temperature: float,
) -> Tensor:
    """Let the most similar training samples vote for their classes, each with weight exp(similarity / temperature).

    Similarity is the inner product; on unit vectors, the cosine. Votes are scaled to the nearest neighbour's being 1,
    so that a small temperature does not overflow; the order of the classes is the same.

    Args:
        features: Samples to classify, ``(n, d)``.
        train_features: ``(N, d)``.
        train_classes: Class ids, ``(N,)``.
        classes: How many classes there are.
        neighbours: How many training samples vote.
        temperature: The smaller, the more the nearest ones count.

    Returns:
        Votes ``(n, classes)``.

    Raises:
        ValueError: If there are fewer training samples than should vote, or the temperature is not positive.
    """
    if not 1 <= neighbours <= len(train_features):
        raise ValueError(
            f"config.NEAREST_NEIGHBOR.TOPK is {neighbours}, but there are {len(train_features)} training samples to "
            f"vote; set it from 1 to {len(train_features)}"
        )
    if temperature <= 0:
        raise ValueError(f"config.NEAREST_NEIGHBOR.SIGMA is {temperature}; a temperature is positive, 0.1 for example")
    similarity, index = (features @ train_features.T).topk(neighbours, dim=1)  # (n, neighbours), descending
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = features.new_zeros(len(features), classes)
    return votes.scatter_add_(1, train_classes[index], weights)


def top_accuracies(votes: Tensor, targets: Tensor) -> dict[str, float]:
    """Per cent of samples whose class is among the first one or five; five only where there are more classes.

    Args:
        votes: ``(n, classes)``.
        targets: Class ids, ``(n,)``.
    """
    ranks = [1, 5] if votes.shape[1] > 5 else [1]
    order = votes.argsort(dim=1, descending=True)
    hits = order == targets[:, None]
    return {f"top{rank}": 100.0 * hits[:, :rank].any(dim=1).float().mean().item() for rank in ranks}


def main(overrides: list[str]) -> dict[str, dict[str, float]]:
    """Extract, vote and report; also in `nearest_neighbor.json` beside the features.

    Args:
        overrides: Hydra's.

    Returns:
        By feature, the accuracies in per cent.

    Raises:
        ValueError: If the config has a fault, or does not fit the features.
    """
    return evaluate(extract(overrides, "nearest_neighbor_test.py"))


def evaluate(extraction: Extraction) -> dict[str, dict[str, float]]:
    """The accuracies of extracted features, logged and written."""
    settings = extraction.config.NEAREST_NEIGHBOR
    device = torch.device("cuda" if extraction.config.MACHINE.DEVICE == "gpu" else "cpu")
    results = {}
    for layer in extraction.layers:
        train, test = (read_features(extraction.folder, split, layer) for split in ("train", "test"))
        results[layer] = classify(train, test, settings, device)
        shown = ", ".join(f"{name}: {value:.2f}" for name, value in results[layer].items())
        logging.info(
            f"Layer {layer}: {len(test.values)} samples, {settings.TOPK} neighbours, sigma {settings.SIGMA}: {shown}"
        )
    write_at_once((json.dumps(results, indent=1) + "\n").encode(), extraction.folder / RESULTS)
    return results


def classify(train: Features, test: Features, settings: AttrDict, device: torch.device) -> dict[str, float]:
    """Top-1 and top-5 of the test split by the votes of the training split.

    Args:
        train: Voters.
        test: Samples to classify.
        settings: `config.NEAREST_NEIGHBOR`.
        device: Where to compute.
    """
    known = torch.from_numpy(class_ids(train.targets, "a nearest-neighbour test")).to(device)
    wanted = torch.from_numpy(class_ids(test.targets, "a nearest-neighbour test")).to(device)
    voters, samples = (torch.from_numpy(split.values).to(device) for split in (train, test))
    if settings.L2_NORM_FEATS:
        voters, samples = functional.normalize(voters, dim=1), functional.normalize(samples, dim=1)
    votes = [
        weighted_votes(
            chunk,
            voters,
            known,
            classes=int(max(known.max(), wanted.max())) + 1,
            neighbours=settings.TOPK,
            temperature=settings.SIGMA,
        )
        for chunk in samples.split(CHUNK)
    ]
    return top_accuracies(torch.cat(votes), wanted)
