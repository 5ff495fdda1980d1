"""Which stage came from which checkpoint: checked at the start, written into every checkpoint, held to the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from torch import Tensor, nn

from vissl_jointssl.checkpoints import CheckpointError, StageRecord, read_checkpoint


class StagedTrainingHook(ClassyHook):
    """Watches over one stage of the recipe.

    * At the start, every weight that the parent checkpoint holds must be in the model, bit for bit (VISSL only logs
      what it does not find), and an account of it is logged.
    * After each epoch, what the stage keeps frozen must not have moved, neither weights nor BatchNorm statistics.
    * `state.record` lies in every checkpoint, under `classy_state_dict.hooks.StagedTrainingHook.record`; a resumed run
      must be the stage that wrote it.

    Freezing itself happens when the trunk is built: on_start comes after VISSL has made parameter groups and DDP.

    Args:
        record: What this stage is, as `plugin.config` found it.
        parent: Checkpoint that the run starts from, or None.
    """

    on_phase_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_step = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self, record: StageRecord, parent: Path | None) -> None:
        super().__init__()
        self.state.record = record.to_dict()
        self._record = record
        self._parent = parent
        self._frozen: dict[str, Tensor] = {}

    def on_start(self, task: Any) -> None:
        """Check the hand-over, or the resumed checkpoint, and remember what is frozen."""
        if task.checkpoint is not None:
            self._check_resumed(task)
        elif self._parent is not None and is_primary():
            self._check_hand_over(task.base_model.trunk)
        self._frozen = frozen_state(task.base_model.trunk)
        if self._frozen and is_primary():
            logging.info(f"stage {self._record.stage}: {len(self._frozen)} tensors of f_intra are frozen")

    def on_phase_end(self, task: Any) -> None:
        """Prove that the frozen part stayed where it was."""
        now = task.base_model.trunk.state_dict()
        moved = [name for name, before in self._frozen.items() if not torch.equal(now[name], before)]
        if moved:
            raise RuntimeError(
                f"stage {self._record.stage} moved {len(moved)} frozen tensors, first {moved[0]}; "
                "do not use its checkpoints, and report which option trained them"
            )

    def _check_hand_over(self, trunk: nn.Module) -> None:
        assert self._parent is not None  # the caller asked
        theirs = read_checkpoint(self._parent).trunk
        ours = trunk.state_dict()
        lost = [name for name, value in theirs.items() if name in ours and not torch.equal(ours[name].cpu(), value)]
        # Counters of BatchNorm do not matter for a fixed momentum, and VISSL skips them by default.
        lost = [name for name in lost if not name.endswith("num_batches_tracked")]
        if lost:
            raise CheckpointError(
                f"{self._parent}: {len(lost)} weights did not arrive in the model, first {lost[0]}; "
                "check config.MODEL.WEIGHTS_INIT.SKIP_LAYERS"
            )
        fresh = [name for name in ours if name not in theirs]
        dropped = [name for name in theirs if name not in ours]
        logging.info(
            f"stage {self._record.stage} starts from {self._parent}: {len(ours) - len(fresh)} tensors taken over, "
            f"{len(fresh)} new ({_summary(fresh)}), {len(dropped)} left behind ({_summary(dropped)})"
        )

    def _check_resumed(self, task: Any) -> None:
        hooks = task.checkpoint["classy_state_dict"]["hooks"]
        written = hooks.get(type(self).__name__, {}).get("record")
        if written is None:
            raise CheckpointError(
                f"{task.checkpoint_path}: this run would resume from a checkpoint that no stage of ours wrote; "
                "choose an empty config.CHECKPOINT.DIR"
            )
        before = StageRecord.from_dict(written)
        if (before.stage, before.flavour) != (self._record.stage, self._record.flavour):
            raise CheckpointError(
                f"{task.checkpoint_path}: written by stage {before.stage} ({before.flavour}), but this run is stage "
                f"{self._record.stage} ({self._record.flavour}); give each stage its own config.CHECKPOINT.DIR"
            )
        if before.manifest != self._record.manifest:
            logging.warning(
                f"{task.checkpoint_path}: the manifest has changed since this checkpoint was written; "
                "the resumed epochs see other data"
            )
        # The parent is the first run's: a resumed run takes no weights from PARAMS_FILE.
        self.state.record = written


def frozen_state(trunk: nn.Module) -> dict[str, Tensor]:
    """Copies of every parameter that does not train, and of the buffers of modules that only hold such parameters."""
    names = {name for name, parameter in trunk.named_parameters() if not parameter.requires_grad}
    for prefix, module in trunk.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            names |= {f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)}
    state = trunk.state_dict()
    return {name: state[name].clone() for name in sorted(names)}


def _summary(names: list[str]) -> str:
    return ", ".join(sorted({name.split(".")[0] for name in names})) or "none"
