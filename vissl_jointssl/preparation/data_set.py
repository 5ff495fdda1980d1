"""A public data set in one word: what `jointssl prepare` knows about it before it sees a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Recipe

_SHOWN = 12


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set, and how its folder becomes a recipe.

    Attributes:
        name: The word on the command line.
        title: For people.
        home: Address where it is had; nothing is downloaded from it.
        licence: As its home states it, with what is asked of the user.
        contents: What a full copy holds, such as "888 chest CT".
        count: Sources in a full copy, or None where copies differ; another number is prepared all the same, and said.
        modality: "CT", "MR", "XR", or several joined by ", ".
        labels: What its labels are, or "none".
        layout: The tree below the folder that is given, as its home ships it; shown to who gives another.
        recipe: From that folder. Raises `WrongFolder`.
    """

    name: str
    title: str
    home: str
    licence: str
    contents: str
    count: int | None
    modality: str
    labels: str
    layout: str
    recipe: Callable[[Path], Recipe]


class WrongFolder(PreparationError):
    """The folder that was given does not hold the data set."""

    def __init__(self, root: Path, looked_for: Sequence[str]) -> None:
        """Args: root: what was given; looked_for: what should be below it and is not."""
        self.root, self.looked_for = root, tuple(looked_for)
        super().__init__(
            f"{printable(root)}: not found below it: {', '.join(looked_for)}. Found there: {_contents(root)}"
        )


def find_files(root: Path, pattern: str) -> list[Path]:
    """Every file or folder below `root` that matches, in order of path.

    Args:
        root: The folder that was given.
        pattern: As in `Path.glob`, such as "subset*/*.mhd".

    Raises:
        WrongFolder: If there is none.
    """
    found = sorted(path for path in root.glob(pattern) if not path.name.startswith("."))
    if not found:
        raise WrongFolder(root, [pattern])
    return found


def _contents(root: Path) -> str:
    if not root.exists():
        return "nothing, it does not exist"
    if not root.is_dir():
        return "it is a file, not a folder"
    names = sorted(printable(path.name) + ("/" if path.is_dir() else "") for path in root.iterdir())
    if not names:
        return "nothing, it is empty"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
