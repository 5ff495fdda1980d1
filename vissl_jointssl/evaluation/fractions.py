"""A share of the labelled patients, of which every smaller share is a part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from vissl_jointssl.manifest import Entry


def nested_subset(entries: Sequence[Entry], fraction: float, seed: int) -> tuple[Entry, ...]:
    """Rows of the first `ceil(fraction * patients)` patients in an order that the seed draws.

    The order is by a hash of seed and patient, so that a larger fraction only adds patients, and patients that join the
    set later change nothing in the order of the others. A patient has all of its rows or none.

    Args:
        entries: Labelled rows.
        fraction: Above 0, up to 1.
        seed: Of the order.

    Returns:
        In the order of the given rows; at least one patient's.

    Raises:
        ValueError: If the fraction is out of its limits.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction of labels is {fraction}, expected above 0 and up to 1")
    patients = sorted({entry.patient for entry in entries}, key=lambda patient: _position(seed, patient))
    chosen = set(patients[: math.ceil(round(fraction * len(patients), 9))])
    return tuple(entry for entry in entries if entry.patient in chosen)


def _position(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()
