"""Classes that a table gives as numbers or as names, as numbers from 0 and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vissl_jointssl.preparation.decoding.medmnist import MAX_LABEL

_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.0+)?")  # spreadsheets and pandas write 1.0 where a column has gaps


def number_classes(texts: Mapping[int, str]) -> tuple[dict[int, int], tuple[str, ...], list[str]]:
    """Turn the cells of a column into classes.

    Where every cell is a whole number, these are the classes and their names are "0", "1", ...; else the cells are
    names, numbered in their sorted order.

    Args:
        texts: Cells that are not empty, by row number.

    Returns:
        The class of each row, the names of all classes, and what is wrong with numbers, in words with row numbers.
    """
    matches = {row: _NUMBER.fullmatch(text) for row, text in texts.items()}
    if not all(matches.values()):
        numbers = {name: number for number, name in enumerate(sorted(set(texts.values())))}
        return {row: numbers[text] for row, text in texts.items()}, tuple(numbers), []
    classes = {row: int(match[1]) for row, match in matches.items() if match is not None}
    wrong = [row for row, label in classes.items() if not 0 <= label <= MAX_LABEL]
    if wrong:
        return {}, (), [f"row {row}: label is {classes[row]}, expected a class from 0 to {MAX_LABEL}" for row in wrong]
    return classes, tuple(str(label) for label in range(max(classes.values(), default=-1) + 1)), []
