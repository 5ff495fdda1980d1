from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.resnet import Bottleneck

from vissl_jointssl.models.recomputed_blocks import buffers_set_aside, chunks_of
from vissl_jointssl.models.slice_encoder import encode_slices

NAMES = {"conv1": "conv1", "bn1": "bn1", "conv1_relu": "relu", "maxpool": "maxpool"} | {
    name: name for name in ("layer1", "layer2", "layer3", "layer4")
}


@pytest.fixture(scope="module")
def resnet() -> nn.ModuleDict:
    """A ResNet of seven bottlenecks, its running statistics away from where they start."""
    torch.manual_seed(0)
    network = torchvision.models.ResNet(Bottleneck, [2, 3, 1, 1]).double()
    blocks = nn.ModuleDict({ours: getattr(network, theirs) for ours, theirs in NAMES.items()})
    with torch.no_grad():
        encode_slices(blocks, torch.rand(1, 3, 1, 40, 40, dtype=torch.float64))
    return blocks


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    return torch.rand(1, 4, 1, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def stepped(resnet: nn.ModuleDict, volumes: Tensor, recompute: int) -> tuple[nn.ModuleDict, Tensor]:
    blocks = copy.deepcopy(resnet)
    embeddings = encode_slices(blocks, volumes, recompute=recompute)
    weights = torch.linspace(-1, 1, embeddings.shape[-1], dtype=torch.float64)
    (embeddings * weights).sum().backward()
    return blocks, embeddings


@pytest.mark.parametrize("size", [1, 2, 100])
def test_gradients_and_running_statistics_are_the_plain_steps_whatever_the_chunk(
    resnet: nn.ModuleDict, volumes: Tensor, size: int
) -> None:
    (plain, expected), (again, found) = (stepped(resnet, volumes, recompute) for recompute in (0, size))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for name, parameter in again.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, atol=1e-12, rtol=1e-12)
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(name)), name
        assert not torch.equal(buffer, resnet.get_buffer(name)), name  # they did move


def test_the_gradient_by_the_image_is_the_plain_steps(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    gradients = []
    for recompute in (0, 1):
        images = volumes.clone().requires_grad_()
        encode_slices(copy.deepcopy(resnet), images, recompute=recompute)[..., ::7].sum().backward()
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)


def test_statistics_of_chunks_of_slices_would_give_other_gradients(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    plain, _ = stepped(resnet, volumes, 0)
    cut = copy.deepcopy(resnet)
    weights = torch.linspace(-1, 1, 3904, dtype=torch.float64)
    for part in volumes.chunk(2, dim=1):
        (encode_slices(cut, part) * weights).sum().backward()
    expected, found = plain.get_parameter("conv1.weight").grad, cut.get_parameter("conv1.weight").grad
    assert expected is not None
    assert found is not None
    assert (found - expected).norm() > 0.01 * expected.norm()


def _calls(blocks: nn.ModuleDict) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: counts.update([name]))
    return counts


def test_each_convolution_but_those_of_the_last_layer_runs_twice(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    blocks = copy.deepcopy(resnet)
    counts = _calls(blocks)
    encode_slices(blocks, volumes, recompute=1).sum().backward()
    assert counts
    assert {name: times for name, times in counts.items() if times != 1 + (not name.startswith("layer4"))} == {}


def test_nothing_runs_twice_without_gradient(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    blocks = copy.deepcopy(resnet)
    counts = _calls(blocks)
    with torch.no_grad():
        assert not encode_slices(blocks, volumes, recompute=1).requires_grad
    assert set(counts.values()) == {1}


@pytest.mark.parametrize(("recompute", "alive"), [(0, True), (1, False)])
def test_the_inside_of_a_block_is_not_kept(resnet: nn.ModuleDict, volumes: Tensor, recompute: int, alive: bool) -> None:
    blocks = copy.deepcopy(resnet)
    inside: dict[str, Callable[[], Tensor | None]] = {}
    for name in ("conv1", "layer1.0.conv2", "layer2.1.bn1", "layer3.0.downsample.0"):
        blocks.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: inside.update({name: weakref.ref(output.untyped_storage())})
        )
    embeddings = encode_slices(blocks, volumes, recompute=recompute)
    assert {name for name, storage in inside.items() if storage() is not None} == (set(inside) if alive else set())
    assert len(inside) == 4
    assert embeddings.requires_grad


def test_autocast_is_the_same_in_the_second_pass(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    gradients = []
    for recompute in (0, 1):
        blocks = copy.deepcopy(resnet).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = encode_slices(blocks, volumes.float(), recompute=recompute)
        embeddings[..., ::7].sum().backward()
        gradients.append([parameter.grad for parameter in blocks.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


class Embedding(nn.Module):
    def __init__(self, blocks: nn.ModuleDict, recompute: int) -> None:
        super().__init__()
        self.blocks, self.recompute = blocks, recompute

    def forward(self, volumes: Tensor) -> Tensor:
        return encode_slices(self.blocks, volumes, recompute=self.recompute)


def test_ddp_gets_each_gradient_once_and_in_full(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    gradients = []
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        for recompute in (0, 1):
            model = DistributedDataParallel(Embedding(copy.deepcopy(resnet), recompute))
            for _ in range(2):  # buckets are laid out anew after the first step
                model.zero_grad()
                model(volumes)[..., ::7].sum().backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
    finally:
        distributed.destroy_process_group()
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, atol=1e-12, rtol=1e-12)


def test_frozen_statistics_are_used_and_stay(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    frozen = copy.deepcopy(resnet).eval()
    (plain, _), (again, _) = (stepped(frozen, volumes, recompute) for recompute in (0, 1))
    for name, parameter in again.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, atol=1e-12, rtol=1e-12)
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, frozen.get_buffer(name)), name


def test_only_the_levels_that_are_asked_for_are_run(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    blocks = copy.deepcopy(resnet)
    counts = _calls(blocks)
    encode_slices(blocks, volumes, ["res3", "res1"], recompute=1)
    assert {name.split(".")[0] for name in counts} == {"conv1", "layer1", "layer2"}


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.BatchNorm2d(3, momentum=None)])
def test_buffers_come_back_as_the_same_tensors_also_after_an_error(norm: nn.Module) -> None:
    before = dict(norm.named_buffers())
    values = {name: buffer.clone() for name, buffer in before.items()}

    def fail() -> None:
        with buffers_set_aside([norm]):
            for buffer in norm.buffers():
                buffer.add_(1)
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        fail()
    assert all(buffer is before[name] and torch.equal(buffer, values[name]) for name, buffer in norm.named_buffers())
    assert set(values) == {"running_mean", "running_var", "num_batches_tracked"}


def test_chunks_end_where_a_layer_ends(resnet: nn.ModuleDict) -> None:
    found = [(name, len(chunk)) for name, chunk in chunks_of(resnet, 2)]
    assert found == [("maxpool", 4), ("layer1", 2), ("layer2", 2), ("layer2", 1), ("layer3", 1), ("layer4", 1)]
    assert [module for _, chunk in chunks_of(resnet, 1) for module in chunk][:5] == [
        resnet["conv1"],
        resnet["bn1"],
        resnet["conv1_relu"],
        resnet["maxpool"],
        resnet["layer1"][0],
    ]


def test_a_chunk_without_a_block_is_refused(resnet: nn.ModuleDict, volumes: Tensor) -> None:
    with pytest.raises(ValueError, match="recompute is -1; a chunk needs at least 1 block"):
        encode_slices(resnet, volumes, recompute=-1)
