"""A page of slices, one of each scan, so that a person sees in a minute what no number says."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vissl_jointssl.preparation.doctor.thumbnails import SIDE, Thumbnail

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

MOST = 48  # slices on a page
_COLUMNS = 8
_GAP, _LINE, _FRAME = 8, 15, 3  # pixels
_PAPER, _BLANK, _TEXT, _FAINT = (24, 24, 24), (48, 48, 48), (240, 240, 240), (165, 165, 165)
_RED, _ORANGE = (255, 92, 80), (255, 190, 90)
# Okabe and Ito's colours, which stay apart under common colour blindness and on grey; red is kept for faults.
_COLOURS = ((86, 180, 233), (240, 228, 66), (0, 190, 140), (230, 159, 0), (204, 121, 167), (120, 150, 255))


@dataclass(frozen=True)
class Tile:
    """What stands in one place of the page.

    Attributes:
        thumbnail: The slice, or None where nothing can be shown.
        name: Id of a row, name of a raw file.
        facts: Modality, shape and voxel size.
        fault: Codes of its faults, or empty.
        faulty: Whether one of them is an error: framed red. Warnings are only written, in orange.
    """

    thumbnail: Thumbnail | None
    name: str
    facts: str
    fault: str
    faulty: bool


def choose(count: int, faulty: Collection[int], most: int = MOST, seed: int = 0) -> list[int]:
    """Which of `count` scans to show, in order: a third of the page for faulty ones, the rest drawn evenly.

    One is drawn from each of as many equal parts of the list as there are places, so that neighbours, which are often
    of one patient or scanner, do not fill the page.
    """
    if count <= most:
        return list(range(count))
    rng = np.random.default_rng(seed)
    shown = _spread(sorted(faulty), max(1, most // 3), rng)
    others = sorted(set(range(count)) - set(shown))
    return sorted([*shown, *_spread(others, most - len(shown), rng)])


def contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """The page as the bytes of a PNG file, which hold nothing but pixels."""
    from PIL import Image
    from PIL.ImageDraw import Draw
    from PIL.ImageFont import load_default

    columns = min(_COLUMNS, max(1, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    width, height = SIDE + _GAP, SIDE + _GAP + 3 * _LINE
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    draw = Draw(page)
    font = load_default(11)
    for number, tile in enumerate(tiles):
        left, top = _GAP + (number % columns) * width, _GAP + (number // columns) * height
        draw.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), fill=(0, 0, 0) if tile.thumbnail else _BLANK)
        if tile.thumbnail is not None:
            picture = Image.fromarray(_drawn(tile.thumbnail))
            page.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        if tile.faulty:
            box = (left - _FRAME, top - _FRAME, left + SIDE - 1 + _FRAME, top + SIDE - 1 + _FRAME)
            draw.rectangle(box, outline=_RED, width=_FRAME)
        _write(draw, font, tile, (left, top + SIDE + 4))
    stream = io.BytesIO()
    page.save(stream, format="PNG")
    return stream.getvalue()


def _write(draw: ImageDraw, font: FreeTypeFont | ImageFont, tile: Tile, corner: tuple[int, int]) -> None:
    lines = ((tile.name, _TEXT), (tile.facts, _FAINT), (tile.fault, _RED if tile.faulty else _ORANGE))
    for line, (text, colour) in enumerate(lines):
        draw.text((corner[0], corner[1] + line * _LINE), _shortened(text, font), fill=colour, font=font)


def _drawn(thumbnail: Thumbnail) -> np.ndarray:
    """`(h, w, 3)`: the slice with the borders of its labels."""
    grey = thumbnail.pixels
    pixels = np.repeat(grey[..., None], 3, axis=2) if grey.ndim == 2 else grey.copy()
    if thumbnail.labels is None:
        return pixels
    border = _borders(thumbnail.labels)
    colours = np.array(_COLOURS, np.uint8)[(thumbnail.labels - 1) % len(_COLOURS)]
    pixels[border] = colours[border]
    return pixels


def _borders(labels: np.ndarray) -> np.ndarray:
    """Labelled pixels beside a pixel of another number, or at the edge of the picture."""
    around = np.pad(labels, 1)
    neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    return (labels != 0) & np.logical_or.reduce([labels != beside for beside in neighbours])


def _spread(numbers: Sequence[int], most: int, rng: np.random.Generator) -> list[int]:
    """At most `most` of them, one from each equal part."""
    if len(numbers) <= most:
        return list(numbers)
    parts = itertools.pairwise(int(edge) for edge in np.linspace(0, len(numbers), most + 1))
    return [numbers[int(rng.integers(low, high))] for low, high in parts]


def _shortened(text: str, font: FreeTypeFont | ImageFont) -> str:
    """What fits below a slice; the middle goes, as names differ at their ends."""
    kept = len(text)
    short = text
    while font.getlength(short) > SIDE and kept > 1:
        kept -= 1
        short = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    return short
