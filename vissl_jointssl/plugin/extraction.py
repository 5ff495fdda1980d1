"""VISSL's ``extract_features`` and ``extract_cluster`` engines on CPU and GPU.

The engines keep their names and their files; only the trainer's methods behind them are replaced, with the task's
device where VISSL has ``.cuda()``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classy_vision.generic.distributed_util import gather_from_all, get_rank, get_world_size, is_primary
from torch import Tensor
from vissl.models.model_helpers import get_trunk_output_feature_names
from vissl.trainer.train_task import SelfSupervisionTask
from vissl.trainer.trainer_main import SelfSupervisionTrainer
from vissl.utils import distributed_utils
from vissl.utils.io import save_file

from vissl_jointssl.plugin.compat.patching import replace_everywhere

_vissl_all_gather_sizes = distributed_utils.all_gather_sizes
_vissl_all_gather_heterogeneous = distributed_utils.all_gather_heterogeneous


def replace_gpu_only_extraction() -> None:
    """``vissl/trainer/trainer_main.py:345``, 438, 516, 556 and 586 and ``vissl/utils/distributed_utils.py:65``, 77.

    All of them name a CUDA device, or refuse to run without one (by design).
    """
    SelfSupervisionTrainer.extract = extract
    SelfSupervisionTrainer.extract_clusters = extract_clusters
    replace_everywhere(_vissl_all_gather_sizes, all_gather_sizes)
    replace_everywhere(_vissl_all_gather_heterogeneous, all_gather_heterogeneous)


def extract(trainer: SelfSupervisionTrainer, output_folder: str) -> None:
    """Write the features of every image of every split.

    One set of files per rank, chunk, split and feature name:
    ``rank{r}_chunk{c}_{split}_{name}_{features|targets|inds}.npy``, with targets (images, 1) and images sorted by
    index. ``ExtractedFeaturesLoader.load_features`` of VISSL merges them. A chunk ends after
    ``EXTRACT_FEATURES.CHUNK_THRESHOLD`` images or more; a negative threshold means one chunk per rank.

    Args:
        trainer: VISSL's trainer, its task not yet prepared.
        output_folder: Where the files go.

    Raises:
        ValueError: If the model gives fewer features than the config names.
    """
    _prepare(trainer)
    names = get_trunk_output_feature_names(trainer.cfg.MODEL) or ["heads"]
    threshold = trainer.cfg.EXTRACT_FEATURES.CHUNK_THRESHOLD
    for split in trainer.task.available_splits:
        chunks, rows = 0, FeatureRows(names)
        for batch in _batches(trainer.task, split):
            rows.add(*_embed(trainer.task, batch, names))
            if 0 <= threshold <= rows.images:
                rows.save(Path(output_folder), f"rank{get_rank()}_chunk{chunks}_{split.lower()}")
                chunks, rows = chunks + 1, FeatureRows(names)
        rows.save(Path(output_folder), f"rank{get_rank()}_chunk{chunks}_{split.lower()}")
        logging.info(f"Extracted {', '.join(names)} for partition: {split.lower()}")
    trainer._cleanup_task()


class FeatureRows:
    """Features of the images seen since the last chunk, by image index; an image seen twice is kept once.

    Args:
        names: Names of the features, in the order in which the model gives them.
    """

    def __init__(self, names: list[str]) -> None:
        self.images = 0
        self._features: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
        self._targets: dict[int, np.ndarray] = {}

    def add(self, features: dict[str, np.ndarray], targets: np.ndarray, indices: np.ndarray) -> None:
        """Keep one batch: features (B, ...) by name, targets (B,) or (B, labels), indices (B,)."""
        self.images += len(indices)
        for row, index in enumerate(indices.tolist()):
            self._targets[index] = targets[row].reshape(-1)
            for name, feature in features.items():
                self._features[name][index] = feature[row]

    def save(self, folder: Path, prefix: str) -> None:
        """Write three files per feature, or none if there is nothing to write."""
        order = sorted(self._targets)
        if not order:
            return
        for name, feature in self._features.items():
            save_file(np.array([feature[index] for index in order]), str(folder / f"{prefix}_{name}_features.npy"))
            save_file(np.array([self._targets[index] for index in order]), str(folder / f"{prefix}_{name}_targets.npy"))
            save_file(np.array(order), str(folder / f"{prefix}_{name}_inds.npy"))


def extract_clusters(trainer: SelfSupervisionTrainer) -> dict[str, dict[int, int]]:
    """Find the prototype with the highest score for every image of every split.

    Args:
        trainer: VISSL's trainer, its task not yet prepared; the model must have prototypes.

    Returns:
        Per split, the index of the cluster by index of the image; the same on every rank.

    Raises:
        ValueError: If the model has no prototypes.
    """
    _prepare(trainer)
    if not trainer.task.base_model.is_clustering_model():
        raise ValueError(
            f"config.MODEL.HEAD.PARAMS={trainer.cfg.MODEL.HEAD.PARAMS} has no prototypes to assign images to; "
            f"engine_name=extract_cluster needs a model with a swav_head"
        )
    clusters: dict[str, dict[int, int]] = {}
    for split in trainer.task.available_splits:
        images, assigned = [], []
        for batch in _batches(trainer.task, split):
            with torch.no_grad():
                scores = trainer.task.model(_images(trainer.task, batch))[0][1]
            images.append(torch.cat(batch["data_idx"]).to(trainer.task.device))
            assigned.append(scores.argmax(dim=-1))
        sizes = all_gather_sizes(torch.cat(images))
        all_images = torch.cat(all_gather_heterogeneous(sizes, torch.cat(images))).tolist()
        all_assigned = torch.cat(all_gather_heterogeneous(sizes, torch.cat(assigned))).tolist()
        clusters[split] = dict(zip(all_images, all_assigned, strict=True))
        logging.info(f"Assigned {len(clusters[split])} images to clusters for partition: {split.lower()}")
    trainer._cleanup_task()
    return clusters


def all_gather_sizes(x: Tensor) -> list[int]:
    """Length of ``x`` on every rank, in rank order; ``x`` may live on any device that the backend can send from."""
    return gather_from_all(torch.tensor([len(x)], device=x.device)).tolist()


def all_gather_heterogeneous(sizes: list[int], x: Tensor) -> list[Tensor]:
    """Gather tensors that differ in their first dimension only.

    Every rank sends as many rows as the longest has, because gloo, other than NCCL, takes equal shapes only.

    Args:
        sizes: Length on every rank, from :func:`all_gather_sizes`.
        x: This rank's rows, (sizes[rank], ...).

    Returns:
        One tensor per rank, on the device of ``x``.
    """
    padded = x.new_zeros((max(sizes), *x.shape[1:]))
    padded[: len(x)] = x
    rows = gather_from_all(padded).unflatten(0, (get_world_size(), max(sizes)))
    return [of_rank[:size] for of_rank, size in zip(rows, sizes, strict=True)]


def _prepare(trainer: SelfSupervisionTrainer) -> None:
    """Build data and model, wrapped for distributed use, in eval mode."""
    trainer.task.prepare_extraction(pin_memory=trainer.cfg.DATA.PIN_MEMORY)
    trainer._add_dummy_layer()
    trainer.task.init_distributed_data_parallel_model()
    trainer.task.model.eval()
    if is_primary():
        logging.info(f"Model is:\n {trainer.task.model}")


def _batches(task: SelfSupervisionTask, split: str) -> Any:
    """Iterate over one split; the iterator is kept on the task, where VISSL's clean-up looks for it."""
    task.data_iterator = iter(task.dataloaders[split.lower()])
    return task.data_iterator


def _images(task: SelfSupervisionTask, batch: dict) -> Tensor:
    """The images of a batch on the task's device: (B, C, H, W)."""
    return torch.cat(batch["data"]).to(task.device, non_blocking=True)


def _embed(
    task: SelfSupervisionTask, batch: dict, names: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Features by name, targets and indices of one batch."""
    with torch.no_grad():
        outputs = task.model(_images(task, batch))
    if isinstance(outputs[0], list):
        outputs = [output for of_head in outputs for output in of_head]
    if len(outputs) < len(names):
        raise ValueError(
            f"the model gives {len(outputs)} features, but "
            f"config.MODEL.FEATURE_EVAL_SETTINGS.LINEAR_EVAL_FEAT_POOL_OPS_MAP names {len(names)}: {names}"
        )
    # More outputs than names: VISSL keeps the first ones, as for a head that also returns its scores.
    features = {name: output.cpu().numpy() for name, output in zip(names, outputs, strict=False)}
    return features, torch.cat(batch["label"]).cpu().numpy(), torch.cat(batch["data_idx"]).cpu().numpy()
