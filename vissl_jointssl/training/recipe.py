"""What a recipe is, and how its YAML is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vissl_jointssl.spelling import nearest

DEVICES = ("auto", "cpu", "gpu")
KEYS = ("run", "manifest", "stages", "device", "processes", "overrides")
STAGE_KEYS = ("config", "overrides", "folder", "more_manifests")
CHANGES = ("run", "manifest", "device", "processes")


class RecipeError(ValueError):
    """A recipe cannot be run as it stands; the message names the key, file or stage and the next step."""


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe.

    Attributes:
        config: A VISSL config.
        overrides: Of it, in Hydra's words.
        folder: Its folder in the run's; None for `stageN`, N its place in the recipe.
        more_manifests: Data of this stage beside the recipe's, such as the X-rays that only stage 1 can use.
    """

    config: str
    overrides: tuple[str, ...] = ()
    folder: str | None = None
    more_manifests: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Which stages to run, on what, and where to.

    Attributes:
        run: Folder of the run, with a folder in it for each stage.
        manifests: `manifest.csv` of the prepared data; several become one data set with one index.
        stages: In order; each starts from the last checkpoint of the one before.
        device: `cpu`, `gpu`, or `auto`: a GPU if there is one.
        processes: Training processes; 0 means one per GPU, or one on CPU.
        overrides: For every stage, before its own.
    """

    run: Path
    manifests: tuple[Path, ...]
    stages: tuple[Stage, ...]
    device: str = "auto"
    processes: int = 0
    overrides: tuple[str, ...] = ()

    def folder(self, position: int) -> Path:
        """Folder of the stage at a position counted from 0."""
        return self.run / (self.stages[position].folder or f"stage{position + 1}")

    def manifests_of(self, stage: Stage) -> tuple[Path, ...]:
        """Everything a stage trains on."""
        return (*self.manifests, *stage.more_manifests)


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe's YAML.

    Args:
        path: The file.
        changes: `key=value` for `run`, `manifest`, `device` or `processes`, taking the place of the file's; several
            manifests as `manifest=[a/manifest.csv,b/manifest.csv]`.

    Raises:
        RecipeError: With every fault at once.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({error}); recipes lie in configs/recipes") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: holds no mapping; recipes lie in configs/recipes")
    faults = []
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or key not in CHANGES:
            faults.append(f"{change!r} changes nothing; give run=, manifest=, device= or processes=")
        elif key == "manifest" and value.startswith("[") and value.endswith("]"):
            content[key] = value[1:-1].split(",")
        else:
            content[key] = int(value) if key == "processes" and value.isdigit() else value
    faults += [f"{key!r} is read by nothing{nearest(key, KEYS)}" for key in content if key not in KEYS]
    faults += [f"{key!r} is missing" for key in ("run", "manifest", "stages") if not content.get(key)]
    stages: list[Stage] = []
    folders: list[Any] = []
    for position, item in enumerate(content.get("stages") or [], start=1):
        if not isinstance(item, dict) or not isinstance(item.get("config"), str) or item.keys() - set(STAGE_KEYS):
            faults.append(
                f"stage {position} is {item!r}; expected `config: NAME` and, if needed, {', '.join(STAGE_KEYS[1:])}"
            )
            continue
        folder = item.get("folder") or f"stage{position}"
        if not isinstance(folder, str) or Path(folder).name != folder:
            faults.append(f"folder of stage {position} is {folder!r}; expected a name without slashes")
        elif folder in folders:
            faults.append(f"folder {folder!r} of stage {position} belongs to an earlier stage; name another")
        folders.append(folder)
        more, more_faults = _paths(item.get("more_manifests"), f"more_manifests of stage {position}")
        faults += more_faults
        stages.append(Stage(item["config"], tuple(item.get("overrides") or ()), item.get("folder"), more))
    manifests, manifest_faults = _paths(content.get("manifest"), "manifest")
    faults += manifest_faults
    if content.get("device", "auto") not in DEVICES:
        faults.append(f"device is {content['device']!r}; expected one of {DEVICES}")
    if not isinstance(content.get("processes", 0), int) or content.get("processes", 0) < 0:
        faults.append(f"processes is {content['processes']!r}; expected a number, 0 for one per GPU")
    given = [*(content.get("overrides") or ()), *(one for stage in stages for one in stage.overrides)]
    if any(re.fullmatch(r"\+*config\.SLURM\.USE_SLURM=true", str(one), re.IGNORECASE) for one in given):
        faults.append("SLURM.USE_SLURM queues a stage and does not wait for it; docs/scaling.md has a job of all")
    if faults:
        raise RecipeError("".join([f"{path}:", *(f"\n  - {fault}" for fault in faults)]))
    return Recipe(
        run=Path(content["run"]),
        manifests=manifests,
        stages=tuple(stages),
        device=content.get("device", "auto"),
        processes=content.get("processes", 0),
        overrides=tuple(content.get("overrides") or ()),
    )


def _paths(value: Any, what: str) -> tuple[tuple[Path, ...], list[str]]:
    """One path or a list of them, and what is wrong with it."""
    values = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(one, str) and one for one in values):
        return (), [f"{what} is {value!r}; expected a path or a list of paths"]
    return tuple(Path(one) for one in values), []
