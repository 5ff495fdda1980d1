"""Reading checkpoints: fast, safe, and with the cause when it fails."""

from __future__ import annotations

import io
import logging
from collections import OrderedDict
from typing import Any

import torch
from classy_vision.generic import distributed_util
from classy_vision.generic.distributed_util import broadcast, get_rank, is_distributed_training_run
from iopath.common.file_io import g_pathmgr
from vissl.config import AttrDict
from vissl.trainer.train_task import SelfSupervisionTask
from vissl.utils.cluster_utils import ClusterAssignment, ClusterAssignmentLoader

from vissl_jointssl.plugin.compat.patching import replace_everywhere

_classy_broadcast_object = distributed_util.broadcast_object


def replace_broadcast_object() -> None:
    """``CV/generic/distributed_util.py:266`` builds a tensor from a memory view, element by element since PyTorch 2.

    87 ms per MB: a ResNet-50 checkpoint took 20 seconds and more to be read back, also by a single process.
    """
    replace_everywhere(_classy_broadcast_object, broadcast_object)


def broadcast_object(obj: Any, src: int = 0, use_disk: bool = True) -> Any:
    """Hand an object of one rank to all ranks.

    Args:
        obj: What to hand on; only looked at on rank ``src``. Tensors, containers and plain values.
        src: The rank that has it.
        use_disk: Taken for compatibility; the bytes are never copied to disk.

    Returns:
        ``obj`` itself on rank ``src``, an equal object elsewhere.
    """
    if not is_distributed_training_run():
        return obj
    if get_rank() == src:
        buffer = io.BytesIO()
        torch.save(obj, buffer)
        content = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        broadcast(torch.tensor([content.numel()]), src=src)
        broadcast(content, src=src)
        return obj
    length = broadcast(torch.tensor([0]), src=src)
    content = broadcast(torch.empty(int(length.item()), dtype=torch.uint8), src=src)
    return torch.load(io.BytesIO(content.numpy()), weights_only=True)


def replace_cluster_assignment_loader() -> None:
    """``vissl/utils/cluster_utils.py:45`` cannot read its own file since PyTorch 2.6: it holds an ``AttrDict``.

    PyTorch's safe reader fills no subclass of ``dict`` but its own few, so the config is read as an ordered one and
    made an ``AttrDict`` afterwards. Nothing in the file may run code.
    """
    ClusterAssignmentLoader.load_cluster_assigment = classmethod(_load_cluster_assignment)


def _load_cluster_assignment(cls: type[ClusterAssignmentLoader], file_path: str) -> ClusterAssignment:
    """Read the file that the ``extract_cluster`` engine wrote."""
    stand_in = (OrderedDict, f"{AttrDict.__module__}.{AttrDict.__qualname__}")
    with g_pathmgr.open(file_path, "rb") as file, torch.serialization.safe_globals([stand_in]):
        content = torch.load(file, weights_only=True)
    return ClusterAssignment(config=AttrDict(content[cls._CONFIG_KEY]), cluster_assignments=content[cls._ASSIGN_KEY])


def keep_the_cause_of_a_failed_resume() -> None:
    """``vissl/trainer/train_task.py:645`` logs the cause and then fails with a sentence that hides it (by design)."""
    SelfSupervisionTask._update_classy_state = _update_classy_state


def _update_classy_state(self: SelfSupervisionTask, state_dict: dict | None = None) -> SelfSupervisionTask:
    """Restore a task from the state in a checkpoint; whatever is wrong with it is raised as it is."""
    if state_dict is not None:
        logging.info(f"Restoring the training state of {self.checkpoint_path}")
        self._set_classy_state(state_dict)
    return self
