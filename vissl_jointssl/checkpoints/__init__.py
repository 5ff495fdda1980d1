"""The checkpoint door: what one stage hands to the next, and what training hands to export and evaluation.

VISSL's training checkpoint is a nested dictionary; this door reads it without VISSL, never runs code found in a
file, and refuses a hand-over between stages that would be silently wrong.

Trunk names are VISSL's own, without the prefix that its feature extractor adds: ``_feature_blocks.conv1.weight``,
``_feature_blocks.layer1.0.conv1.weight``; and ours: ``slice_projection.*``, ``volume_encoder.*``, ``mask_token``.
"""

from vissl_jointssl.checkpoints.finding import is_finished, newest_checkpoint
from vissl_jointssl.checkpoints.handing_over import absent_weights, hand_over
from vissl_jointssl.checkpoints.integrity import damage
from vissl_jointssl.checkpoints.keeping import checkpoint_to_resume
from vissl_jointssl.checkpoints.loading import DamagedFileError, first_line, load_plain
from vissl_jointssl.checkpoints.reading import (
    RECORD_HOOK,
    SLICE_ENCODER_PREFIX,
    SLICE_PROJECTION,
    VOLUME_ENCODER_PREFIX,
    Checkpoint,
    load_content,
    read_checkpoint,
    sha256,
)
from vissl_jointssl.checkpoints.record import CheckpointError, StageRecord
from vissl_jointssl.checkpoints.writing import (
    LINK_NAME,
    CheckpointWriteError,
    point_link,
    save_atomically,
    save_checkpoint,
)

__all__ = [
    "LINK_NAME",
    "RECORD_HOOK",
    "SLICE_ENCODER_PREFIX",
    "SLICE_PROJECTION",
    "VOLUME_ENCODER_PREFIX",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWriteError",
    "DamagedFileError",
    "StageRecord",
    "absent_weights",
    "checkpoint_to_resume",
    "damage",
    "first_line",
    "hand_over",
    "is_finished",
    "load_content",
    "load_plain",
    "newest_checkpoint",
    "point_link",
    "read_checkpoint",
    "save_atomically",
    "save_checkpoint",
    "sha256",
]
