"""SLURM jobs keep our registrations and hooks, as far as that can be seen without SLURM."""

from __future__ import annotations

import base64
import os
import pickle
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import submitit

from vissl_jointssl.plugin import launch, slurm
from vissl_jointssl.plugin.compat import launching
from vissl_jointssl.plugin.stop_signals import Stopped

# isort: split
from vissl.config import AttrDict


@pytest.fixture
def config(tmp_path):
    return AttrDict(
        {
            "SLURM": {
                "PORT_ID": 40050,
                "LOG_FOLDER": str(tmp_path / "logs"),
                "PARTITION": "gpus",
                "NAME": "run",
                "COMMENT": "",
                "CONSTRAINT": "",
                "TIME_HOURS": 1,
                "TIME_MINUTES": 30,
                "MEM_GB": 8,
                "NUM_CPU_PER_PROC": 4,
                "ADDITIONAL_PARAMETERS": {"account": "us"},
            },
            "DISTRIBUTED": {"NUM_NODES": 2, "NUM_PROC_PER_NODE": 8, "INIT_METHOD": "file", "RUN_ID": ""},
            "MACHINE": {"DEVICE": "gpu"},
        }
    )


@pytest.fixture
def node_1(monkeypatch):
    """This process believes to be the second node of a job."""
    environment = SimpleNamespace(global_rank=1, hostnames=["node-a", "node-b"])
    monkeypatch.setattr(submitit, "JobEnvironment", lambda: environment)


def test_a_node_meets_the_first_one_and_runs_the_engine_with_our_hooks(config, node_1, monkeypatch):
    calls = []
    monkeypatch.setattr(launch, "setup_logging", lambda name: None)
    monkeypatch.setattr(launch, "fit_to_machine", lambda config: None)
    monkeypatch.setattr(launch, "launch_distributed", lambda **kwargs: calls.append(kwargs))
    slurm.ResumableJob(engine_name="train", config=config)()
    (call,) = calls
    assert (call["node_id"], call["engine_name"]) == (1, "train")
    assert (call["cfg"].DISTRIBUTED.INIT_METHOD, call["cfg"].DISTRIBUTED.RUN_ID) == ("tcp", "node-a:40050")
    assert call["hook_generator"] is launch.hook_generator
    assert launch.hook_generator.__module__.startswith("vissl_jointssl.")


@pytest.mark.parametrize(
    ("number", "queued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)], ids=["preempted", "asked to stop"]
)
def test_a_run_that_stopped_hands_the_signal_on_to_submitit(config, node_1, monkeypatch, number, queued):
    def stop(*arguments, **options):
        raise Stopped(number, "after step 3")

    heard = []
    monkeypatch.setattr(launch, "launch_on_this_node", stop)
    before = {one: signal.signal(one, lambda *_: heard.append("queue")) for one in (signal.SIGUSR2,)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: heard.append("bypass"))
    try:
        with pytest.raises(Stopped, match="75"):
            slurm.ResumableJob(engine_name="train", config=config)()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert heard == (["queue"] if queued else ["bypass"])


def test_a_preempted_job_is_queued_again_as_the_same_job(config):
    job = slurm.ResumableJob(engine_name="train", config=config)
    again = job.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function == job
    assert type(again.function) is slurm.ResumableJob


UNPICKLE = """
import base64, pickle, sys
assert not any(name.startswith(("vissl", "classy_vision")) for name in sys.modules)
job = pickle.loads(base64.b64decode(sys.stdin.read()))
from vissl.data import DATASET_SOURCE_MAP
from vissl.hooks.deepclusterv2_hooks import InitMemoryHook
from vissl.utils import distributed_launcher
print(type(job).__name__, job.engine_name, job.config.SLURM.PORT_ID)
print("volume_dataset" in DATASET_SOURCE_MAP, distributed_launcher.launch_distributed.__module__)
"""


def test_unpickling_a_job_in_a_fresh_process_brings_the_whole_plugin(config, root, tmp_path):
    job = base64.b64encode(pickle.dumps(slurm.ResumableJob(engine_name="train", config=config)))
    result = subprocess.run(
        [sys.executable, "-c", UNPICKLE],
        input=job.decode(),
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == [
        "ResumableJob train 40050",
        "True vissl_jointssl.plugin.compat.launching",
    ]


class _Executor:
    """Stands in for submitit's; keeps what it was asked for."""

    asked: dict
    submitted: object

    def __init__(self, folder, cluster=None):
        type(self).folder = folder

    def update_parameters(self, **parameters):
        type(self).asked = parameters

    def submit(self, job):
        type(self).submitted = job
        return SimpleNamespace(job_id="12")


@pytest.mark.parametrize(("device", "gpus"), [("gpu", 8), ("cpu", 0)])
def test_a_run_asks_for_one_task_per_node_with_what_its_ranks_need(config, monkeypatch, device, gpus):
    monkeypatch.setattr(submitit, "AutoExecutor", _Executor)
    config.MACHINE.DEVICE = device
    job = slurm.submit(config, engine_name="extract_features")
    assert job.job_id == "12"
    asked = _Executor.asked
    assert (asked["nodes"], asked["tasks_per_node"], asked["gpus_per_node"]) == (2, 1, gpus)
    assert (asked["cpus_per_task"], asked["timeout_min"], asked["mem_gb"]) == (32, 90, 8)
    assert asked["slurm_additional_parameters"] == {"account": "us"}
    assert type(asked["slurm_additional_parameters"]) is dict
    assert _Executor.submitted == slurm.ResumableJob(engine_name="extract_features", config=config)
    assert _Executor.folder.is_dir()


def test_a_run_without_a_partition_is_refused(config):
    config.SLURM.PARTITION = ""
    with pytest.raises(ValueError, match=r"config\.SLURM\.PARTITION is empty"):
        slurm.submit(config, engine_name="train")


def test_srun_tells_a_launcher_which_of_eight_nodes_it_is(
    config_of, tiny_manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(launching, "spawn_ranks", lambda ranks, arguments, *rest: started.append((ranks, arguments)))
    for module, name in ((launch, "setup_logging"), (launching, "setup_logging"), (launching, "shutdown_logging")):
        monkeypatch.setattr(module, name, lambda *_: None)  # VISSL exchanges the root logger, for the whole process
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # the launcher sets them; as before afterwards
    for name, value in {"SLURM_STEP_NODELIST": "node-[a-h]", "SLURMD_NODENAME": "node-d", "SLURM_NODEID": "3"}.items():
        monkeypatch.setenv(name, value)
    meeting = ["config.DISTRIBUTED.NUM_NODES=8", "config.DISTRIBUTED.RUN_ID=node-a:40050"]
    launch.launch_on_this_node(config_of("stage1_swav", *meeting), node_id=0, engine_name="train")
    ((ranks, (_, node, run_id, *_)),) = started
    assert (ranks, node, run_id) == (1, 3, "node-a:40050")
    assert os.environ["WORLD_SIZE"] == "8"
    assert os.environ["RANK"] == "3"
