"""VISSL 0.1.6 on current Python, PyTorch, NumPy and Hydra, without editing a file of it.

One function per break, one file per concern; each says which VISSL file and line broke, since when, and what replaces
it. VISSL is archived at 0.1.6, so the line numbers stay true and the version is checked. ``classy_vision`` is meant
wherever a path starts with ``CV/``: VISSL's wheel carries it.
"""

from __future__ import annotations

import functools
import warnings
from importlib import metadata

VISSL_VERSION = "0.1.6"

# What VISSL's own imports warn about on a current stack; nothing a user of it can act on.
_IMPORT_WARNINGS = (
    "pkg_resources is deprecated",
    "The 'torchvision.transforms._functional_video' module is deprecated",
    "The 'torchvision.transforms._transforms_video' module is deprecated",
)


def check_vissl() -> None:
    """Refuse to go on without the one VISSL version that the replacements were written for.

    Raises:
        ImportError: If VISSL is missing, or is another version than 0.1.6.
    """
    try:
        found = metadata.version("vissl")
    except metadata.PackageNotFoundError:
        raise ImportError(
            f"vissl_jointssl.plugin needs VISSL {VISSL_VERSION}: install it with "
            f"`pip install --no-deps -r requirements.lock.txt`, or alone with `pip install --no-deps "
            f"vissl=={VISSL_VERSION}`."
        ) from None
    if found != VISSL_VERSION:
        raise ImportError(
            f"VISSL {found} is installed, but vissl_jointssl replaces parts of {VISSL_VERSION} line by line; "
            f"install it with `pip install --no-deps vissl=={VISSL_VERSION}`."
        )


@functools.cache
def install() -> None:
    """Make VISSL importable and runnable in this process; a second call does nothing.

    Every process needs it before its first ``import vissl``: the launcher, spawned ranks and data loader workers.
    Importing ``vissl_jointssl.plugin`` calls it, and what those processes unpickle lives in that package.

    Raises:
        ImportError: If VISSL is missing, or is another version than 0.1.6.
    """
    check_vissl()
    with warnings.catch_warnings():
        for message in _IMPORT_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        from vissl_jointssl.plugin.compat import old_names

        old_names.restore_kinetics400()

        # These import VISSL, so they come after the one repair without which it cannot be imported.
        from vissl_jointssl.plugin import extraction
        from vissl_jointssl.plugin.compat import (
            bfloat16,
            checkpoint_writing,
            checkpoints,
            data_files,
            deepclusterv2,
            fused_optimizers,
            hooks,
            launching,
            loader,
            memory_layout,
            resume,
            skipped_steps,
            swav_momentum,
            without_apex,
        )

        old_names.restore_numpy_names()
        without_apex.replace_larc()
        fused_optimizers.replace_optimizers()
        without_apex.replace_amp()
        bfloat16.add_bfloat16()
        without_apex.replace_sync_bn()
        memory_layout.replace_build_model()
        deepclusterv2.replace_memory()
        deepclusterv2.rebuild_memory_on_resume()
        swav_momentum.replace_momentum_network()
        checkpoint_writing.replace_checkpoint_writer()
        checkpoints.replace_broadcast_object()
        checkpoints.replace_load_checkpoint()
        checkpoints.replace_cluster_assignment_loader()
        checkpoints.keep_the_cause_of_a_failed_resume()
        hooks.replace_gradient_clipping()
        hooks.replace_nan_output_check()
        skipped_steps.replace_get_train_step()
        data_files.replace_get_data_files()
        resume.give_each_rank_its_own_loss()
        resume.seed_every_sample()
        resume.resume_within_an_epoch()
        loader.replace_data_loader()
        launching.replace_launch_distributed()
        launching.preload_plugin_in_workers()
        extraction.replace_gpu_only_extraction()
