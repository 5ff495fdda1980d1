"""What an error says about a name nobody knows: the nearest one that somebody does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name.

    Args:
        name: What was given.
        known: What would have been understood.

    Returns:
        `"; did you mean X?"`, or `"; known: A, B, C"` when nothing is near.
    """
    choices = sorted(known)
    close = difflib.get_close_matches(str(name), choices, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(choices)}"
