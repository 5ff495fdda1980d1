"""JSON, XML and numbers that somebody else wrote: read as data, within limits, and nothing in them is expanded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from vissl_jointssl.preparation.errors import PreparationError, printable

_LARGEST = {"JSON": 2**30, "XML": 2**24}  # bytes; COCO's own largest has 450 million


class _Declared(ValueError):
    """A document type, which may declare entities: one that stands for ten of another fills any memory."""


def parse_json(path: Path) -> Any:
    """Whatever a JSON file holds; NaN and infinities are refused.

    Raises:
        PreparationError: If it is missing, too large, or not JSON.
    """
    data = _read(path, "JSON")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise PreparationError(f"{printable(path)}: is no JSON ({reason}). Next: export it again") from None


def parse_xml(path: Path) -> Element:
    """The root of an XML file that declares no document type and no entities.

    Raises:
        PreparationError: If it is missing, too large, not XML, or declares any.
    """
    data = _read(path, "XML")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_declaration
    try:
        parser.Parse(data, True)
        return builder.close()
    except _Declared:
        raise PreparationError(
            f"{printable(path)}: declares a document type, which VOC files have no use for and which can hide entities "
            "that fill the memory. Next: take <!DOCTYPE ...> out if you trust the file"
        ) from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise PreparationError(f"{printable(path)}: is no XML ({error}). Next: export it again") from None


def _read(path: Path, kind: str) -> bytes:
    try:
        if not path.is_file():
            raise PreparationError(f"{printable(path)}: is no file. Next: check the path")
        size = path.stat().st_size
        if size > _LARGEST[kind]:
            raise PreparationError(
                f"{printable(path)}: has {size} bytes, a {kind} of boxes at most {_LARGEST[kind]}. Next: divide it"
            )
        return path.read_bytes()
    except OSError as error:
        raise PreparationError(
            f"{printable(path)}: cannot be read ({error.strerror}). Next: check its rights"
        ) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def _refuse_declaration(*_: object) -> None:
    raise _Declared


def parse_number(text: str | None) -> float:
    """A finite number; NaN, which no comparison holds for, where there is none."""
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
