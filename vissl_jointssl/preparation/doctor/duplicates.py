"""The same voxels under two names: counted twice in training, or learnt in training and tested on."""

from __future__ import annotations

from collections.abc import Sequence

from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis, error, warning
from vissl_jointssl.preparation.doctor.facts import Facts

_KEPT_FIRST = {"test": 0, "val": 1, "train": 2, None: 3}


def duplicate_diagnoses(facts: Sequence[Facts]) -> list[Diagnosis]:
    """Compare scans by the digest of their voxels.

    Of scans that are the same, one is the original: that of the test split before validation before training, so
    that a test set stays what it was published as. An error for a copy in another split than the original, a
    warning for the others. Scans of one value are passed over: they are all the same, and faulty already.
    """
    by_digest: dict[str, list[Facts]] = {}
    for one in facts:
        if one.values.low < one.values.high:
            by_digest.setdefault(one.digest, []).append(one)
    found = []
    for same in by_digest.values():
        first, *copies = sorted(same, key=lambda one: _KEPT_FIRST[one.split])
        for copy in copies:
            fault = warning("duplicate", f"has the same voxels as {first.path}", "keep one of the two")
            if first.split and copy.split and first.split != copy.split:
                reason = f"in {copy.split}, has the same voxels as {first.path} in {first.split}: a leak between splits"
                fault = error("duplicate", reason, f"take it out of {copy.split}")
            elif first.patient != copy.patient:
                reason = f"has the same voxels as {first.path}, which counts as another patient"
                next_step = "keep one of the two, or they may end in two splits"
                fault = warning("duplicate", reason, next_step if first.split is None else "keep one of the two")
            found.append(fault.about(copy.id, copy.path))
    return found
