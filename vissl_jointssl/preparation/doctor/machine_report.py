"""What the doctor says to machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vissl_jointssl.preparation.doctor.checkup import Checkup
from vissl_jointssl.preparation.doctor.table import counts_by, verdict

VERSION = 1


def as_json(checkup: Checkup, name: str) -> dict[str, Any]:
    """The report for `json.dumps`; keys are added, never renamed, without another version.

    ::

        {
          "version": 1,
          "folder": "as it was given",
          "form": "raw" | "prepared",
          "training_may_start": true,          # no error outside quarantine
          "verdict": "one line for people",
          "counts": {
            "subjects": 200,                   # sources, or rows with those in quarantine
            "errors": 0, "warnings": 2,        # outside quarantine
            "by_kind": {"volume": 200},        # of what could be read
            "by_modality": {"MR": 200},
            "by_split": {"train": 180, ...},   # empty while no split is fixed
            "by_code": {"spacing": 2}          # outside quarantine
          },
          "quarantined": ["id", ...],
          "diagnoses": [                       # all of them, errors first
            {"id": "...", "path": "...", "code": "...", "severity": "error" | "warning",
             "reason": "...", "next_step": "...", "quarantined": false}
          ]
        }

    `id` and `path` are empty where the set as a whole is meant. Codes are those of `diagnosis.CODES`.
    """
    return {
        "version": VERSION,
        "folder": name,
        "form": checkup.form,
        "training_may_start": not checkup.errors,
        "verdict": verdict(checkup),
        "counts": {
            "subjects": len(checkup.subjects),
            "errors": len(checkup.errors),
            "warnings": len(checkup.warnings),
            "by_kind": counts_by(one.kind for one in checkup.facts),
            "by_modality": counts_by(one.modality for one in checkup.facts),
            "by_split": counts_by(one.split for one in checkup.facts),
            "by_code": counts_by(one.code for one in checkup.standing),
        },
        "quarantined": sorted(checkup.quarantined),
        "diagnoses": [asdict(one) | {"quarantined": one.id in checkup.quarantined} for one in checkup.diagnoses],
    }
