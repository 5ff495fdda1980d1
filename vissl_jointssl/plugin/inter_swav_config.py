"""What VISSL infers for `swav_loss` alone (vissl/utils/hydra_config.py:406), for `inter_swav_loss`."""

from __future__ import annotations

from vissl.config import AttrDict

# Both put the views of a batch one after the other, as the loss takes them apart.
VIEW_MAJOR_COLLATORS = ("multicrop_collator", "simclr_collator")
LEAST = {"num_iters": 1, "queue_length": 0, "queue_start_iter": 0}


def complete_inter_swav(cfg: AttrDict, width: int) -> list[str]:
    """Fill in `LOSS.inter_swav_loss`, in place.

    Args:
        cfg: The run's config.
        width: D, width of the trunk's volume embeddings.

    Returns:
        What is wrong with the head, the views or the loss, in words.
    """
    name, arguments = cfg.MODEL.HEAD.PARAMS[0]
    if name != "swav_head" or len(cfg.MODEL.HEAD.PARAMS) != 1:
        return [f"MODEL.HEAD.PARAMS is {cfg.MODEL.HEAD.PARAMS}; inter_swav_loss takes one swav_head"]
    faults = _head_faults(arguments, width)
    if cfg.DATA.TRAIN.COLLATE_FUNCTION not in VIEW_MAJOR_COLLATORS:
        faults.append(
            f"DATA.TRAIN.COLLATE_FUNCTION is {cfg.DATA.TRAIN.COLLATE_FUNCTION!r}; "
            f"inter_swav_loss takes one of {VIEW_MAJOR_COLLATORS}"
        )
    views = [item["total_num_crops"] for item in cfg.DATA.TRAIN.TRANSFORMS if item["name"] == "volume_views"]
    if len(views) != 1:
        return [*faults, f"DATA.TRAIN.TRANSFORMS has {len(views)} volume_views; stage 3 takes exactly one"]
    if faults:
        return faults
    loss = cfg.LOSS.inter_swav_loss
    loss["num_views"] = views[0]
    loss["embedding_width"] = arguments["dims"][-1]  # the queue's: behind the projection head
    return _loss_faults(loss, views[0])


def _head_faults(arguments: AttrDict, width: int) -> list[str]:
    missing = [key for key in ("dims", "use_bn", "num_clusters") if key not in arguments]
    if missing:
        return [f"swav_head needs {missing}; without a projection head: dims: [{width}], use_bn: False"]
    faults = []
    if arguments["dims"][0] != width:
        faults.append(
            f"swav_head's dims begin with {arguments['dims'][0]}, but volumes have width {width}; "
            "make config.MODEL.HEAD.PARAMS and config.MODEL.TRUNK agree"
        )
    if not arguments["num_clusters"]:
        faults.append("swav_head's num_clusters is empty; the paper's is [3000]")
    for key in ("return_embeddings", "normalize_feats"):
        if not arguments.get(key, True):
            faults.append(f"swav_head's {key} is False; inter_swav_loss needs unit embeddings beside their scores")
    return faults


def _loss_faults(loss: AttrDict, views: int) -> list[str]:
    faults = [
        f"LOSS.inter_swav_loss.{key} is {loss[key]}; it must be {least} or more"
        for key, least in LEAST.items()
        if loss.get(key, least) < least
    ]
    faults += [
        f"LOSS.inter_swav_loss.{key} is {loss[key]}; it must be positive (SwAV's is {usual})"
        for key, usual in (("temperature", 0.1), ("epsilon", 0.05))
        if loss[key] <= 0
    ]
    outside = [view for view in loss.assign_views if not 0 <= view < views]
    if outside:
        faults.append(f"LOSS.inter_swav_loss.assign_views names {outside}, but there are {views} views")
    return faults
