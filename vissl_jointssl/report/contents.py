"""What a report consists of, as plain data: whoever ran the stages fills it in, ``page.py`` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vissl_jointssl.spelling import nearest

SECTIONS = {
    "curves": "Losses",
    "collapse": "Collapse",
    "views": "Views",
    "neighbours": "Nearest neighbours",
    "linear_evaluation": "Linear evaluation",
    "export": "Export",
}

Cell = str | int | float | None


@dataclass(frozen=True)
class StageSummary:
    """One row of the table of what ran.

    Attributes:
        name: Such as "1, slices".
        config: Name of its configuration, such as ``jointssl/stage1_swav``.
        epochs: Epochs trained.
        first_loss: Loss of the first logged iteration; None where there is no loss.
        last_loss: Loss of the last logged iteration.
        seconds: Wall time over all resumed runs.
        note: Anything a reader must know, such as "resumed once".
    """

    name: str
    config: str
    epochs: int | None
    first_loss: float | None
    last_loss: float | None
    seconds: float | None
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture of one section.

    Attributes:
        section: Key of ``SECTIONS``.
        png: The picture's file.
        alt: What a reader who cannot see it should know.
        caption: What to look at in it.
    """

    section: str
    png: bytes
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        _check_section(self.section)
        if not self.png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(
                f"figure {self.alt!r} begins with {self.png[:8]!r}, which is no PNG; pass the bytes of one"
            )


@dataclass(frozen=True)
class Table:
    """A table of one section; numbers are aligned right, None is an empty cell.

    Attributes:
        section: Key of ``SECTIONS``.
        columns: Headings.
        rows: Cells, as many in each row as there are headings.
        caption: What the table shows.
    """

    section: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        _check_section(self.section)
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of table {self.caption!r} has {len(row)} cells for {len(self.columns)} columns; "
                    "give one for each, None where there is nothing"
                )


@dataclass(frozen=True)
class RunReport:
    """Everything on the page.

    Attributes:
        title: Heading of the page.
        lead: One or two sentences on what was run and what came out.
        stages: What ran, in order.
        figures: Pictures, drawn in their section in the order given.
        tables: Tables, drawn in their section before its figures.
        environment: Name -> value: versions, machine, commit.
        commands: Shell lines that reproduce the run.
        warnings: Sentences shown first, such as what could not be read in a log.
    """

    title: str
    lead: str = ""
    stages: Sequence[StageSummary] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    warnings: Sequence[str] = ()


def _check_section(name: str) -> None:
    if name not in SECTIONS:
        raise ValueError(f"unknown report section {name!r}{nearest(name, SECTIONS)}")
