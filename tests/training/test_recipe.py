"""Reading a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl.training import RecipeError, Stage, read_recipe

WHOLE = """
run: runs/x
manifest: data/manifest.csv
overrides: [config.SEED_VALUE=1]
stages:
  - config: jointssl/stage1_swav
  - config: jointssl/stage2_swav
    overrides: [config.OPTIMIZER.num_epochs=2]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def test_a_recipe_is_read_as_written(path: Path) -> None:
    path.write_text(WHOLE)
    recipe = read_recipe(path)
    assert recipe.stages == (
        Stage("jointssl/stage1_swav"),
        Stage("jointssl/stage2_swav", ("config.OPTIMIZER.num_epochs=2",)),
    )
    assert (recipe.run, recipe.device, recipe.processes) == (Path("runs/x"), "auto", 0)
    assert recipe.folder(1) == Path("runs/x/stage2")


def test_the_command_lines_changes_win(path: Path) -> None:
    path.write_text(WHOLE)
    recipe = read_recipe(path, ["run=elsewhere", "device=cpu", "processes=2", "manifest=m.csv"])
    assert (recipe.run, recipe.manifest) == (Path("elsewhere"), Path("m.csv"))
    assert (recipe.device, recipe.processes) == ("cpu", 2)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("stages: [", [], "cannot be read as YAML"),
        ("- 1", [], "holds no mapping"),
        (WHOLE + "devise: cpu", [], r"'devise' is read by nothing; did you mean device\?"),
        ("run: x", [], "'manifest' is missing"),
        (WHOLE + "  - {name: y}", [], r"stage 3 is \{'name': 'y'\}; expected `config: NAME`"),
        (WHOLE + "device: tpu", [], r"device is 'tpu'; expected one of \('auto', 'cpu', 'gpu'\)"),
        (WHOLE, ["processes=-1"], "processes is '-1'; expected a number"),
        (WHOLE, ["epochs=3"], "'epochs=3' changes nothing; give run=, manifest=, device= or processes="),
    ],
)
def test_each_fault_is_named(path: Path, text: str, changes: list[str], message: str) -> None:
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path, changes)
    assert str(path) in str(caught.value)


def test_all_faults_are_reported_at_once(path: Path) -> None:
    path.write_text("devise: cpu\nstages: [3]")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    for part in ("devise", "'run' is missing", "'manifest' is missing", "stage 1 is 3"):
        assert part in str(caught.value)


def test_a_missing_file_is_an_error_that_says_where_recipes_are(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml: cannot be read .*recipes lie in configs/recipes"):
        read_recipe(path)


@pytest.mark.parametrize("name", ["universal_swav", "demo"])
def test_the_recipes_that_ship_can_be_read_and_name_configs_that_exist(root: Path, name: str) -> None:
    recipe = read_recipe(root / "configs" / "recipes" / f"{name}.yaml")
    for stage in recipe.stages:
        assert (root / "configs" / "config" / f"{stage.config}.yaml").is_file()
