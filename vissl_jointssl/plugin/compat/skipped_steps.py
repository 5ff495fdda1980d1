"""Training steps that may be skipped, whatever their name in VISSL's registry."""

from __future__ import annotations

from vissl.trainer import train_steps

from vissl_jointssl.plugin.compat.patching import replace_everywhere
from vissl_jointssl.plugin.skipping import TrainStep, skippable

_vissl_get_train_step = train_steps.get_train_step


def replace_get_train_step() -> None:
    """``vissl/trainer/trainer_main.py:160`` gives hooks no way to end a step but to end the run (by design)."""
    replace_everywhere(_vissl_get_train_step, get_train_step)


def get_train_step(train_step_name: str) -> TrainStep:
    """The step registered under a name, skippable; without a hook that skips, it is the step itself."""
    return skippable(_vissl_get_train_step(train_step_name))
