"""What a recipe is, and how its YAML is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from vissl_jointssl.spelling import nearest

DEVICES = ("auto", "cpu", "gpu")


class RecipeError(ValueError):
    """A recipe cannot be run as it stands; the message names the key, file or stage and the next step."""


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe: a VISSL config, and overrides of it in Hydra's words."""

    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Which stages to run, on what, and where to.

    Attributes:
        run: Folder of the run; stage N has the folder `stageN` in it.
        manifest: `manifest.csv` of the prepared data.
        stages: In order; each starts from the last checkpoint of the one before.
        device: `cpu`, `gpu`, or `auto`: a GPU if there is one.
        processes: Training processes; 0 means one per GPU, or one on CPU.
        overrides: For every stage, before its own.
    """

    run: Path
    manifest: Path
    stages: tuple[Stage, ...]
    device: str = "auto"
    processes: int = 0
    overrides: tuple[str, ...] = ()

    def folder(self, position: int) -> Path:
        """Folder of the stage at a position counted from 0."""
        return self.run / f"stage{position + 1}"


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe's YAML.

    Args:
        path: The file.
        changes: `key=value` for `run`, `manifest`, `device` or `processes`, taking the place of the file's.

    Raises:
        RecipeError: With every fault at once.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({error}); recipes lie in configs/recipes") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: holds no mapping; recipes lie in configs/recipes")
    faults = []
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or key not in ("run", "manifest", "device", "processes"):
            faults.append(f"{change!r} changes nothing; give run=, manifest=, device= or processes=")
        else:
            content[key] = int(value) if key == "processes" and value.isdigit() else value
    known = [field.name for field in fields(Recipe)]
    faults += [f"{key!r} is read by nothing{nearest(key, known)}" for key in content if key not in known]
    faults += [f"{key!r} is missing" for key in ("run", "manifest", "stages") if not content.get(key)]
    stages = []
    for position, item in enumerate(content.get("stages") or [], start=1):
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("config"), str)
            or item.keys() - {"config", "overrides"}
        ):
            faults.append(f"stage {position} is {item!r}; expected `config: NAME` and, if needed, a list `overrides`")
        else:
            stages.append(Stage(item["config"], tuple(item.get("overrides") or ())))
    if content.get("device", "auto") not in DEVICES:
        faults.append(f"device is {content['device']!r}; expected one of {DEVICES}")
    if not isinstance(content.get("processes", 0), int) or content.get("processes", 0) < 0:
        faults.append(f"processes is {content['processes']!r}; expected a number, 0 for one per GPU")
    if faults:
        raise RecipeError("".join([f"{path}:", *(f"\n  - {fault}" for fault in faults)]))
    return Recipe(
        run=Path(content["run"]),
        manifest=Path(content["manifest"]),
        stages=tuple(stages),
        device=content.get("device", "auto"),
        processes=content.get("processes", 0),
        overrides=tuple(content.get("overrides") or ()),
    )
