"""One source on disk to the arrays that training reads: whole volumes, regions of volumes, patches, or images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vissl_jointssl.preparation.processing.image_pieces import image_pieces
from vissl_jointssl.preparation.processing.piece import Piece
from vissl_jointssl.preparation.processing.sample_pieces import sample_pieces
from vissl_jointssl.preparation.processing.volume_pieces import volume_pieces
from vissl_jointssl.preparation.recipe import Options, Source


def pieces_of(source: Source, root: Path, options: Options) -> Iterator[Piece]:
    """Read a source and yield what becomes of it.

    Raises:
        ReadError: If a file of the source is at fault, or nothing of it is left.
    """
    if source.array_names is not None:
        yield from sample_pieces(source, root)
    elif source.kind == "image":
        yield from image_pieces(source, root, options)
    else:
        yield from volume_pieces(source, root, options)
