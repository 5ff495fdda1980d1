"""The launcher fits a config to the machine, or says what the user must decide."""

from __future__ import annotations

import logging

import pytest
import torch

from vissl_jointssl.plugin import launch

# isort: split
from vissl.config import AttrDict


def config(device="cpu", backend="nccl", pin=True, nodes=1, ranks=1, run_id="auto", method="tcp"):
    return AttrDict(
        {
            "MACHINE": {"DEVICE": device},
            "DATA": {"PIN_MEMORY": pin},
            "DISTRIBUTED": {
                "BACKEND": backend,
                "NUM_NODES": nodes,
                "NUM_PROC_PER_NODE": ranks,
                "INIT_METHOD": method,
                "RUN_ID": run_id,
            },
        }
    )


def test_a_cpu_run_uses_gloo_and_no_pinned_memory_and_says_so(caplog):
    run = config()
    with caplog.at_level(logging.INFO):
        launch.fit_to_machine(run)
    assert (run.DISTRIBUTED.BACKEND, run.DATA.PIN_MEMORY) == ("gloo", False)
    assert [message.split(":")[0] for message in caplog.messages] == ["Backend", "Pinned memory"]


def test_a_run_that_fits_is_left_as_it_is_without_a_word(caplog):
    run = config(backend="gloo", pin=False, run_id="localhost:4000")
    before = run.to_dict()
    with caplog.at_level(logging.INFO):
        launch.fit_to_machine(run)
    assert run.to_dict() == before
    assert caplog.messages == []


def test_a_gpu_config_without_a_gpu_names_the_overrides(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"no GPU; .* config\.MACHINE\.DEVICE=cpu config\.DISTRIBUTED\.BACKEND=gloo"):
        launch.fit_to_machine(config(device="gpu"))


def test_more_ranks_than_gpus_are_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="NUM_PROC_PER_NODE=8, but this machine has 2 GPUs"):
        launch.fit_to_machine(config(device="gpu", ranks=8))
    run = config(device="gpu", ranks=2)
    launch.fit_to_machine(run)
    assert (run.DISTRIBUTED.BACKEND, run.DATA.PIN_MEMORY) == ("nccl", True)


def test_a_multi_node_config_on_one_node_finds_its_own_port(caplog):
    run = config(backend="gloo", pin=False, run_id="xxxxxxxx")
    with caplog.at_level(logging.INFO):
        launch.fit_to_machine(run)
    assert run.DISTRIBUTED.RUN_ID == "auto"
    assert caplog.messages == ["Run id: auto instead of 'xxxxxxxx', because config.DISTRIBUTED.NUM_NODES=1"]


@pytest.mark.parametrize("run_id", ["auto", "xxxx", "host", "host:", ":4000"])
def test_several_nodes_need_an_address_to_meet_at(run_id):
    with pytest.raises(ValueError, match=f"RUN_ID={run_id} is no address for 2 nodes"):
        launch.fit_to_machine(config(nodes=2, run_id=run_id))
    launch.fit_to_machine(config(nodes=2, run_id="node0:4000"))


@pytest.fixture
def composed(monkeypatch, tmp_path):
    """Compose for real, and record what is launched or submitted."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(launch, "setup_logging", lambda name: None)
    monkeypatch.setattr(launch, "launch_distributed", lambda **kwargs: calls.append(kwargs))
    monkeypatch.setattr(launch.slurm, "submit", lambda config, engine_name: calls.append({"slurm": engine_name}))
    return calls


CPU = ["config=test/integration_test/quick_simclr_synthetic", "config.MACHINE.DEVICE=cpu"]


def test_the_named_engine_runs_with_our_hooks_on_the_named_node(composed):
    launch.main([*CPU, "engine_name=extract_features", "node_id=0"])
    (call,) = composed
    assert (call["engine_name"], call["node_id"]) == ("extract_features", 0)
    assert call["hook_generator"] is launch.hook_generator
    assert call["hook_generator"].__module__ == "vissl_jointssl.plugin.hooks"
    assert call["cfg"].DISTRIBUTED.BACKEND == "gloo"


def test_a_config_for_slurm_is_submitted_and_not_run_here(composed):
    launch.main([*CPU, "config.SLURM.USE_SLURM=true"])
    assert composed == [{"slurm": "train"}]


def test_our_own_checks_see_the_config_before_it_is_launched(composed, monkeypatch):
    def prepare(config):
        config.SEED_VALUE = 77
        return config

    monkeypatch.setattr(launch, "prepare", prepare)
    launch.main(CPU)
    assert composed[0]["cfg"].SEED_VALUE == 77
