"""What an export did with every weight, and the error of one that cannot be done."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


class ExportError(ValueError):
    """A checkpoint cannot be exported; the message names the file, the weights concerned and what to do next."""


@dataclass(frozen=True)
class ExportAccount:
    """Every weight of an export, accounted for.

    Attributes:
        target: Library exported to.
        matched: Names in the target's model that received a weight.
        renamed: Name in the checkpoint's trunk -> name in the target, for weights whose name changed.
        dropped: Names in the checkpoint that the target has no place for.
        missing: Names in the target that the checkpoint has no weight for; only a classifier may be here.
        max_abs_difference: Largest difference between the features of the target's model and those computed from
            the checkpoint directly, on one fixed input.
        out: The weights file written.
        card: The description written beside it.
        load_with: The lines that load the file there: Python, or the target's own configuration.
    """

    target: str
    matched: tuple[str, ...]
    renamed: dict[str, str]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    max_abs_difference: float
    out: Path
    card: Path
    load_with: str = ""

    def summary(self) -> str:
        """The account for a terminal or a log: five lines, and those that load the file."""
        renamed = next((f" ({ours} -> {theirs}, ...)" for ours, theirs in self.renamed.items()), "")
        return "\n".join(
            (
                f"{self.out} ({self.target}), described in {self.card}",
                f"  matched  {len(self.matched)} weights and buffers, {len(self.renamed)} of them renamed{renamed}",
                f"  dropped  {len(self.dropped)}{_some(self.dropped)}",
                f"  missing  {len(self.missing)}{_some(self.missing)}",
                f"  features differ by at most {self.max_abs_difference:.1e} from the checkpoint's own",
                *(f"    {line}" for line in self.load_with.splitlines()),
            )
        )


def library(name: str, package: str) -> ModuleType:
    """A module of the library that is exported to.

    Args:
        name: Of the module, such as ``segmentation_models_pytorch``.
        package: What pip calls it.

    Raises:
        ExportError: If it is not installed: an export that its library never loaded is not verified.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"the weights are checked in {name} itself, which cannot be imported ({error}); pip install {package}"
        ) from error


def _some(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
