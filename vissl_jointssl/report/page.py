"""The HTML page of a run: one file without scripts, links or anything to load, so that it can be mailed and kept."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.report.contents import SECTIONS, Cell, RunReport, StageSummary

# The browser enforces it too: nothing but the page's own style and embedded pictures.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --text: #1d2125; --soft: #57606a; --line: #d8dee4; --back: #fff; --raised: #f6f8fa;
  --warn: #8a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ec; --soft: #a3abb3; --line: #3a4149; --back: #15181c; --raised: #1f242a; --warn: #f0b35a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
.lead { color: var(--soft); margin: 0; max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption, figcaption { color: var(--soft); font-size: .9rem; text-align: left; padding: 0 0 .5rem; max-width: 46rem; }
figcaption { padding: .5rem 0 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
th[scope=row] { font-weight: 500; color: var(--text); }
.number { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0 1.75rem; }
/* Figures are drawn on white; a frame keeps them calm on a dark page. */
img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px;
  padding: .6rem; }
.wide + figure { margin-top: 1.75rem; }
.warnings { margin: 1.25rem 0 0; padding: .7rem 1rem .7rem 2rem; border-left: 4px solid var(--warn);
  background: var(--raised); }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--soft); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .86rem; }
pre { overflow-x: auto; padding: .9rem 1rem; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def write_report(report: RunReport, path: Path | str) -> None:
    """Write the page; a reader sees the old one or the new one, never half of one."""
    write_at_once(render(report).encode("utf-8"), path)


def render(report: RunReport) -> str:
    """The page as HTML text. Every text given is escaped; sections without content are left out."""
    parts: list[str] = []
    if report.stages:
        parts += ["<h2>What ran</h2>", _stages(report.stages)]
    for key, heading in SECTIONS.items():
        content = [
            to_table(table.columns, table.rows, table.caption) for table in report.tables if table.section == key
        ]
        content += [
            picture(figure.png, figure.alt, figure.caption) for figure in report.figures if figure.section == key
        ]
        if content:
            parts += [f'<h2 id="{key}">{heading}</h2>', *content]
    if report.environment:
        parts += ["<h2>Environment</h2>", to_table(("what", "value"), list(report.environment.items()))]
    if report.commands:
        lines = escape("\n".join(report.commands))
        parts += ["<h2>Reproduce</h2>", f"<pre><code>{lines}</code></pre>"]
    return document(report.title, parts, lead=report.lead, warnings=report.warnings)


def document(title: str, parts: Sequence[str], *, lead: str = "", warnings: Sequence[str] = ()) -> str:
    """A whole page; `parts` are HTML as they are, everything else is escaped."""
    opening = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
    ]
    if lead:
        opening.append(f'<p class="lead">{escape(lead)}</p>')
    if warnings:
        opening.append(notes(warnings))
    return "\n".join([*opening, *parts, "</body>", "</html>", ""])


def notes(sentences: Sequence[str]) -> str:
    """What a reader must know, set apart."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="warnings" role="note">{items}</ul>'


def folded(summary: str, parts: Sequence[str]) -> str:
    """HTML behind a line to be opened."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``3 min 07 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _stages(stages: Sequence[StageSummary]) -> str:
    rows: list[list[Cell]] = []
    for stage in stages:
        time = None if stage.seconds is None else duration(stage.seconds)
        rows.append(
            [stage.name, stage.config, stage.epochs, stage.first_loss, stage.last_loss, time, stage.note or None]
        )
    columns = ["stage", "config", "epochs", "first loss", "last loss", "wall time", "note"]
    if all(stage.note == "" for stage in stages):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return to_table(columns, rows)


def to_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """A table of escaped cells; the first column is the heading of its row, columns of numbers are aligned right."""
    numeric = [
        any(isinstance(row[place], int | float) for row in rows)
        and all(row[place] is None or isinstance(row[place], int | float) for row in rows)
        for place in range(len(columns))
    ]
    headings = "".join(
        f'<th scope="col"{_align(right)}>{escape(column)}</th>' for column, right in zip(columns, numeric, strict=True)
    )
    body = []
    for row in rows:
        first, *rest = (f"{_align(right)}>{escape(_text(cell))}" for cell, right in zip(row, numeric, strict=True))
        body.append(f'<tr><th scope="row"{first}</th>' + "".join(f"<td{cell}</td>" for cell in rest) + "</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    content = f"{title}<thead><tr>{headings}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="wide"><table>{content}</table></div>'


def _align(right: bool) -> str:
    return ' class="number"' if right else ""


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def picture(png: bytes, alt: str, caption: str = "") -> str:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode("ascii")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">{below}</figure>'
