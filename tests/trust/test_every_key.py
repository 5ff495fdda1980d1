"""One letter of any key of ours changed, in any YAML or table that ships: an error that names the nearest key.

What VISSL hands on whole stays free (`plugin/registry_faults.py` lists it); none of our YAMLs has a key there.
"""

from __future__ import annotations

import contextlib
import copy
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from vissl_jointssl.cli import VERBS, main
from vissl_jointssl.evaluation.plan import PlanError, read_plan
from vissl_jointssl.evaluation.suite import SuiteError, is_suite, read_suite
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.manifest import ManifestError, read_manifest
from vissl_jointssl.manifest.entry import OPTIONAL_COLUMNS
from vissl_jointssl.plugin.config_faults import ConfigError, _vissl_defaults, misspelt_keys, refuse_missing_values
from vissl_jointssl.plugin.launch import compose
from vissl_jointssl.training.recipe import RecipeError, read_recipe

# isort: split
from vissl.config import AttrDict

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FOLDER = CONFIGS / "config"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
PLANS = sorted((CONFIGS / "evaluation").rglob("*.yaml"))
RECIPES = sorted((CONFIGS / "recipes").glob("*.yaml"))

Place = tuple[str | int, ...]


def places(node: Any, at: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every key of a YAML with the place of its section."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(node, dict):
            yield at, str(key)
        yield from places(value, (*at, key))


def section(node: Any, at: Place) -> Any:
    for key in at:
        node = node[key]
    return node


def typo(key: str) -> str:
    """The key with its last letter changed."""
    return key[:-1] + ("Q" if key[-1:].isupper() else "q" if key[-1:] != "q" else "z")


def misspelt(content: Any, at: Place, key: str, default: Any) -> Any:
    """The content with one key misspelt; what VISSL has a default for is then that default, as after a merge."""
    changed = copy.deepcopy(content)
    place = section(changed, at)
    place[typo(key)] = place.pop(key)
    with contextlib.suppress(KeyError, IndexError, TypeError):
        place[key] = copy.deepcopy(section(default, at)[key])
    return changed


def assert_named(message: str, key: str) -> None:
    """The message has the misspelt key, and then the nearest: the true one, or all where a word is too short."""
    _, found, after = message.partition(typo(key))
    assert found, f"{typo(key)} is not in {message!r}"
    assert f"did you mean {key}?" in after or key in after.partition("known: ")[2].replace(",", "").split(), message


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_key_of_a_vissl_config_is_an_error_that_names_it(name: str) -> None:
    config = OmegaConf.to_container(compose([f"config={name}"]).config)
    assert not misspelt_keys(AttrDict(copy.deepcopy(config)))
    written = yaml.safe_load((CONFIGS / "config" / f"{name}.yaml").read_text())
    for at, key in places(written.get("config", {})):
        if (at, key) == ((), "JOINT_SSL"):
            continue  # the next test's
        faults = misspelt_keys(AttrDict(misspelt(config, at, key, _vissl_defaults())))
        assert_named("\n".join(fault for fault in faults if typo(key) in fault), key)


def test_without_its_section_a_run_is_not_taken_for_stock_vissls() -> None:
    composed = compose(["config=jointssl/stage1_swav"])
    config = composed.config
    OmegaConf.set_struct(composed, False)
    config[typo("JOINT_SSL")] = config.pop("JOINT_SSL")
    with pytest.raises(ConfigError, match=r"config\.JOINT_SSQ is read by nothing; did you mean JOINT_SSL\?"):
        refuse_missing_values(composed)


def test_a_misspelt_key_is_named_before_vissls_inference_misses_it() -> None:
    # vissl/utils/hydra_config.py:409 reads total_num_crops without asking
    composed = compose(["config=jointssl/stage1_swav"])
    OmegaConf.set_struct(composed, False)
    crops = composed.config.DATA.TRAIN.TRANSFORMS[0]
    crops[typo("total_num_crops")] = crops.pop("total_num_crops")
    with pytest.raises(ConfigError, match=r"'total_num_cropq' is read by nothing; did you mean total_num_crops\?"):
        refuse_missing_values(composed)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_misspelt_key_of_a_recipe_is_an_error_that_names_it(path: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    for at, key in places(content):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(misspelt(content, at, key, {})))
        with pytest.raises(RecipeError) as caught:
            read_recipe(tmp_path / "recipe.yaml", ["run=x", "manifest=m.csv"])
        message = str(caught.value)
        assert typo(key) in message
        if not at:
            assert_named(message, key)
        else:  # a stage's keys are few, and all of them are said
            assert "expected `config: NAME` and, if needed, overrides, folder, more_manifests" in message


def _read_whole_plan(path: Path) -> None:
    plan = read_plan(path)
    build_task(plan.task, plan.options)


def _read_whole_suite(path: Path, changes: list[str]) -> None:
    for plan in read_suite(path, changes).plans:
        build_task(plan.task, plan.options)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_misspelt_key_of_an_evaluation_is_an_error_that_names_it(path: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    suite = is_suite(path)
    for step in content.get("evaluations") or []:
        step["plan"] = str(path.parent / step["plan"])
    starts = {name for step in content.get("evaluations") or [] for name in step.get("starts") or []}
    for at, key in places(content):
        if at[:1] == ("weights",):
            continue  # names that the user gives
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(misspelt(content, at, key, {})))
        if suite:
            weights = [f"weights=[{','.join(f'{name}=w.pth' for name in sorted(starts) if name != 'scratch')}]"]
            with pytest.raises((SuiteError, PlanError)) as caught:
                _read_whole_suite(tmp_path / "plan.yaml", weights if starts - {"scratch"} else [])
        else:
            with pytest.raises(PlanError) as caught:
                _read_whole_plan(tmp_path / "plan.yaml")
        if (at[:1], key) == (("evaluations",), "plan"):
            assert "'plaq'" in str(caught.value)
            assert "expected a mapping with plan: FILE" in str(caught.value)
        else:
            assert_named(str(caught.value), key.removeprefix("options."))


def test_a_misspelt_column_of_a_manifest_is_an_error_that_names_it(tiny_manifest: Path, tmp_path: Path) -> None:
    with tiny_manifest.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    for number, column in enumerate(header):
        changed = [*header[:number], typo(column), *header[number + 1 :]]
        with (tmp_path / "manifest.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([changed, *rows])
        needed = rf"column '{column}' is missing; (did you mean|known:) {typo(column)}"
        optional = rf"column '{typo(column)}' is not known; did you mean {column}\?"
        with pytest.raises(ManifestError, match=optional if column in OPTIONAL_COLUMNS else needed):
            read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize("verb", VERBS)
def test_a_misspelt_verb_is_answered_with_those_there_are(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([typo(verb)])
    message = capsys.readouterr().err
    assert typo(verb) in message
    assert verb in message
