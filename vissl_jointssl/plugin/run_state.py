"""What a resumed run needs beside VISSL's checkpoint, which holds rank 0's state and gives it to every rank.

Every rank has of its own: the state of its random generators; buffers of the loss (SwAV's queue, DeepCluster-v2's
memory); buffers of the model (BatchNorm's statistics, where ranks do not share them); and plain numbers that the loss
counts in and VISSL never saves (`start_idx`, vissl/losses/deepclusterv2_loss.py:139). `gather_run_state` brings them
into rank 0's checkpoint, `hand_out` gives each rank its own again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vissl_jointssl.objectives.over_ranks import rank_and_world
from vissl_jointssl.plugin.compat.checkpoints import broadcast_object
from vissl_jointssl.plugin.compat.patching import announce
from vissl_jointssl.plugin.random_states import take_random_states
from vissl_jointssl.plugin.resharding import Place, reshard_loss

RUN_STATE_HOOK = "RunStateHook"  # under classy_state_dict.hooks of a checkpoint
Numbers = dict[str, float]
_RENEWED = "start_idx"  # rows of VISSL's DeepCluster-v2 memory that the epoch has renewed


@dataclass(frozen=True)
class RunState:
    """All ranks' state at a checkpoint, in plain containers.

    Attributes:
        batch: Samples of each rank in one step.
        steps_into_epoch: Steps that the epoch of the checkpoint had taken; 0 between epochs.
        scaler: The gradient scaler's state, or None without mixed precision. VISSL reads it, but writes apex's alone
            (classy_vision/tasks/classification_task.py:968).
        parts: Of each rank: `random`; `loss` and `model`, the tensors that differ from rank 0's; `numbers`.
    """

    batch: int
    steps_into_epoch: int
    scaler: dict[str, Any] | None
    parts: list[dict[str, Any]]

    @classmethod
    def in_checkpoint(cls, checkpoint: Mapping[str, Any]) -> RunState | None:
        """The one in a checkpoint as VISSL reads it; None where none was written."""
        written = checkpoint["classy_state_dict"].get("hooks", {}).get(RUN_STATE_HOOK)
        return cls(**written) if written else None

    def to_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


class Layout(NamedTuple):
    """How a run that resumes is cut into steps."""

    batch: int  # samples of each rank in one step
    steps: int  # in an epoch
    place: Place


class OwnState(NamedTuple):
    """What one rank takes back once VISSL has loaded the checkpoint.

    Attributes:
        random: As `take_random_states` gave it; None for a rank that the old run did not have.
        model: Buffers by name.
        numbers: Of the loss, by module and name.
        scaler: As in `RunState`.
        within_epoch: Whether the epoch that comes had begun before.
    """

    random: dict[str, Any] | None
    model: dict[str, Tensor]
    numbers: Numbers
    scaler: dict[str, Any] | None
    within_epoch: bool


def gather_run_state(task: Any, moved: Numbers, steps_into_epoch: int) -> RunState:
    """Bring every rank's own state together; all ranks must call this, at the same step.

    Args:
        task: VISSL's.
        moved: Numbers of this rank's loss that are not what they were when it was made.
        steps_into_epoch: As in `RunState`.

    Returns:
        The whole, on every rank; rank 0 is the one that writes it.
    """
    _, world = rank_and_world()
    loss, model = dict(task.loss.state_dict()), _buffers(task.base_model)
    first_loss, first_model = broadcast_object((_digests(loss), _digests(model)), src=0)
    part = {
        "random": take_random_states(),
        "loss": _unlike(first_loss, loss),
        "model": _unlike(first_model, model),
        "numbers": moved,
    }
    parts = [broadcast_object(part, src=source) for source in range(world)]
    scaler = None if task.amp_grad_scaler is None else task.amp_grad_scaler.state_dict()
    return RunState(task.config.DATA.TRAIN.BATCHSIZE_PER_REPLICA, steps_into_epoch, scaler, parts)


def hand_out(checkpoint: dict[str, Any], loss: nn.Module, now: Layout) -> OwnState | None:
    """Turn a checkpoint as all ranks have read it into this rank's, in place, before VISSL loads the loss from it.

    In the old run's layout, that is the state in which this rank was. In another one, queues and memories are shared
    out anew, steps and updates are counted as if the run had always been cut so, and a log line says that this is not
    bit-exact.

    Args:
        checkpoint: VISSL's.
        loss: As made, with nothing loaded.
        now: The run that resumes.

    Returns:
        What is left to give back; None for a checkpoint that some other VISSL wrote.
    """
    state = RunState.in_checkpoint(checkpoint)
    if state is None:
        announce("The checkpoint has rank 0's state alone: this resume is not bit-exact")
        if checkpoint["classy_state_dict"]["num_updates"] != checkpoint["iteration"] * now.batch * now.place.world:
            _count_anew(checkpoint, now, 0)
        return None
    del checkpoint["classy_state_dict"]["hooks"][RUN_STATE_HOOK]  # of all ranks; VISSL keeps the checkpoint in memory
    rank, world = now.place
    within = state.steps_into_epoch > 0
    own = state.parts[rank] if rank < len(state.parts) else None
    if own is not None and (len(state.parts), state.batch) == (world, now.batch):
        announce("Every rank takes back the state it had: queues, memories, random generators, place in the epoch")
        checkpoint["loss"] = {**checkpoint["loss"], **own["loss"]}
        return OwnState(own["random"], own["model"], own["numbers"], state.scaler, within)

    announce(
        f"Written by {len(state.parts)} ranks with {state.batch} samples a step, resumed by {world} with {now.batch}: "
        "what ranks remember is shared out anew, and this resume is not bit-exact"
    )
    steps = state.steps_into_epoch * state.batch * len(state.parts) // (now.batch * world)
    _count_anew(checkpoint, now, steps)
    states = [{**checkpoint["loss"], **part["loss"]} for part in state.parts]
    renewed = [int(part["numbers"].get(_RENEWED, 0)) for part in state.parts]
    checkpoint["loss"] = reshard_loss(states, loss.state_dict(), renewed, now.place)
    numbers = dict(state.parts[0]["numbers"])
    if _RENEWED in numbers:
        numbers[_RENEWED] = steps * now.batch
    return OwnState(own and own["random"], {}, numbers, state.scaler, within)


def numbers_of(loss: nn.Module) -> Numbers:
    """What a loss and its parts count in beside buffers, by module and name: numbers, and tensors of one number.

    VISSL's SwAV makes such a tensor of `use_queue` (vissl/losses/swav_loss.py:88).
    """
    return {
        f"{path}.{name}".lstrip("."): value.item() if isinstance(value, Tensor) else value
        for path, module in loss.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    }


def set_numbers(loss: nn.Module, numbers: Numbers) -> None:
    """Undo `numbers_of`."""
    for name, value in numbers.items():
        path, _, attribute = name.rpartition(".")
        setattr(loss.get_submodule(path), attribute, value)


def _count_anew(checkpoint: dict[str, Any], now: Layout, steps: int) -> None:
    """Count as this run does: VISSL finds its place in the epoch and in the schedules by these numbers."""
    done = (checkpoint["train_phase_idx"] + 1) * now.steps + steps
    checkpoint["iteration"] = done
    checkpoint["classy_state_dict"]["num_updates"] = done * now.batch * now.place.world


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    saved = model.state_dict()
    return {name: value for name, value in model.named_buffers() if name in saved}


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: _digest(value) for name, value in tensors.items()}


def _digest(value: Tensor) -> str:
    content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).hexdigest()


def _unlike(first: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is not bit for bit as on rank 0, by its digests; most is, and a checkpoint need not hold it twice."""
    return {name: value.detach().cpu() for name, value in tensors.items() if first.get(name) != _digest(value)}
