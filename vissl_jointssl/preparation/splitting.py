"""Which patient trains and which tests: by a hash, so that adding patients later moves nobody."""

from __future__ import annotations

import hashlib


def hash_patient(name: str) -> str:
    """An opaque stand-in for a patient's or folder's name: 12 hex digits of its sha256.

    It hides the name from a reader, not from one who can guess names and hash them too.
    """
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def split_of(patient: str, validation_share: float, test_share: float, seed: int = 0) -> str:
    """Draw "train", "val" or "test" for a hashed patient, the same whoever else is in the set.

    The patient's and the seed's hash is a number in [0, 1): the lowest `test_share` of them test, the next
    `validation_share` validate. Shares are therefore met on average, not to the patient.

    Raises:
        ValueError: If the shares are not in [0, 1) or leave nothing to train on.
    """
    if min(validation_share, test_share) < 0 or not validation_share + test_share < 1:
        raise ValueError(
            f"validation share {validation_share} and test share {test_share}: expected two numbers from 0 whose sum "
            "is below 1, such as 0.1 and 0.2"
        )
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + validation_share else "train"
