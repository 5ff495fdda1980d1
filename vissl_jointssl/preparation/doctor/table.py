"""What the doctor says to people: what there is, what is wrong with it by kind of fault, and whether to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from vissl_jointssl.manifest import SPLITS
from vissl_jointssl.preparation.doctor.checkup import RAW, Checkup
from vissl_jointssl.preparation.doctor.diagnosis import CODES, Diagnosis

_EXAMPLES = 5
_NEXT_STEPS = 3
_INDENT = " " * 4


def as_table(checkup: Checkup, name: str) -> str:
    """The report as lines, the verdict last.

    Args:
        checkup: What was found.
        name: Of the folder, as it was given.
    """
    lines = [f"{name}: {_counts(checkup)}"]
    lines += _section("ERRORS", checkup.errors)
    lines += _section("WARNINGS", checkup.warnings)
    lines += ["", *_quarantine_lines(checkup), verdict(checkup)]
    return "\n".join(lines) + "\n"


def verdict(checkup: Checkup) -> str:
    """One line: whether training may start, and otherwise what to do first."""
    if not checkup.errors:
        until = ", once `jointssl prepare` has prepared these" if checkup.form == RAW else ""
        return f"Training may start{until}.{_warned(len(checkup.warnings))}"
    held = f"{_number(len(checkup.errors), 'error')} in {_where(checkup)}"
    if checkup.form == RAW:
        next_step = "mend or remove these, or run `jointssl prepare --keep-going`, which leaves out what it cannot read"
    elif not any(one.id for one in checkup.errors):
        next_step = checkup.errors[0].next_step
    else:
        next_step = "delete these files and prepare again, or leave the rows out with `jointssl doctor --quarantine`"
    return f"Training may not start: {held}. Next: {next_step}."


def counts_by(values: Iterable[str | None]) -> dict[str, int]:
    """How often each value occurs, in order; what is not known is left out."""
    return dict(sorted(Counter(value for value in values if value).items()))


def _counts(checkup: Checkup) -> str:
    kinds = counts_by(one.kind for one in checkup.facts)
    held = ", ".join(_number(count, kind) for kind, count in kinds.items()) or "nothing that can be read"
    parts = [f"{checkup.form}, {held}"]
    modalities = counts_by(one.modality for one in checkup.facts)
    parts.append(", ".join(f"{count} {modality}" for modality, count in modalities.items()))
    splits = counts_by(one.split for one in checkup.facts)
    parts.append(", ".join(f"{splits[split]} {split}" for split in SPLITS if split in splits))
    labelled = sum(one.label_numbers is not None for one in checkup.facts)
    parts.append(f"{labelled} with label maps" if labelled else "")
    return "; ".join(part for part in parts if part)


def _section(title: str, diagnoses: Sequence[Diagnosis]) -> list[str]:
    groups: dict[str, list[Diagnosis]] = {}
    for one in diagnoses:
        groups.setdefault(one.code, []).append(one)
    lines = ["", title] if groups else []
    for code, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {code} ({len(group)}): {CODES[code]}")
        lines += [f"{_INDENT}{_named(one)}{one.reason}" for one in group[:_EXAMPLES]]
        if len(group) > _EXAMPLES:
            lines.append(f"{_INDENT}and {len(group) - _EXAMPLES} more (--json lists all)")
        steps = Counter(one.next_step for one in group).most_common(_NEXT_STEPS)
        lines += [f"{_INDENT}Next: {step}" for step, _ in steps]
    return lines


def _named(one: Diagnosis) -> str:
    name = one.path or one.id
    return f"{name}: " if name else ""


def _quarantine_lines(checkup: Checkup) -> list[str]:
    lines = []
    if checkup.changes is not None:
        changes = checkup.changes
        parts = [f"{len(changes.added)} added", f"{len(changes.removed)} removed", f"{len(changes.kept)} kept"]
        lines.append(f"quarantine.csv: {', '.join(parts)}.")
    if checkup.quarantined:
        codes = counts_by(one.code for one in checkup.diagnoses if one.id in checkup.quarantined)
        held = ", ".join(f"{count} {code}" for code, count in codes.items()) or "nothing wrong with them now"
        lines.append(f"In quarantine, and not read by training: {_number(len(checkup.quarantined), 'row')} ({held}).")
    return lines


def _where(checkup: Checkup) -> str:
    ids = {one.id for one in checkup.errors if one.id}
    if not ids:
        return "the set as a whole"
    word = "source" if checkup.form == RAW else "row"
    return f"{len(ids)} of {_number(len(checkup.subjects), word)}"


def _warned(count: int) -> str:
    return f" {_number(count, 'warning')} to look at." if count else ""


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
