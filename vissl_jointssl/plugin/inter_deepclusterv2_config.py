"""What VISSL infers for `deepclusterv2_loss` alone, for `inter_deepclusterv2_loss`; K against the data, for both."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vissl.config import AttrDict

from vissl_jointssl.plugin.data_config import training_samples


def complete_inter_deepclusterv2(cfg: AttrDict, width: int) -> list[str]:
    """Fill in `LOSS.inter_deepclusterv2_loss`, in place.

    Args:
        cfg: The run's config.
        width: D, width of the trunk's volume embeddings.

    Returns:
        What is wrong with the head, the views, the loss or its number of clusters, in words.
    """
    heads = cfg.MODEL.HEAD.PARAMS
    if not heads or any(name != "mlp" for name, _ in heads):
        return [
            f"MODEL.HEAD.PARAMS is {heads}; inter_deepclusterv2_loss takes mlp heads one after the other, or "
            f"[[mlp, {{dims: [{width}]}}]] for no projection"
        ]
    faults = []
    given = width
    for _, arguments in heads:
        if arguments["dims"][0] != given:
            faults.append(
                f"an mlp of MODEL.HEAD.PARAMS takes width {arguments['dims'][0]}, but is given {given}; make "
                "config.MODEL.HEAD.PARAMS and config.MODEL.TRUNK agree"
            )
        given = arguments["dims"][-1]
    views = [item["total_num_crops"] for item in cfg.DATA.TRAIN.TRANSFORMS if item["name"] == "volume_views"]
    if len(views) != 1:
        return [*faults, f"DATA.TRAIN.TRANSFORMS has {len(views)} volume_views; stage 3 takes exactly one"]
    if cfg.TEST_MODEL:
        faults.append(
            "TEST_MODEL is True, but test volumes have no place in the memory of inter_deepclusterv2_loss; "
            "set config.TEST_MODEL=False"
        )
    loss = cfg.LOSS.inter_deepclusterv2_loss
    loss["num_views"] = views[0]
    loss["embedding_width"] = given
    loss["num_train_samples"] = -1  # filled in by VISSL where it stands (vissl/trainer/train_task.py:391)
    loss["seed"] = cfg.SEED_VALUE
    outside = [view for view in loss.memory_views if not 0 <= view < views[0]]
    if outside or not loss.memory_views:
        faults.append(
            f"LOSS.inter_deepclusterv2_loss.memory_views is {list(loss.memory_views)}; there are views 0 to "
            f"{views[0] - 1}, and at least one must be remembered"
        )
    # The memory holds every sample of the data, whatever an epoch drops and on however many ranks.
    samples = training_samples(cfg)
    return faults + _cluster_faults("inter_deepclusterv2_loss", loss.num_clusters, samples, f"{samples} volumes")


def complete_deepclusterv2(cfg: AttrDict, width: int) -> list[str]:
    """Check the clusters of stage 1's stock loss, which would fail after its first pass over the data.

    VISSL draws all first centroids from rank 0's memory (vissl/losses/deepclusterv2_loss.py:161).
    """
    section = cfg.DATA.TRAIN
    samples = training_samples(cfg)
    if samples is None:
        return []
    ranks = cfg.DISTRIBUTED.NUM_PROC_PER_NODE * cfg.DISTRIBUTED.NUM_NODES
    usable = math.ceil(samples / ranks)
    if section.DROP_LAST:
        usable -= usable % section.BATCHSIZE_PER_REPLICA
    of_what = f"the {usable} slices and images that one of {ranks} ranks remembers, of {samples}"
    return _cluster_faults("deepclusterv2_loss", cfg.LOSS.deepclusterv2_loss.num_clusters, usable, of_what)


def _cluster_faults(loss: str, clusters: Sequence[int], usable: int | None, of_what: str) -> list[str]:
    key = f"LOSS.{loss}.num_clusters"
    if not clusters:
        return [f"{key} is empty; give one number of clusters for each head"]
    if min(clusters) < 1:
        return [f"{key} is {list(clusters)}; every head needs at least 1 cluster"]
    if usable is None or max(clusters) <= usable:
        return []
    works = [min(k, usable) for k in clusters]
    return [
        f"{key} asks for {max(clusters)} clusters of {of_what}; at most {usable} work, for example config.{key}={works}"
    ]
