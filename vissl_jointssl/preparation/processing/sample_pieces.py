"""The samples of a MedMNIST `.npz`, one row each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.processing.piece import Piece
from vissl_jointssl.preparation.recipe import Source
from vissl_jointssl.preparation.splitting import hash_patient


def sample_pieces(source: Source, root: Path) -> Iterator[Piece]:
    """Yield each sample with its values as they are, and as a patient of its own, for the file names none.

    Shapes, whose voxels are 0 and 1, get the largest number of their type in place of the 1, as integers stand for
    [0, 1] by their own range.

    Raises:
        ReadError: If the file is at fault.
    """
    from vissl_jointssl.preparation.decoding.medmnist import read_samples

    if source.array_names is None:
        raise ValueError(f"source {source.id!r} names no arrays of a .npz")
    for number, (array, label) in enumerate(read_samples(root / source.path, source.array_names)):
        notes = (f"sample {number} has the same value throughout",) if array.min() == array.max() else ()
        if array.max() == 1:
            array = array * np.iinfo(array.dtype).max
        yield Piece(
            suffix=f"-i{number:05d}",
            array=array,
            labels=None,
            label=source.label if label is None else label,
            modality=source.modality or "OT",
            spacing=None,
            patient=hash_patient(f"{source.id}-{number}"),
            notes=notes,
        )
