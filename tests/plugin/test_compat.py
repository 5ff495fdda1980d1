"""One group of tests per break of VISSL 0.1.6 on a current stack."""

from __future__ import annotations

import importlib.util
import io
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import vissl_jointssl.plugin
from vissl_jointssl.plugin import compat

# isort: split
# VISSL cannot be imported before the plugin has repaired what it imports.
import classy_vision.generic.util
from classy_vision.optim import SGD
from classy_vision.tasks.classification_task import AmpType
from vissl.config import AttrDict
from vissl.hooks.deepclusterv2_hooks import InitMemoryHook
from vissl.hooks.grad_clip_hooks import GradClipHook
from vissl.hooks.log_hooks import LogLossMetricsCheckpointHook
from vissl.hooks.state_update_hooks import CheckNanModelOutputHook
from vissl.hooks.swav_momentum_hooks import SwAVMomentumHook
from vissl.losses.deepclusterv2_loss import DeepClusterV2Loss
from vissl.trainer.train_task import SelfSupervisionTask
from vissl.utils import distributed_launcher
from vissl.utils.cluster_utils import ClusterAssignment, ClusterAssignmentLoader

from vissl_jointssl.checkpoints import CheckpointError
from vissl_jointssl.plugin.compat import (
    checkpoints,
    data_files,
    fused_optimizers,
    launching,
    ranks,
    swav_momentum,
    without_apex,
)
from vissl_jointssl.run_signs import STOP_PIPE

# --- installing


def test_a_second_install_leaves_every_replacement_as_it_is():
    before = (SGD.prepare, SelfSupervisionTask._build_model, without_apex._vissl_build_model)
    compat.install.__wrapped__()
    assert before == (SGD.prepare, SelfSupervisionTask._build_model, without_apex._vissl_build_model)
    assert distributed_launcher.launch_distributed is launching.launch_distributed
    assert without_apex._vissl_build_model.__module__ == "vissl.trainer.train_task"


def test_without_vissl_one_sentence_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"pip install --no-deps -r requirements.lock.txt") as error:
        compat.check_vissl()
    assert "\n" not in str(error.value)


def test_another_version_of_vissl_is_refused(monkeypatch):
    monkeypatch.setattr(compat.metadata, "version", lambda name: "0.1.5")
    with pytest.raises(ImportError, match=r"VISSL 0\.1\.5 is installed.*vissl==0\.1\.6"):
        compat.check_vissl()


def test_a_replacement_reaches_the_modules_that_imported_the_original():
    assert classy_vision.generic.util.broadcast_object is checkpoints.broadcast_object
    assert sys.modules["vissl.trainer.train_task"].convert_sync_bn is without_apex.convert_to_pytorch_sync_bn
    assert sys.modules["vissl.data"].get_data_files is data_files.get_data_files


# --- old names


def test_kinetics_goes_by_its_old_name_too():
    from torchvision.datasets import kinetics

    assert kinetics.Kinetics400 is kinetics.Kinetics


def test_average_precision_of_the_svm_benchmark_is_vocs():
    from vissl.utils.svm_utils.evaluate import get_precision_recall

    from vissl_jointssl.plugin.compat.average_precision import precision_recall

    generator = np.random.default_rng(0)
    targets, scores = generator.integers(0, 2, 40), generator.normal(size=40)
    *_, average_precision = get_precision_recall(targets, scores)
    ranked = targets[np.argsort(-scores)]
    precisions = [ranked[: count + 1].mean() for count in range(len(ranked))]
    # VOC's: at every hit, the best precision from there on.
    expected = np.mean([max(precisions[rank:]) for rank in np.flatnonzero(ranked)])
    assert float(average_precision[0]) == pytest.approx(expected)
    assert precision_recall(targets, scores)[-1] == float(average_precision[0])  # which NumPy puts into a matrix


def test_instance_retrieval_counts_a_perfect_ranking_as_one():
    from vissl.utils.instance_retrieval_utils.evaluate import compute_map

    ranks = np.array([[0, 1], [1, 0], [2, 2]])
    truth = [{"ok": np.array([0]), "junk": np.array([2])}, {"ok": np.array([1]), "junk": np.array([])}]
    assert compute_map(ranks, truth, [1])[0] == 1.0


def test_mean_ap_meter_counts_with_old_names_and_numpy_itself_has_none_of_them():
    from vissl.meters.mean_ap_meter import MeanAPMeter

    meter = MeanAPMeter(AttrDict({"num_classes": 2, "max_cpu_capacity": -1}))
    meter.update(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), torch.tensor([[1, 0], [0, 1], [1, 0]]))
    meter.sync_state()
    assert meter.value["mAP"] == 1.0
    assert not hasattr(np, "float")
    assert not hasattr(np, "int")


# --- without apex


def _larc_by_hand(weights, gradients, lr, momentum, weight_decay, trust, clip, eps=1e-8):
    """LARC as published (arXiv 1708.03888), one parameter and one number at a time."""
    velocities = [torch.zeros_like(weight) for weight in weights]
    for step, of_step in enumerate(gradients):
        for index, gradient in enumerate(of_step):
            weight = weights[index]
            weight_norm, gradient_norm = weight.pow(2).sum().sqrt(), gradient.pow(2).sum().sqrt()
            local_lr = trust * weight_norm / (gradient_norm + weight_decay * weight_norm + eps)
            factor = min(float(local_lr) / lr, 1.0) if clip else float(local_lr)
            update = factor * (gradient + weight_decay * weight)
            velocities[index] = update if step == 0 else momentum * velocities[index] + update
            weights[index] = weight - lr * velocities[index]
    return weights


@pytest.mark.parametrize("clip", [False, True])
def test_sgd_with_larc_follows_the_published_rule_and_says_so_once(clip, caplog):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    parameters.append(nn.Parameter(torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last)))
    gradients = [[torch.randn_like(parameter) for parameter in parameters] for _ in range(4)]
    expected = _larc_by_hand([p.detach().clone() for p in parameters], gradients, 0.1, 0.9, 1e-2, 0.02, clip)
    optimizer = SGD.from_config(
        {
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-2,
            "use_larc": True,
            "larc_config": {"clip": clip, "eps": 1e-8, "trust_coefficient": 0.02},
        }
    )
    with caplog.at_level(logging.INFO):
        optimizer.prepare([{"params": parameters}])
    assert caplog.messages.count(fused_optimizers.LARC_NOTICE) == 1
    for of_step in gradients:
        for parameter, gradient in zip(parameters, of_step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.optimizer.step()
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_sgd_without_larc_is_plain_sgd():
    optimizer = SGD.from_config({"momentum": 0.9})
    optimizer.prepare([{"params": [nn.Parameter(torch.zeros(1))]}])
    assert type(optimizer.optimizer) is torch.optim.SGD


def test_a_task_builds_its_larc_optimizer_without_asking_for_apex():
    config = AttrDict({"OPTIMIZER": {"name": "sgd", "use_larc": True, "momentum": 0.9}})
    assert isinstance(SelfSupervisionTask._build_optimizer(SimpleNamespace(config=config)), SGD)


def _amp_task(device, use_amp=True, amp_type="apex"):
    params = {"USE_AMP": use_amp, "AMP_TYPE": amp_type, "AMP_ARGS": {}}
    task = SimpleNamespace(config=AttrDict({"MODEL": {"AMP_PARAMS": params}}), device=torch.device(device), scalers=0)
    task._init_pytorch_grad_scaler = lambda: setattr(task, "scalers", task.scalers + 1)
    return task


@pytest.mark.parametrize(
    ("device", "use_amp", "amp_type", "kind", "notices"),
    [
        ("cuda", True, "apex", AmpType.PYTORCH, [without_apex.AMP_NOTICE]),
        ("cuda", True, "pytorch", AmpType.PYTORCH, []),
        ("cuda", False, "apex", None, []),
        ("cuda", True, "bfloat16", None, [without_apex.BFLOAT16_NOTICE]),
        ("cpu", True, "bfloat16", None, [without_apex.BFLOAT16_NOTICE]),
        ("cpu", False, "bfloat16", None, []),
        ("cpu", True, "apex", None, [without_apex.AMP_OFF_NOTICE]),
        ("cpu", False, "apex", None, []),
    ],
)
def test_mixed_precision_is_pytorchs_on_gpus_and_off_on_cpu(device, use_amp, amp_type, kind, notices, caplog):
    task = _amp_task(device, use_amp, amp_type)
    with caplog.at_level(logging.INFO):
        SelfSupervisionTask.set_amp_args(task)
    assert task.amp_type is kind
    assert task.scalers == (kind is not None)
    assert caplog.messages == notices


def test_an_unknown_kind_of_mixed_precision_is_named():
    with pytest.raises(ValueError, match="AMP_TYPE=tf32 is not one of apex, bfloat16, pytorch"):
        SelfSupervisionTask.set_amp_args(_amp_task("cuda", amp_type="tf32"))


def test_notices_come_from_rank_0_only(caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(logging.INFO):
        SelfSupervisionTask.set_amp_args(_amp_task("cpu"))
    assert caplog.messages == []


def test_apex_sync_bn_becomes_pytorchs(caplog):
    sync_bn = {"CONVERT_BN_TO_SYNC_BN": True, "SYNC_BN_TYPE": "apex", "GROUP_SIZE": 0}
    config = AttrDict({"MODEL": {"SYNC_BN_CONFIG": sync_bn}, "DISTRIBUTED": {"NUM_PROC_PER_NODE": 1, "NUM_NODES": 1}})
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].running_mean.fill_(3.0)
    convert = sys.modules["vissl.trainer.train_task"].convert_sync_bn
    with caplog.at_level(logging.INFO):
        converted = convert(config, model)
    assert isinstance(converted[1], nn.SyncBatchNorm)
    assert converted[1].running_mean.tolist() == [3.0] * 4
    assert caplog.messages.count(without_apex.SYNC_BN_NOTICE) == 1


@pytest.mark.parametrize(("convert", "count"), [(True, 1), (False, 0)])
def test_a_cpu_run_says_that_it_leaves_sync_bn_out(convert, count, caplog, monkeypatch):
    monkeypatch.setattr(without_apex, "_vissl_build_model", lambda self: "model")
    config = AttrDict({"MODEL": {"SYNC_BN_CONFIG": {"CONVERT_BN_TO_SYNC_BN": convert}}})
    with caplog.at_level(logging.INFO):
        built = SelfSupervisionTask._build_model(SimpleNamespace(config=config, device=torch.device("cpu")))
    assert built == "model"
    assert caplog.messages.count(without_apex.SYNC_BN_OFF_NOTICE) == count


# --- DeepCluster-v2


def _dcv2_config(images=12, clusters=(3, 2), crops=(0, 1), width=4):
    return AttrDict(
        {
            "num_train_samples": images,
            "DROP_LAST": False,
            "BATCHSIZE_PER_REPLICA": 4,
            "num_crops": 2,
            "temperature": 0.1,
            "num_clusters": list(clusters),
            "kmeans_iters": 5,
            "memory_params": {"crops_for_mb": list(crops), "embedding_dim": width},
        }
    )


def _dcv2_batches(images=12, size=4, width=4):
    """Two-crop batches whose 'images' are random vectors; the model is the identity."""
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(images, generator=generator)
    return [
        {
            "data": [[torch.randn(size, width, generator=generator) for _ in range(2)]],
            "data_idx": [order[start : start + size].repeat(2)],
        }
        for start in range(0, images, size)
    ]


@pytest.fixture
def vissl_deepcluster(tmp_path):
    """VISSL's own loss class, a fresh copy of its file without the registration."""
    source = Path(sys.modules["vissl.losses.deepclusterv2_loss"].__file__).read_text()
    copy = tmp_path / "vissl_deepcluster.py"
    copy.write_text(source.replace('@register_loss("deepclusterv2_loss")', ""))
    spec = importlib.util.spec_from_file_location("vissl_deepcluster", copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DeepClusterV2Loss


def test_deepcluster_memory_and_clusters_equal_vissls_own(vissl_deepcluster, one_gloo_rank, monkeypatch):
    losses = {}
    for name, kind in (("ours", DeepClusterV2Loss), ("vissl", vissl_deepcluster)):
        if name == "vissl":  # its .cuda() calls are the break; on CPU they may do nothing
            monkeypatch.setattr(torch.Tensor, "cuda", lambda self, **_: self)
        torch.manual_seed(7)
        loss = kind(_dcv2_config())
        loss.init_memory(_dcv2_batches(), lambda images: [images])
        loss.cluster_memory()
        losses[name] = loss.state_dict()
    assert losses["ours"].keys() == losses["vissl"].keys()
    for key, value in losses["vissl"].items():
        torch.testing.assert_close(losses["ours"][key], value, msg=lambda text, key=key: f"{key}: {text}")


def test_deepcluster_memory_keeps_unit_embeddings_in_loading_order():
    loss = DeepClusterV2Loss(_dcv2_config())
    batches = _dcv2_batches()
    loss.init_memory(batches, lambda images: [images])
    assert loss.local_memory_index.tolist() == [int(i) for batch in batches for i in batch["data_idx"][0][:4]]
    third = batches[1]["data"][0][1][2]
    torch.testing.assert_close(loss.local_memory_embeddings[1, 6], third / third.norm())


def test_more_clusters_than_images_are_refused_with_the_numbers():
    loss = DeepClusterV2Loss(_dcv2_config(images=4, clusters=(5,)))
    with pytest.raises(ValueError, match="draws its 5 first centroids from the 4 images of one rank"):
        loss.cluster_memory()


def test_a_cluster_that_lost_its_members_stays_where_it_was():
    loss = DeepClusterV2Loss(_dcv2_config(images=4, clusters=(4,), crops=(0,)))
    bank = torch.eye(4)[[0, 0, 1, 2]]  # two first centroids are the same, so one of them gets nothing
    loss.local_memory_embeddings[0], loss.local_memory_index[:] = bank, torch.arange(4)
    loss.cluster_memory()
    torch.testing.assert_close(loss.centroids0.sort(dim=0).values, bank.sort(dim=0).values)
    assert loss.assignments[0, 0] == loss.assignments[0, 1]


def test_a_cluster_without_members_is_not_sent_elsewhere_in_vissls_loss(monkeypatch):
    loss = DeepClusterV2Loss(_dcv2_config(images=5, clusters=(4,), crops=(0,)))
    monkeypatch.setattr(torch, "randperm", torch.arange)
    bank = torch.eye(4)[[0, 0, 1, 2, 1]]
    bank[4] = torch.tensor([0, 0.8, 0, 0.6])  # fits its cluster worse than all others
    loss.local_memory_embeddings[0], loss.local_memory_index[:] = bank, torch.arange(5)
    loss.cluster_memory()
    assert (loss.centroids0 == bank[0]).all(dim=1).sum() == 2


def _kmeans_by_hand(points, centroids, iterations):
    """Spherical k-means, one point and one cluster at a time."""
    points, centroids = points.double().numpy(), centroids.double().numpy().copy()
    for _ in range(iterations):
        nearest = [max(range(len(centroids)), key=lambda k, p=p: float(np.dot(p, centroids[k]))) for p in points]
        for k in range(len(centroids)):
            members = [point for point, cluster in zip(points, nearest, strict=True) if cluster == k]
            if members:
                centroids[k] = sum(members) / len(members)
            centroids[k] /= np.sqrt((centroids[k] ** 2).sum())
    nearest = [max(range(len(centroids)), key=lambda k, p=p: float(np.dot(p, centroids[k]))) for p in points]
    return centroids, nearest


def _shard_of(rank, images=12):
    generator = torch.Generator().manual_seed(5)
    points = nn.functional.normalize(torch.randn(images, 4, generator=generator), dim=1)
    return points[rank::2], torch.arange(images)[rank::2]


def _cluster_on_rank(rank):
    torch.manual_seed(rank)
    loss = DeepClusterV2Loss(_dcv2_config(clusters=(3,), crops=(0,)))
    loss.local_memory_embeddings[0], loss.local_memory_index[:] = _shard_of(rank)
    torch.manual_seed(rank)
    loss.cluster_memory()
    return loss.centroids0.numpy(), loss.assignments[0].numpy()


def test_two_ranks_cluster_the_union_of_their_memories(on_two_ranks):
    (centroids, assignments), (centroids_1, assignments_1) = on_two_ranks(_cluster_on_rank)
    np.testing.assert_array_equal(centroids, centroids_1)
    np.testing.assert_array_equal(assignments, assignments_1)
    torch.manual_seed(0)
    first = _shard_of(0)[0][torch.randperm(6)[:3]]
    points = torch.cat([_shard_of(0)[0], _shard_of(1)[0]])
    indices = torch.cat([_shard_of(0)[1], _shard_of(1)[1]])
    expected_centroids, expected = _kmeans_by_hand(points, first, 5)
    np.testing.assert_allclose(centroids, expected_centroids, atol=1e-5)
    assert assignments[indices.numpy()].tolist() == expected


class _ListOfOne(nn.BatchNorm1d):
    """A model in VISSL's form: its output is a list, and its statistics move with every pass."""

    def forward(self, images):
        return [super().forward(images + 1)]


def _resume_task(rank, resumed=True):
    model = _ListOfOne(4)
    loss = DeepClusterV2Loss(_dcv2_config(crops=(0,)))
    loss.local_memory_index.fill_(99)
    positions = []
    images = _dcv2_batches(images=4 if rank else 6, size=2)
    return positions, SimpleNamespace(
        config=AttrDict({"LOSS": {"name": "deepclusterv2_loss"}}),
        train_phase_idx=0 if resumed else -1,
        phase_idx=0,
        loss=loss,
        model=model,
        dataloaders={"train": images},
        set_epoch=lambda *args, **kwargs: positions.append(kwargs["start_iter"]),
    )


def _resume_on_rank(rank):
    positions, task = _resume_task(rank)
    InitMemoryHook().on_start(task)
    return positions, task.loss.local_memory_index.tolist(), task.model.running_mean.abs().sum().item()


def test_a_resume_on_two_ranks_fills_each_ranks_memory_and_leaves_batch_norm_alone(on_two_ranks):
    results = on_two_ranks(_resume_on_rank)
    for rank, (positions, index, statistics) in enumerate(results):
        own = [int(i) for batch in _dcv2_batches(images=4 if rank else 6, size=2) for i in batch["data_idx"][0][:2]]
        assert positions == [0]
        assert index[: len(own)] == own
        assert statistics == 0.0


def test_a_resume_on_one_rank_keeps_the_checkpoints_memory():
    _, task = _resume_task(0)
    InitMemoryHook().on_start(task)
    assert set(task.loss.local_memory_index.tolist()) == {99}


def test_a_fresh_start_fills_the_memory():
    _, task = _resume_task(0, resumed=False)
    task.model = lambda images: [images]
    InitMemoryHook().on_start(task)
    assert set(task.loss.local_memory_index[:3].tolist()) != {99}


# --- SwAV with a momentum encoder


def test_the_momentum_encoder_is_a_copy_of_the_model_without_sync_bn_on_cpu(one_gloo_rank, monkeypatch):
    def small_model(*_):
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    monkeypatch.setattr(swav_momentum, "build_model", small_model)
    base = small_model()
    base[1].running_var.fill_(2.0)
    task = SimpleNamespace(
        config={"MODEL": None, "OPTIMIZER": None},
        use_gpu=False,
        device=torch.device("cpu"),
        base_model=base,
        loss=SimpleNamespace(checkpoint=None, momentum_encoder=None),
    )
    SwAVMomentumHook(0.9, 0, [0])._build_momentum_network(task)
    encoder = task.loss.momentum_encoder.module
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in encoder.modules())
    assert encoder[1].running_var.tolist() == [2.0] * 4
    for ours, theirs in zip(encoder.parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


# --- checkpoints


def _checkpoint_of(rank, megabytes=200):
    if rank:
        return None
    return {"weights": torch.arange(megabytes * 250_000, dtype=torch.int32), "epoch": 3, "names": ["a", None]}


def _broadcast_on_rank(rank):
    start = time.monotonic()
    received = checkpoints.broadcast_object(_checkpoint_of(rank))
    seconds = time.monotonic() - start
    weights = received["weights"]
    return seconds, len(weights), weights[[0, -1]].tolist(), received["epoch"], received["names"]


def test_a_checkpoint_of_200_mb_reaches_the_second_rank_within_seconds(on_two_ranks):
    for seconds, *content in on_two_ranks(_broadcast_on_rank):
        assert content == [50_000_000, [0, 49_999_999], 3, ["a", None]]
        assert seconds < 6  # element by element it takes 17


def test_one_rank_gets_the_object_itself():
    checkpoint = {"weights": torch.zeros(2)}
    assert checkpoints.broadcast_object(checkpoint) is checkpoint


def test_reading_a_checkpoint_on_one_rank_costs_no_more_than_loading_the_file(tmp_path):
    path = tmp_path / "checkpoint.torch"
    torch.save(_checkpoint_of(0), path)
    start = time.monotonic()
    torch.load(path)
    alone = time.monotonic() - start
    start = time.monotonic()
    classy_vision.generic.util.load_and_broadcast_checkpoint(str(path))
    assert time.monotonic() - start < 3 * alone + 1


def test_cluster_assignments_are_read_back(tmp_path):
    saved = ClusterAssignment(AttrDict({"DATA": {"TRAIN": {"PATHS": ["x"]}}}), {"TRAIN": {0: 3, 1: 2}})
    ClusterAssignmentLoader.save_cluster_assignment(str(tmp_path), saved)
    loaded = ClusterAssignmentLoader.load_cluster_assigment(str(tmp_path / "cluster_assignments.torch"))
    assert loaded.cluster_assignments == {"TRAIN": {0: 3, 1: 2}}
    assert loaded.config.DATA.TRAIN.PATHS == ["x"]


class _RunsCode:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_cluster_assignments_that_would_run_code_are_refused(tmp_path, capsys):
    path = tmp_path / "cluster_assignments.torch"
    torch.save({"config": _RunsCode(), "cluster_assignments": {}}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        ClusterAssignmentLoader.load_cluster_assigment(str(path))
    assert capsys.readouterr().out == ""


def test_a_failed_resume_ends_with_its_cause():
    def broken(state):
        raise KeyError("optimizer")

    task = SimpleNamespace(checkpoint_path="model_phase0.torch", _set_classy_state=broken)
    with pytest.raises(KeyError, match="optimizer"):
        SelfSupervisionTask._update_classy_state(task, {"train": True})
    assert SelfSupervisionTask._update_classy_state(task, None) is task


# --- hooks


def test_gradients_are_clipped_in_their_true_units_under_mixed_precision():
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False)
    images = torch.randn(8, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(images).sum().backward()
    true_gradient = model.weight.grad.clone()
    optimizer.zero_grad()
    scaler.scale(model(images).sum()).backward()
    task = SimpleNamespace(amp_type=AmpType.PYTORCH, amp_grad_scaler=scaler, optimizer=optimizer, model=model)
    limit = float(true_gradient.norm()) * 2
    GradClipHook(norm_type=2, max_norm=limit).on_backward(task)
    torch.testing.assert_close(model.weight.grad, true_gradient)  # below the limit: untouched
    before = model.weight.detach().clone()
    scaler.step(optimizer)  # raises if it would divide by the scale a second time
    torch.testing.assert_close(model.weight.detach(), before - true_gradient)


def test_gradients_are_clipped_without_mixed_precision():
    model = nn.Linear(4, 1, bias=False)
    model.weight.grad = torch.full((1, 4), 3.0)
    GradClipHook(norm_type=2, max_norm=1.0).on_backward(SimpleNamespace(amp_type=None, model=model))
    assert float(model.weight.grad.norm()) == pytest.approx(1.0, abs=1e-4)


def _output_task(output, folder):
    last_batch = SimpleNamespace(model_output=output, sample={"input": torch.ones(2)})
    return SimpleNamespace(last_batch=last_batch, iteration=17, checkpoint_folder=str(folder), train=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_stops_the_run_with_place_and_advice(value, tmp_path):
    good, bad = torch.zeros(2), torch.tensor([0.0, value])
    with pytest.raises(FloatingPointError, match=rf"output \[1\] is NaN or infinite at iteration 17 .*{tmp_path}"):
        CheckNanModelOutputHook().on_forward(_output_task([good, bad], tmp_path))
    with pytest.raises(FloatingPointError, match=r"output \[0\]"):
        CheckNanModelOutputHook().on_forward(_output_task(bad, tmp_path))
    assert torch.load(tmp_path / "rank0_input_sample.pth", weights_only=True)["input"].sum() == 2
    assert not torch.load(tmp_path / "rank0_model_output.pth", weights_only=True).isfinite().all()


def test_no_checkpoint_is_written_of_a_step_whose_output_is_not_finite(tmp_path):
    # VISSL's would call task.get_classy_state() and leave model_iteration17.torch.
    LogLossMetricsCheckpointHook(world_size=1).on_forward(_output_task(torch.tensor([float("nan")]), tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_finite_output_passes(tmp_path):
    CheckNanModelOutputHook().on_forward(_output_task([torch.zeros(2), torch.ones(1)], tmp_path))
    assert not list(tmp_path.iterdir())


# --- data files


def _data(**changes):
    split = {
        "DATASET_NAMES": ["mine"],
        "DATA_SOURCES": ["disk_folder"],
        "DATA_PATHS": ["images"],
        "LABEL_SOURCES": [],
        "LABEL_PATHS": [],
        "COPY_TO_LOCAL_DISK": False,
    }
    return AttrDict({"TRAIN": {**split, **changes}})


def test_data_paths_without_labels_are_enough():
    config = _data()
    assert sys.modules["vissl.data"].get_data_files("TRAIN", config) == [["images"], []]
    assert config.TRAIN.LABEL_PATHS == []


def test_given_label_paths_are_used(tmp_path):
    labels = tmp_path / "labels.npy"
    labels.touch()
    found = data_files.get_data_files("TRAIN", _data(LABEL_SOURCES=["disk_filelist"], LABEL_PATHS=[str(labels)]))
    assert found == [["images"], [str(labels)]]


def test_a_data_set_of_the_catalogue_keeps_its_labels(monkeypatch, tmp_path):
    labels = tmp_path / "labels.npy"
    labels.touch()
    catalogue = data_files.VisslDatasetCatalog
    catalogue.register_data("known_to_the_test", {"train": ["stored", str(labels)]})
    try:
        found = data_files.get_data_files("TRAIN", _data(DATASET_NAMES=["known_to_the_test"]))
    finally:
        catalogue.remove("known_to_the_test")
    assert found == [["images"], [str(labels)]]


def test_an_unknown_data_set_without_a_path_is_named():
    with pytest.raises(ValueError, match=r"DATASET_NAMES=\['mine'\] has no path: set config.DATA.TRAIN.DATA_PATHS"):
        data_files.get_data_files("TRAIN", _data(DATA_PATHS=[]))


def test_labels_from_files_need_a_path():
    with pytest.raises(ValueError, match=r"config\.DATA\.TRAIN\.LABEL_PATHS is empty"):
        data_files.get_data_files("TRAIN", _data(LABEL_SOURCES=["disk_filelist"]))


def test_synthetic_data_needs_no_path():
    assert data_files.get_data_files("TRAIN", _data(DATA_SOURCES=["synthetic"], DATA_PATHS=[])) == [[""], []]


# --- launching


@pytest.fixture
def run_config(tmp_path):
    checkpoint = {
        "DIR": str(tmp_path / "run"),
        "APPEND_DISTR_RUN_ID": False,
        "OVERWRITE_EXISTING": False,
        "AUTO_RESUME": True,
        "USE_SYMLINK_CHECKPOINT_FOR_RESUME": False,
        "LATEST_CHECKPOINT_RESUME_FILE_NUM": 1,
        "CHECKPOINT_ITER_FREQUENCY": -1,
    }
    distributed = {
        "NUM_NODES": 1,
        "NUM_PROC_PER_NODE": 1,
        "INIT_METHOD": "tcp",
        "RUN_ID": "auto",
        "NCCL_DEBUG": False,
        "NCCL_SOCKET_NTHREADS": "",
    }
    return AttrDict(
        {
            "CHECKPOINT": checkpoint,
            "DISTRIBUTED": distributed,
            "MODEL": {"WEIGHTS_INIT": {"PARAMS_FILE": ""}},
            "DATA": {},
        }
    )


@pytest.fixture
def launched(monkeypatch):
    """Record what a rank is started with instead of running an engine."""
    calls = []
    monkeypatch.setattr(distributed_launcher, "_distributed_worker", lambda *args: calls.append(args))
    monkeypatch.setattr(launching, "setup_logging", lambda name: None)
    monkeypatch.setattr(launching, "shutdown_logging", lambda: None)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    return calls


def _launch(config, engine="train"):
    launching.launch_distributed(config, node_id=0, engine_name=engine, hook_generator=list)


def test_one_rank_runs_in_the_calling_process_with_the_callers_hooks(run_config, launched):
    _launch(run_config)
    ((rank, config, node, run_id, engine, checkpoint, folder, hooks),) = launched
    assert (rank, node, engine, checkpoint, hooks) == (0, 0, "train", None, list)
    assert config is run_config
    assert run_id.startswith("localhost:")
    assert folder == run_config.CHECKPOINT.DIR


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the cause")])
def test_interrupts_and_errors_reach_the_caller(run_config, launched, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(distributed_launcher, "_distributed_worker", fail)
    with pytest.raises(type(error)):
        _launch(run_config)
    assert "--- Logging error ---" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("engine", "ours", "listens"), [("train", True, True), ("train", False, False), ("extract_features", True, False)]
)
def test_a_training_of_ours_listens_to_signals_and_nothing_else_does(
    run_config, launched, monkeypatch, engine, ours, listens
):
    if ours:
        run_config["JOINT_SSL"] = AttrDict({})
    before, during = signal.getsignal(signal.SIGUSR1), []
    worker = "_distributed_worker"
    monkeypatch.setattr(distributed_launcher, worker, lambda *_: during.append(signal.getsignal(signal.SIGUSR1)))
    relay, into = os.pipe()
    monkeypatch.setenv(STOP_PIPE, str(relay))
    _launch(run_config, engine)
    assert (during != [before]) == listens
    assert signal.getsignal(signal.SIGUSR1) == before
    assert STOP_PIPE not in os.environ  # no process started from here has that pipe
    os.close(into)


def test_a_finished_training_is_not_run_again_but_features_are_extracted_beside_it(run_config, launched, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({}, tmp_path / "run/model_final_checkpoint_phase1.torch")
    _launch(run_config)
    assert launched == []
    _launch(run_config, engine="extract_features")
    assert len(launched) == 1


def test_a_training_whose_final_checkpoint_is_damaged_is_not_finished(run_config, launched, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({}, tmp_path / "run/model_phase0.torch")
    (tmp_path / "run/model_final_checkpoint_phase1.torch").touch()
    _launch(run_config)
    assert launched[0][5] == f"{run_config.CHECKPOINT.DIR}/model_phase0.torch"
    assert (tmp_path / "run/model_final_checkpoint_phase1.torch.damaged").exists()


def test_a_training_without_a_whole_checkpoint_left_starts_no_rank(run_config, launched, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model_phase0.torch").touch()
    with pytest.raises(CheckpointError, match=r"run: every checkpoint is damaged \(model_phase0\.torch\.damaged\)"):
        _launch(run_config)
    assert launched == []


@pytest.mark.parametrize("iteration_frequency", [-1, 310])
def test_training_resumes_from_the_newest_phase(run_config, launched, tmp_path, iteration_frequency):
    run_config.CHECKPOINT.CHECKPOINT_ITER_FREQUENCY = iteration_frequency
    (tmp_path / "run").mkdir()
    for phase in (0, 1, 10):
        torch.save({}, tmp_path / f"run/model_phase{phase}.torch")
    _launch(run_config)
    assert launched[0][5] == f"{run_config.CHECKPOINT.DIR}/model_phase10.torch"


def test_a_torch_file_that_is_no_training_checkpoint_does_not_stop_a_run(run_config, launched, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/cluster_assignments.torch").touch()
    _launch(run_config)
    assert launched[0][5] is None


def test_missing_weights_are_named_before_any_rank_starts(run_config, launched):
    run_config.MODEL.WEIGHTS_INIT.PARAMS_FILE = "no/such.torch"
    with pytest.raises(FileNotFoundError, match=r"PARAMS_FILE=no/such\.torch does not exist"):
        _launch(run_config)
    assert launched == []


def test_what_a_spawned_rank_unpickles_first_lives_in_the_plugin():
    assert b"vissl_jointssl.plugin" in pickle.dumps(ranks.run_rank)
    assert "vissl_jointssl.plugin" in multiprocessing.forkserver._forkserver._preload_modules
    assert vissl_jointssl.plugin.__name__ == "vissl_jointssl.plugin"


def test_weights_travel_as_bytes_that_only_weights_can_be_made_of():
    buffer = io.BytesIO()
    torch.save(_RunsCode(), buffer)
    buffer.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(buffer, weights_only=True)
