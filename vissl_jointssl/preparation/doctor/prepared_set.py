"""A prepared folder as a whole: whether there is something to train on, and what preparation had to say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vissl_jointssl.manifest import Entry
from vissl_jointssl.preparation.cache.report import REPORT_FILE
from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis, Fault, error, of_whole_set, warning
from vissl_jointssl.preparation.doctor.facts import Facts


def split_diagnoses(entries: Sequence[Entry], facts: Sequence[Facts]) -> list[Diagnosis]:
    """Faults of the rows together.

    Args:
        entries: Rows that training would read, so without those in quarantine.
        facts: What is known of them.
    """
    counts = Counter(entry.split for entry in entries)
    faults: list[Fault] = []
    if not counts["train"]:
        held = ", ".join(f"{count} in {split}" for split, count in sorted(counts.items())) or "none at all"
        reason = f"no row is in train; rows: {held}"
        faults.append(error("splits", reason, "prepare more scans, or with smaller shares for validation and test"))
    else:
        faults += _unseen("class", [(entry.split, {entry.label}) for entry in entries if entry.label is not None])
        numbers = [(one.split or "", set(one.label_numbers or ())) for one in facts if one.kind == "volume"]
        faults += _unseen("label number", numbers)  # of images they may count instances, and mean nothing
    channels = Counter(one.channels for one in facts if one.kind == "volume")
    if len(channels) > 1:
        held = ", ".join(f"{count} of {number}" for number, count in sorted(channels.items()))
        reason = f"volumes have different numbers of channels ({held}), and cannot be trained on together with all"
        faults.append(warning("channels", reason, "train on one of the channels, or keep the kinds in two folders"))
    return of_whole_set(faults)


def report_diagnoses(folder: Path) -> list[Diagnosis]:
    """What `report.json`, which preparation leaves, says about scans that were left out and about the others."""
    path = folder / REPORT_FILE
    if not path.exists():
        return []
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        left_out = [_left_out(item) for item in report.get("left_out", [])]
        return left_out + _notes(report.get("notes", {}))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return of_whole_set([warning("manifest", f"{REPORT_FILE} cannot be understood", "prepare the folder again")])


def _left_out(item: Mapping[str, Any]) -> Diagnosis:
    reason = f"{item['reason']} ({item['code']})"
    return warning("left_out", reason, str(item["next_step"])).about(str(item["id"]), "")


def _notes(notes: Mapping[str, Iterable[str]]) -> list[Diagnosis]:
    found = []
    for id, lines in sorted(notes.items()):
        for line in [lines] if isinstance(lines, str) else lines:
            found.append(warning("note", str(line), "look at it; leave it out if that matters to you").about(id, ""))
    return found


def _unseen(what: str, held: Sequence[tuple[str, set[int]]]) -> list[Fault]:
    """Numbers that validation or test has and training has not, where training has any."""
    seen = set().union(*(numbers for split, numbers in held if split == "train"))
    faults = []
    for split in ("val", "test"):
        unseen = set().union(*(numbers for where, numbers in held if where == split)) - seen
        if seen and unseen:
            numbers = ", ".join(str(number) for number in sorted(unseen)[:10]) + (" ..." if len(unseen) > 10 else "")
            reason = f"{what} {numbers} is in {split} and never in train"
            faults.append(warning("splits", reason, "prepare with other shares or another --seed, or drop the class"))
    return faults
