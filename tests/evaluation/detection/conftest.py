from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from vissl_jointssl.evaluation.detection import images
from vissl_jointssl.evaluation.detection.network import Detector
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Box, Entry, Manifest, write_boxes, write_manifest


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., Manifest]:
    """Dark, noisy images with one or two bright squares; every fourth has none. Class 1 is brighter than class 0."""

    def make(
        train: int = 8, test: int = 4, val: int = 0, size: int = 64, classes: int = 1, maps: bool = False
    ) -> Manifest:
        rng = np.random.default_rng(0)
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        entries = []
        for number in range(train + val + test):
            image = rng.integers(0, 40, (size, size)).astype(np.uint8)
            labels = np.zeros((size, size), dtype=np.uint8)
            boxes = []
            for place in range(0 if number % 4 == 3 else 1 + number % 2):
                side, label = int(rng.integers(size // 5, size // 3)), int(rng.integers(classes))
                left = int(rng.integers(0, size // 2 - side)) + place * size // 2
                top = int(rng.integers(0, size - side))
                image[top : top + side, left : left + side] = 255 - 120 * (classes - 1 - label)
                labels[top : top + side, left : left + side] = 10 * (place + 1)
                boxes.append(Box(label, left, top, left + side, top + side))
            np.save(folder / f"{number}.npy", image)
            np.save(folder / f"{number}_labels.npy", labels)
            write_boxes(boxes, folder / f"{number}.json")
            split = "train" if number < train else "val" if number < train + val else "test"
            entries.append(
                Entry(
                    id=f"case/{number:02d}",
                    kind="image",
                    path=f"{number}.npy",
                    label_path=f"{number}_labels.npy" if maps else None,
                    label=None,
                    split=split,
                    patient=f"patient{number}",
                    modality="XR",
                    spacing=None,
                    shape=(size, size),
                    dtype="uint8",
                    sha256=hashlib.sha256((folder / f"{number}.npy").read_bytes()).hexdigest(),
                    boxes_path=None if maps else f"{number}.json",
                )
            )
        return write_manifest(folder / "manifest.csv", entries)

    return make


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    def make(manifest: Manifest, start: Initialisation | None = None, **changes: object) -> Job:
        rows = {split: manifest.select("image", (split,)) for split in ("train", "val", "test")}
        values: dict[str, object] = {
            "manifest": manifest,
            "train": rows["train"],
            "validation": rows["val"],
            "test": rows["test"],
            "initialisation": start or Initialisation("scratch"),
            "seed": 0,
            "device": torch.device("cpu"),
            "folder": tmp_path / "run",
            "progress": silent,
        }
        return Job(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def pretrained() -> Initialisation:
    """A ResNet-50 whose weights and statistics are unlike those of a new one."""
    torch.manual_seed(5)
    network = torchvision.models.resnet50(weights=None).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 64, 64) * 3 - 1)
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}
    return Initialisation("pretrained", Path("weights.pth"), "0" * 64, weights)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the network in place of the whole one, so that epochs take a second."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
    from torchvision.models.resnet import BasicBlock, ResNet

    def build(
        start: Initialisation,
        classes: int,
        sides: tuple[int, int],
        anchor_sizes: tuple[int, ...],
        trainable_layers: int,
        batchnorm: str,
        detections: int,
        box_samples: int,
    ) -> Detector:
        layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
        network = FasterRCNN(
            BackboneWithFPN(ResNet(BasicBlock, [1, 1, 1, 1]), layers, [64, 128, 256, 512], 64),
            min_size=sides[0],
            max_size=sides[1],
            image_mean=[0.449] * 3,
            image_std=[0.226] * 3,
            rpn_anchor_generator=AnchorGenerator(
                tuple((size,) for size in anchor_sizes), ((0.5, 1.0, 2.0),) * len(anchor_sizes)
            ),
            box_head=TwoMLPHead(64 * 7 * 7, 64),
            box_predictor=FastRCNNPredictor(64, classes + 1),
            rpn_post_nms_top_n_train=100,
            rpn_post_nms_top_n_test=50,
            rpn_batch_size_per_image=64,
            box_batch_size_per_image=32,
            box_detections_per_img=detections,
        )
        return Detector(network, "training", 5)

    monkeypatch.setattr(images, "build_detector", build)
