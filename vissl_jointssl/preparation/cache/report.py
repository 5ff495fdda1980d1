"""`report.json`: what a run prepared, what it left out and why, and what to know about the rest.

It lies beside the manifest and travels with it, so it names sources by their ids alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest import Entry
from vissl_jointssl.preparation.errors import ReadError, printable
from vissl_jointssl.preparation.recipe import Recipe, Source

REPORT_FILE = "report.json"


def write_report(
    path: Path,
    recipe: Recipe,
    entries: Sequence[Entry],
    left_out: Mapping[str, ReadError],
    notes: Mapping[str, Sequence[str]],
) -> None:
    """Write the report, unless it is there already.

    Args:
        path: Of the report.
        recipe: What was prepared.
        entries: Rows of the manifest.
        left_out: Faults by source id.
        notes: By source id.
    """
    sources = {source.id: source for source in recipe.sources}
    splits = Counter(f"{entry.kind}s in {entry.split}" for entry in entries)
    content: dict[str, Any] = {
        "recipe": recipe.name,
        "options": asdict(recipe.options),
        "validation_share": recipe.validation_share,
        "test_share": recipe.test_share,
        "seed": recipe.seed,
        "counts": {"sources": len(sources), "left_out": len(left_out), "rows": len(entries), **sorted_counts(splits)},
        "left_out": [
            {
                "id": id,
                "code": error.code,
                "reason": without_names(error.reason, sources[id], Path(recipe.root)),
                "next_step": without_names(error.next_step, sources[id], Path(recipe.root)),
            }
            for id, error in left_out.items()
        ],
        "notes": {
            id: [without_names(note, sources[id], Path(recipe.root)) for note in some]
            for id, some in notes.items()
            if some
        },
    }
    data = (json.dumps(content, indent=1) + "\n").encode()
    if not (path.is_file() and path.read_bytes() == data):
        write_at_once(data, path)


def sorted_counts(counts: Counter[str]) -> dict[str, int]:
    """In order of name, for a report that is the same on every run."""
    return dict(sorted(counts.items()))


def without_names(text: str, source: Source, root: Path) -> str:
    """Words for a report, in which the names of a source's files and of the folders above them are left out."""
    names: set[str] = set()
    for relative in source.inputs:
        path = root / relative
        inner = [file.name for file in path.iterdir()] if path.is_dir() else []
        for name in (str(path), relative, *Path(relative).parts, *inner):
            names |= {name, printable(name)}
    for name in sorted(names - {"", ".", "..", "/"}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "(file)", text)
    return text
