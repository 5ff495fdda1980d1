"""How raw intensities became the network's [0, 1]: the options of the preparation that training read.

Preparation leaves them in ``report.json`` beside its manifest. They are believed only where the manifest is still the
one of the training run, by its fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vissl_jointssl.manifest import ManifestError, read_manifest

REPORT_FILE = "report.json"  # preparation/report.py writes it; rooms do not import each other
KEYS = ("ct_window", "percentiles", "stored_type", "slice_axis", "spacing", "image_form")
"""Options that decide what a grey value means and how a slice lies."""


def intensity_recipe(manifests: Sequence[str], fingerprint: str | None) -> list[dict[str, Any]] | None:
    """The options by which each training manifest was prepared; None where that cannot be known.

    Args:
        manifests: Paths as the training run was told them, relative to the working folder then.
        fingerprint: What the stage record holds: the manifests' fingerprints joined by ``+``.
    """
    folders = [Path(one).parent for one in manifests]
    if not folders or fingerprint is None or not all((folder / REPORT_FILE).is_file() for folder in folders):
        return None
    try:
        found = "+".join(read_manifest(one).fingerprint() for one in manifests)
        reports = [json.loads((folder / REPORT_FILE).read_text(encoding="utf-8")) for folder in folders]
        if found != fingerprint:
            return None
        return [{"recipe": report["recipe"], **{key: report["options"].get(key) for key in KEYS}} for report in reports]
    except (ManifestError, OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        # A card may say "unknown"; data that is gone or changed since training is no reason to hold the weights back.
        return None
