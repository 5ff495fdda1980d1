"""Reading a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl import cli
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
    assert (recipe.run, recipe.manifests) == (Path("elsewhere"), (Path("m.csv"),))
    assert (recipe.device, recipe.processes) == ("cpu", 2)


def test_several_manifests_come_from_the_file_or_the_command_line(path: Path) -> None:
    path.write_text(WHOLE.replace("data/manifest.csv", "[a.csv, b.csv]"))
    assert read_recipe(path).manifests == (Path("a.csv"), Path("b.csv"))
    assert read_recipe(path, ["manifest=[c.csv,d.csv]"]).manifests == (Path("c.csv"), Path("d.csv"))


@pytest.mark.parametrize("of_whom", ["config.SEED_VALUE=1", "config.OPTIMIZER.num_epochs=2"])
def test_a_recipe_does_not_queue_stages_for_which_it_would_not_wait(path: Path, of_whom: str) -> None:
    path.write_text(WHOLE.replace(of_whom, "config.SLURM.USE_SLURM=True"))  # for all stages, or for one
    with pytest.raises(RecipeError, match=r"USE_SLURM queues a stage and does not wait for it; docs/scaling\.md"):
        read_recipe(path)


def test_a_stage_may_have_more_data_and_a_folder_of_another_name(path: Path) -> None:
    path.write_text(WHOLE + "  - {config: jointssl/stage3_swav, folder: last, more_manifests: x_rays.csv}\n")
    recipe = read_recipe(path)
    assert recipe.folder(2) == Path("runs/x/last")
    assert recipe.manifests_of(recipe.stages[2]) == (Path("data/manifest.csv"), Path("x_rays.csv"))
    assert recipe.manifests_of(recipe.stages[1]) == (Path("data/manifest.csv"),)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("stages: [", [], "cannot be read as YAML"),
        ("- 1", [], "holds no mapping"),
        (WHOLE + "devise: cpu", [], r"'devise' is read by nothing; did you mean device\?"),
        ("run: x", [], "'manifest' is missing"),
        (WHOLE + "  - {name: y}", [], r"stage 3 is \{'name': 'y'\}; expected `config: NAME`"),
        (WHOLE + "  - {config: y, folder: a/b}", [], "folder of stage 3 is 'a/b'; expected a name without slashes"),
        (WHOLE + "  - {config: y, folder: stage1}", [], "folder 'stage1' of stage 3 belongs to an earlier stage"),
        (WHOLE + "  - {config: y, more_manifests: 3}", [], "more_manifests of stage 3 is 3; expected a path or a list"),
        (WHOLE.replace("data/manifest.csv", "[3]"), [], r"manifest is \[3\]; expected a path or a list of paths"),
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


RECIPES = sorted(path.name for path in (Path(__file__).parents[2] / "configs" / "recipes").iterdir())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_that_ships_is_planned_and_names_configs_that_exist(
    root: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "configs" / "recipes" / name
    recipe = read_recipe(path)
    for stage in recipe.stages:
        assert (root / "configs" / "config" / f"{stage.config}.yaml").is_file(), stage.config
    assert cli.main(["train", str(path), f"run={tmp_path / 'run'}", "device=cpu", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{len(recipe.stages)} stages on CPU" in said
    assert said.count("starts from") == len(recipe.stages)


def test_unified_adds_its_x_rays_to_stage_1_alone_and_trains_stage_3_for_200_epochs(root: Path) -> None:
    for flavour in ("swav", "deepclusterv2"):
        recipe = read_recipe(root / "configs" / "recipes" / f"unified_{flavour}.yaml")
        assert [len(recipe.manifests_of(stage)) for stage in recipe.stages] == [5, 4, 4]
        assert "config.OPTIMIZER.num_epochs=200" in recipe.stages[2].overrides
