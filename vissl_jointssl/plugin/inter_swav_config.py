"""What VISSL infers for `swav_loss` alone (vissl/utils/hydra_config.py:345), for `inter_swav_loss`."""

from __future__ import annotations

from vissl.config import AttrDict


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
    if arguments["dims"][0] != width:
        return [
            f"swav_head's dims begin with {arguments['dims'][0]}, but volumes have width {width}; "
            "make config.MODEL.HEAD.PARAMS and config.MODEL.TRUNK agree"
        ]
    views = [item["total_num_crops"] for item in cfg.DATA.TRAIN.TRANSFORMS if item["name"] == "volume_views"]
    if len(views) != 1:
        return [f"DATA.TRAIN.TRANSFORMS has {len(views)} volume_views; stage 3 takes exactly one"]
    loss = cfg.LOSS.inter_swav_loss
    loss["num_views"] = views[0]
    loss["embedding_width"] = arguments["dims"][-1]
    outside = [view for view in loss.assign_views if not 0 <= view < views[0]]
    return [f"LOSS.inter_swav_loss.assign_views names {outside}, but there are {views[0]} views"] if outside else []
