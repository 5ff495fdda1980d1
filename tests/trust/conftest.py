"""Files and names that would run a command if anything let them."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

# Every way in which torch.load has taken a file, and a bare pickle. The .tar one is how CVE-2025-32434 got in.
FORMS = ("zip", "legacy", "tar", "pickle")


@dataclass(frozen=True)
class Trap:
    """Runs a command when it is unpickled, which leaves `mark`."""

    mark: Path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)

    @property
    def sprung(self) -> bool:
        """Whether the command ran."""
        return self.mark.exists()


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "the command ran")


@pytest.fixture
def write_trap(trap: Trap) -> Callable[[Path, str], Path]:
    """Write the trap into a file of one of `FORMS`, around what a checkpoint of VISSL's holds."""

    def write(path: Path, form: str) -> Path:
        model = {"model": {"trunk": {"_feature_blocks.conv1.weight": torch.ones(1)}, "heads": {}}}
        content = {"classy_state_dict": {"base_model": model, "hooks": {}}, "extra": trap}
        if form in ("zip", "legacy"):
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        elif form == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
                for name in ("storages", "tensors", "pickle"):
                    member, data = tarfile.TarInfo(name), pickle.dumps(trap)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def config_with(tiny_manifest: Path, tmp_path: Path) -> Callable[..., object]:
    """Compose, check and complete stage 1's config with more overrides, as the launcher does before it starts."""
    from vissl_jointssl.plugin.launch import read_config

    def read(*overrides: str) -> object:
        given = ["config=jointssl/stage1_swav", f"config.CHECKPOINT.DIR='{tmp_path}'"]
        given += [f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']", "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=1"]
        _, config = read_config([*given, "config.DISTRIBUTED.NUM_PROC_PER_NODE=1", *overrides])
        return config

    return read
