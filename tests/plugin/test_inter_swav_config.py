"""What stage 3's SwAV loss learns from head and views, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from vissl_jointssl.plugin.inter_swav_config import complete_inter_swav
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable
from vissl.models.heads import get_model_head  # isort: skip

HEAD = {"dims": [640], "use_bn": False, "num_clusters": [7]}
LOSS = {"temperature": 0.1, "epsilon": 0.05, "num_iters": 3, "assign_views": [0, 1], "queue_length": 6}


def _config(views: int = 2, head: dict[str, Any] | None = None, **loss: Any) -> AttrDict:
    return AttrDict(
        {
            "DATA": {
                "TRAIN": {
                    "COLLATE_FUNCTION": "multicrop_collator",
                    "TRANSFORMS": [{"name": "volume_views", "total_num_crops": views}],
                }
            },
            "MODEL": {
                "HEAD": {
                    "PARAMS": [["swav_head", {**HEAD, **(head or {})}]],
                    "BATCHNORM_EPS": 1e-5,
                    "BATCHNORM_MOMENTUM": 0.1,
                }
            },
            "LOSS": {"inter_swav_loss": {**LOSS, **loss}},
        }
    )


@pytest.mark.parametrize("dims", [[640], [640, 128], [640, 640, 128]])
@pytest.mark.parametrize("use_bn", [False, True])
@pytest.mark.parametrize("clusters", [[7], [7, 5]])
def test_a_projection_head_of_any_depth_fits_the_loss_and_its_queue(
    dims: list[int], use_bn: bool, clusters: list[int]
) -> None:
    config = _config(head={"dims": dims, "use_bn": use_bn, "num_clusters": clusters})
    assert complete_inter_swav(config, 640) == []
    head = get_model_head("swav_head")(config.MODEL, **config.MODEL.HEAD.PARAMS[0][1])
    loss = InterSwAVLoss.from_config(config.LOSS.inter_swav_loss)
    assert loss.queue is not None
    assert loss.queue.stored.shape == (2, 6, dims[-1])
    loss.prototypes = [getattr(head, f"prototypes{index}").weight.detach() for index in range(len(clusters))]
    for _ in range(3):  # the third time with a queue of two batches
        loss(head(torch.randn(2 * 3, 640)), None).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    norms = [module for module in head.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert len(norms) == (len(dims) - 2 if use_bn and len(dims) > 2 else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": {"dims": [128]}}, "swav_head's dims begin with 128, but volumes have width 640"),
        ({"head": {"num_clusters": []}}, "num_clusters is empty; the paper's is [3000]"),
        ({"head": {"return_embeddings": False}}, "return_embeddings is False; inter_swav_loss needs unit embeddings"),
        ({"head": {"normalize_feats": False}}, "normalize_feats is False; inter_swav_loss needs unit embeddings"),
        ({"assign_views": [0, 2]}, "assign_views names [2], but there are 2 views"),
        ({"queue_length": -1}, "queue_length is -1; it must be 0 or more"),
        ({"queue_start_iter": -1}, "queue_start_iter is -1; it must be 0 or more"),
        ({"num_iters": 0}, "num_iters is 0; it must be 1 or more"),
        ({"epsilon": 0.0}, "epsilon is 0.0; it must be positive (SwAV's is 0.05)"),
        ({"temperature": -0.1}, "temperature is -0.1; it must be positive (SwAV's is 0.1)"),
    ],
)
def test_what_the_loss_cannot_take_is_said(change: dict[str, Any], message: str) -> None:
    (fault,) = complete_inter_swav(_config(**change), 640)
    assert re.search(re.escape(message), fault)


def test_a_head_without_its_arguments_another_head_and_another_collator_are_refused() -> None:
    config = _config()
    del config.MODEL.HEAD.PARAMS[0][1]["use_bn"]
    assert complete_inter_swav(config, 640) == [
        "swav_head needs ['use_bn']; without a projection head: dims: [640], use_bn: False"
    ]
    config = _config()
    config.MODEL.HEAD.PARAMS[0][0] = "mlp"
    assert "inter_swav_loss takes one swav_head" in complete_inter_swav(config, 640)[0]
    config = _config()
    config.DATA.TRAIN["COLLATE_FUNCTION"] = "default_collate"
    assert "COLLATE_FUNCTION is 'default_collate'; inter_swav_loss takes one of" in complete_inter_swav(config, 640)[0]
    config = _config()
    config.DATA.TRAIN["TRANSFORMS"] = []
    assert "has 0 volume_views; stage 3 takes exactly one" in complete_inter_swav(config, 640)[0]
