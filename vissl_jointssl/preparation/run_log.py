"""What a run says in the log when it is done."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vissl_jointssl.manifest import Manifest
from vissl_jointssl.preparation.cache.report import REPORT_FILE
from vissl_jointssl.preparation.cache.writing import Prepared
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Recipe, Source

_NOTES_SHOWN = 50
_log = logging.getLogger(__name__)


def log_notes(root: Path, done: Sequence[tuple[Source, Prepared]]) -> None:
    """Warn of what a person should know about the sources that are done, by path and id."""
    notes = [(source, note) for source, prepared in done for note in prepared.notes]
    for source, note in notes[:_NOTES_SHOWN]:
        _log.warning("%s (%s): %s", printable(root / source.path), source.id, note)
    if len(notes) > _NOTES_SHOWN:
        _log.warning("and %d more such notes, all in %s", len(notes) - _NOTES_SHOWN, REPORT_FILE)


def log_summary(recipe: Recipe, manifest: Manifest) -> None:
    """Count volumes, images and classes by split."""
    kinds = Counter((entry.split, entry.kind) for entry in manifest.entries)
    parts = [f"{count} {kind}{'s' if count > 1 else ''} in {split}" for (split, kind), count in sorted(kinds.items())]
    _log.info("%s: %s; %s", recipe.name, ", ".join(parts), printable(manifest.path))
    classes = Counter((entry.label, entry.split) for entry in manifest.entries if entry.label is not None)
    for (label, split), count in sorted(classes.items()):
        name = recipe.label_names[label] if label < len(recipe.label_names) else "unnamed"
        _log.info("%s: class %d (%s) has %d in %s", recipe.name, label, name, count, split)
