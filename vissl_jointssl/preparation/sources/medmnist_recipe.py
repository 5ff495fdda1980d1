"""A MedMNIST file, or one in its format, as a recipe: a source for each split, a row for each sample."""

from __future__ import annotations

import logging
from pathlib import Path

from vissl_jointssl.preparation.decoding.medmnist import array_names_of, read_classes, read_headers, splits_of
from vissl_jointssl.preparation.errors import PreparationError, ReadError, printable
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.splitting import hash_patient

_log = logging.getLogger(__name__)


def medmnist_recipe(path: Path | str) -> Recipe:
    """The recipe of a `.npz` with `train_images`, `train_labels`, and the same for `val` and `test`.

    Splits are the file's, and any of the three may be missing. The file does not name its classes, so they are called
    "0", "1", ... Of the images only headers are read, of the labels all.

    Args:
        path: The `.npz`; https://medmnist.com has them.

    Raises:
        PreparationError: With the fault of every split; or if the file has none of them.
    """
    path = Path(path)
    sources: list[Source] = []
    failures: list[ReadError] = []
    largest = -1
    try:
        splits = splits_of(path)
    except ReadError as error:
        raise PreparationError("the file cannot be prepared:", [error]) from None
    if not splits:
        raise PreparationError(
            f"{printable(path)}: has none of the arrays train_images, val_images and test_images. Next: give a file "
            "of MedMNIST; for a file of one volume, give its folder"
        )
    for split in splits:
        try:
            source = medmnist_source(path, path.name, split)
            largest = max(largest, *read_classes(path, array_names_of(path, split)), -1)
        except ReadError as error:
            failures.append(error)
            continue
        sources.append(source)
    if failures:
        raise PreparationError(f"{len(failures)} of {len(splits)} splits cannot be prepared:", failures)
    if len({source.kind for source in sources}) > 1:
        shapes = ", ".join(f"{source.split} {source.kind}s" for source in sources)
        raise PreparationError(f"{printable(path)}: holds {shapes}. Next: give a file whose splits are of one kind")
    return Recipe(path.stem, path.parent, tuple(sources), label_names=tuple(str(label) for label in range(largest + 1)))


def medmnist_source(path: Path, relative: str, split: str, modality: str | None = None) -> Source:
    """One split of the file at `path`, which is `relative` to the recipe's root; "OT", other, without a modality.

    Raises:
        ReadError: If the headers of its arrays are at fault.
    """
    array_names = array_names_of(path, split)
    samples = read_headers(path, array_names)
    if samples.labels is None:
        _log.info("%s: the %s samples have no labels", printable(relative), split)
    elif not samples.has_classes:
        count = samples.labels.shape[1]
        _log.warning("%s: each %s sample has %d labels, of which none is kept", printable(relative), split, count)
    name = f"{hash_patient(relative)}-{split}"
    return Source(name, relative, hash_patient(name), samples.kind, modality or "OT", split, array_names=array_names)
