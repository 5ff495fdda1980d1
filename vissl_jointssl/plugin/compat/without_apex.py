"""What stock configs ask NVIDIA apex for, done by PyTorch: LARC, mixed precision, synchronised batch norm.

29 stock YAMLs ask for AMP (whose default type is apex), 21 for LARC and 77 for apex's SyncBN. Each replacement says so
in one log line, because a run that does something else than its YAML says must not be silent about it.
"""

from __future__ import annotations

from classy_vision.optim import ClassyOptimizer, build_optimizer
from classy_vision.tasks.classification_task import AmpType
from torch import nn
from vissl.config import AttrDict
from vissl.models import convert_sync_bn
from vissl.trainer.train_task import SelfSupervisionTask

from vissl_jointssl.plugin.compat.bfloat16 import wants_bfloat16
from vissl_jointssl.plugin.compat.patching import announce, replace_everywhere

AMP_NOTICE = "AMP: apex is not needed; using PyTorch's (float16 autocast and gradient scaler)"
BFLOAT16_NOTICE = "AMP: the trunk works in bfloat16; heads, losses and weights stay in float32"
AMP_OFF_NOTICE = "AMP: off, because mixed precision needs a GPU and config.MACHINE.DEVICE=cpu"
SYNC_BN_NOTICE = "SyncBN: apex is not needed; using PyTorch's"
SYNC_BN_OFF_NOTICE = "SyncBN: off, because PyTorch's runs on GPUs only and config.MACHINE.DEVICE=cpu"

_vissl_build_model = SelfSupervisionTask._build_model
_vissl_convert_sync_bn = convert_sync_bn


def replace_larc() -> None:
    """``vissl/trainer/train_task.py:362`` refuses LARC without apex (by design); ours is in `fused_optimizers`."""
    SelfSupervisionTask._build_optimizer = _build_optimizer


def _build_optimizer(self: SelfSupervisionTask) -> ClassyOptimizer:
    """Build the optimizer that the config names, with no question about apex."""
    return build_optimizer(self.config["OPTIMIZER"])


def replace_amp() -> None:
    """``vissl/trainer/train_task.py:146`` wants apex for its default ``AMP_TYPE`` and a GPU for any (by design).

    Apex's type becomes PyTorch's. On CPU the run goes on in float32, so that a YAML written for GPUs can be tried.
    bfloat16 is the trunk's affair and works on both; see `compat.bfloat16`.
    """
    SelfSupervisionTask.set_amp_args = _set_amp_args


def _set_amp_args(self: SelfSupervisionTask) -> None:
    """Choose between PyTorch's mixed precision and none.

    Raises:
        ValueError: If the config names a type of mixed precision that VISSL does not have.
    """
    self.amp_args, self.amp_type = None, None
    params = self.config.MODEL.AMP_PARAMS
    if not params.USE_AMP:
        return
    if wants_bfloat16(self.config.MODEL):
        announce(BFLOAT16_NOTICE)
        return
    wanted = str(params.AMP_TYPE).upper()
    if wanted not in AmpType.__members__:
        raise ValueError(
            f"config.MODEL.AMP_PARAMS.AMP_TYPE={params.AMP_TYPE} is not one of apex, bfloat16, pytorch; "
            "set it to bfloat16, or to pytorch for float16"
        )
    if self.device.type != "cuda":
        announce(AMP_OFF_NOTICE)
        return
    if wanted == AmpType.APEX.name:
        announce(AMP_NOTICE)
    self.amp_type = AmpType.PYTORCH
    self._init_pytorch_grad_scaler()


def replace_sync_bn() -> None:
    """``vissl/models/model_helpers.py:180`` names ``apex``, which is undefined unless apex is installed (by design).

    PyTorch's layer computes the same statistics. On CPU ``train_task.py:462`` skips the conversion without a word;
    the word is added here.
    """
    SelfSupervisionTask._build_model = _build_model
    replace_everywhere(_vissl_convert_sync_bn, convert_to_pytorch_sync_bn)


def convert_to_pytorch_sync_bn(config: AttrDict, model: nn.Module) -> nn.Module:
    """Convert batch norm layers to PyTorch's synchronised ones, whichever kind the config names.

    Args:
        config: The run's config; ``SYNC_BN_TYPE`` becomes ``pytorch`` in it.
        model: The model before it is wrapped for distributed training.

    Returns:
        The model with its batch norm layers exchanged.
    """
    if config.MODEL.SYNC_BN_CONFIG["SYNC_BN_TYPE"] == "apex":
        config.MODEL.SYNC_BN_CONFIG["SYNC_BN_TYPE"] = "pytorch"
        announce(SYNC_BN_NOTICE)
    return _vissl_convert_sync_bn(config, model)


def _build_model(self: SelfSupervisionTask) -> nn.Module:
    """VISSL's own, and a line when it leaves SyncBN out."""
    if self.config.MODEL.SYNC_BN_CONFIG.CONVERT_BN_TO_SYNC_BN and self.device.type != "cuda":
        announce(SYNC_BN_OFF_NOTICE)
    return _vissl_build_model(self)
