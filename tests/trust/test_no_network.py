"""No network call and no telemetry: a whole pipeline in processes that cannot reach anything but themselves.

The guard is an audit hook in every Python process, loader workers and spawned ranks too: it writes down each address
that is looked up or connected to, and refuses it. Ranks meet at 127.0.0.1, which is let through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torchvision
import yaml

GUARD = """
import os, socket, sys

LOCAL = ("127.0.0.1", "::1", "localhost", "", None, socket.gethostname(), b"127.0.0.1")

def guard(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""  # else AF_UNIX
    else:
        return
    if host not in LOCAL:
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(f"{event} {host} by {sys.argv}\\n")
        raise PermissionError(f"the network is closed: {event} {host}")

sys.addaudithook(guard)
with open(os.environ["NETWORK_LOG"] + ".guarded", "a") as log:
    log.write(f"{os.getpid()}\\n")
"""

# Every room but the plugin, module by module.
ALL_MODULES = """
import importlib, pkgutil, sys, vissl_jointssl
for module in pkgutil.walk_packages(vissl_jointssl.__path__, "vissl_jointssl."):
    if not module.name.startswith("vissl_jointssl.plugin"):
        importlib.import_module(module.name)
print(" ".join(name for name in sys.argv[1:] if name in sys.modules))
"""
TELEMETRY = ["requests", "urllib3", "wandb", "sentry_sdk", "mlflow", "comet_ml", "neptune", "analytics", "aiohttp"]


@pytest.fixture
def run_guarded(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a guarded process, and return it with what the guard wrote as its stderr's last lines."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "network.log"
    log.touch()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NETWORK_LOG": str(log)}
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "guard"), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return run


@pytest.fixture
def verb(run_guarded: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> Callable[..., str]:
    """Run a verb of `jointssl` in a guarded process; it must succeed and reach for nothing."""

    def run(*arguments: object) -> str:
        result = run_guarded("-m", "vissl_jointssl.cli", *map(str, arguments))
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
        assert (tmp_path / "network.log").read_text() == ""
        return result.stdout

    return run


@pytest.mark.parametrize("call", [
    "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "import socket; socket.getaddrinfo('example.org', 443)",
    "import urllib.request; urllib.request.urlopen('http://192.0.2.1/x', timeout=1)",
    "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 8125))",
])  # fmt: skip
def test_the_guard_catches_what_reaches_out(
    call: str, run_guarded: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = run_guarded("-c", call)
    assert result.returncode != 0
    assert "the network is closed" in result.stderr
    assert (tmp_path / "network.log").read_text()


def test_importing_every_room_brings_no_library_that_phones_home(
    run_guarded: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = run_guarded("-c", ALL_MODULES, *TELEMETRY)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == ""
    assert (tmp_path / "network.log").read_text() == ""


def test_preparation_evaluation_export_and_report_reach_for_nothing(verb: Callable[..., str], tmp_path: Path) -> None:
    import torch

    rng = np.random.default_rng(0)
    for number in range(4):
        folder = tmp_path / "scans" / f"patient{number}"
        folder.mkdir(parents=True)
        scan = rng.integers(-900, 900, (16, 16, 6)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(scan, np.diag([1, 1, 3, 1])), folder / "scan.nii.gz")
    data = tmp_path / "data"
    verb("prepare", tmp_path / "scans", "--out", data, "--jobs", 1, "--test-share", 0.5)
    verb("doctor", data, "--jobs", 1)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet50.pth")
    verb("import", tmp_path / "resnet50.pth", "--out", tmp_path / "stage0.torch")
    verb("export", tmp_path / "stage0.torch", "--to", "torchvision", "--out", tmp_path / "f_intra.pth")
    _evaluate_and_report(verb, _labelled(data), tmp_path / "f_intra.pth", tmp_path)


@pytest.mark.slow
def test_training_reaches_for_nothing_in_any_of_its_processes(
    verb: Callable[..., str], tiny_manifest: Path, tmp_path: Path
) -> None:
    recipe = {
        "run": str(tmp_path / "run"),
        "manifest": str(tiny_manifest),
        "device": "cpu",
        "processes": 2,
        "overrides": ["config.OPTIMIZER.num_epochs=1", "config.DATA.NUM_DATALOADER_WORKERS=1"],
        "stages": [
            {
                "config": "jointssl/stage1_swav",
                "overrides": [
                    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=8",
                    "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
                ],
            }
        ],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    verb("train", tmp_path / "recipe.yaml")
    guarded = set((tmp_path / "network.log.guarded").read_text().split())
    assert len(guarded) >= 4  # the command, the engine, and two ranks; with their workers' servers more
    verb("export", tmp_path / "run" / "stage1", "--to", "torchvision", "--out", tmp_path / "f_intra.pth")
    _evaluate_and_report(verb, tiny_manifest, tmp_path / "f_intra.pth", tmp_path)


def _labelled(data: Path) -> Path:
    """The manifest with two classes: its rows in turn."""
    from dataclasses import replace

    from vissl_jointssl.manifest import read_manifest, write_manifest

    entries = read_manifest(data / "manifest.csv").entries
    splits = ("train", "train", "test", "test")
    rows = [replace(one, label=number % 2, split=splits[number]) for number, one in enumerate(entries)]
    write_manifest(data / "labelled.csv", rows)
    return data / "labelled.csv"


def _evaluate_and_report(verb: Callable[..., str], manifest: Path, weights: Path, folder: Path) -> None:
    options = {"of": "volumes", "slices": 4, "size": [32, 32], "k": 2, "workers": 1}
    plan = {"name": "probe", "task": "probe", "manifest": str(manifest), "device": "cpu", "options": options}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    verb("evaluate", folder / "plan.yaml", f"weights=[start={weights}]", f"out={folder / 'results'}")
    verb("report", folder / "results", "--out", folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert "<link" not in page or 'href="http' not in page.split("<link", 1)[1].split(">", 1)[0]
