"""Reading checkpoints: fast, safe, and with the cause when it fails."""

from __future__ import annotations

import io
import logging
from collections import OrderedDict
from typing import Any

import torch
from classy_vision.generic import distributed_util, util
from classy_vision.generic.distributed_util import broadcast, get_rank, is_distributed_training_run
from iopath.common.file_io import g_pathmgr
from vissl.config import AttrDict
from vissl.trainer.train_task import SelfSupervisionTask
from vissl.utils.cluster_utils import ClusterAssignment, ClusterAssignmentLoader

from vissl_jointssl.checkpoints import load_content
from vissl_jointssl.plugin.compat.patching import replace_everywhere

_classy_broadcast_object = distributed_util.broadcast_object
_classy_load_checkpoint = util.load_checkpoint


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


def replace_load_checkpoint() -> None:
    """``CV/generic/util.py:280`` says neither ``weights_only=True`` nor, when PyTorch refuses a file, which file it is.

    By design: it is from before there was a choice. Whole checkpoints, weights to start from and shards pass here.
    """
    replace_everywhere(_classy_load_checkpoint, load_checkpoint)


def load_checkpoint(checkpoint_path: str, device: torch.device = util.CPU_DEVICE) -> Any:
    """Read a checkpoint; nothing in it may run code, whatever the environment says.

    Args:
        checkpoint_path: A file, or a folder that holds ``checkpoint.torch``.
        device: Where its tensors go.

    Returns:
        What the file holds; None where there is no file.

    Raises:
        CheckpointError: If the file is damaged, or holds more than tensors and plain containers.
    """
    if checkpoint_path and g_pathmgr.isdir(checkpoint_path):
        checkpoint_path = f"{checkpoint_path.rstrip('/')}/{util.CHECKPOINT_FILE}"
    if not checkpoint_path or not g_pathmgr.exists(checkpoint_path):
        logging.warning(f"{checkpoint_path or 'a checkpoint'}: no such file, nothing is loaded")
        return None
    with g_pathmgr.open(checkpoint_path, "rb") as file:
        content = load_content(checkpoint_path, file, device)
    logging.info(f"Loaded checkpoint from {checkpoint_path}")
    return content


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
