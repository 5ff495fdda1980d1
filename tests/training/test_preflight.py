"""What `jointssl train --plan` says of what its engine has measured; the engine's own part is tests/plugin's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vissl_jointssl import cli
from vissl_jointssl.run_signs import STEP_MEASURES_FILE
from vissl_jointssl.training import RecipeError
from vissl_jointssl.training.free_room import Room, size_of_cache
from vissl_jointssl.training.preflight_table import show_seconds
from vissl_jointssl.training.stage_estimate import estimate_stage, stage_advice, stage_problems

GIB = 2**30
ROOM = Room(cores=16, memory=64 * GIB, shared_memory=8 * GIB, disk=500 * GIB)
FACTS = {
    "samples": 1524,
    "measured_samples": None,
    "batch": 6,
    "drop_last": True,
    "epochs": 100,
    "workers": 8,
    "checkpoint_every_epochs": 5,
    "checkpoint_every_steps": -1,
    "warm_up": 2,
    "is_gpu": True,
}
MEASURED = {
    "facts": FACTS,
    "ranks": 4,
    "device": "A100",
    "steps": [9.0, 5.0, 2.0, 2.5, 1.5],
    "waits": [8.0, 0.0, 0.0, 0.5, 0.0],
    "batch_bytes": 150 * 2**20,
    "batch_images": 768,
    "sample": 0.5,
    "start": 60.0,
    "epoch_hooks": 1.0,
    "first_batch": 3.0,
    "checkpoint": 2.0,
    "checkpoint_bytes": 300 * 2**20,
    "peak": 30 * GIB,
    "static": 2 * GIB,
    "room": 40 * GIB,
}


def _changed(**facts: Any) -> dict[str, Any]:
    return {**MEASURED, "facts": {**FACTS, **facts}}


def test_the_numbers_of_a_stage_by_hand() -> None:
    found = estimate_stage("stage3", MEASURED, ROOM, 7, (1, 4, 32))
    assert found.step == 2.0  # the median of 2, 2.5 - 0.5 and 1.5; the loader needs 6 * 0.5 / min(8, 16 / 4) = 0.75
    assert found.wait_share == 0
    assert found.measured_steps == 3
    assert found.images_per_second == 4 * 768 / 2
    assert found.largest_batch == 7  # 0.9 * 40 - 2 = 34 GiB, 28 / 6 = 4.67 each
    assert found.steps_per_epoch == 63  # 381 volumes a rank
    assert found.checkpoints == 21  # after epochs 0, 5, ... 95, and the last
    assert found.seconds == pytest.approx(60 + 100 * (63 * 2 + 1 + 3) + 21 * 2)
    assert found.seconds_at[1] == pytest.approx(240 + 100 * (254 * 2 + 4) + 42)
    assert found.seconds_at[32] == pytest.approx(60 / 8 + 100 * (8 * 2 + 4) + 42)
    assert found.shared_memory == 4 * 17 * 150 * 2**20
    assert (found.workers_needed, found.workers_suggested) == (2, 2)


def test_what_was_measured_on_a_part_of_the_data_grows_with_it() -> None:
    whole = estimate_stage("stage3", MEASURED, ROOM, 0, (4,))
    part = estimate_stage("stage3", _changed(measured_samples=1524 // 2), ROOM, 0, (4,))
    assert part.seconds - whole.seconds == pytest.approx(60 + 100 * 1)  # the memory and the k-means twice


def test_a_machine_too_large_for_the_data_has_no_time() -> None:
    found = estimate_stage("stage3", _changed(samples=20), ROOM, 0, (1, 4))
    assert found.seconds_at[1] is not None
    assert found.seconds_at[4] is None


def test_on_cpu_ranks_share_the_memory_of_the_machine() -> None:
    found = estimate_stage("stage3", {**MEASURED, "room": None}, ROOM, 0, (4,))
    assert found.room == 16 * GIB


def test_a_system_that_does_not_tell_its_memory_leaves_it_open() -> None:
    silent = {**MEASURED, "room": None, "peak": None, "static": None}
    assert estimate_stage("stage3", silent, replace(ROOM, memory=None), 0, (4,)).largest_batch is None


def test_a_full_shared_memory_is_a_problem_with_a_number_of_workers_that_works() -> None:
    small = replace(ROOM, shared_memory=64 * 2**20)
    found = estimate_stage("stage3", MEASURED, small, 0, (4,))
    (words,) = stage_problems(found, small)
    assert "8 workers a rank fill 10.0 GiB of /dev/shm, and 64 MiB are free" in words
    assert "config.DATA.NUM_DATALOADER_WORKERS=0" in words
    assert stage_problems(found, replace(ROOM, shared_memory=16 * GIB)) == []


def test_a_slow_loader_is_told_with_the_number_of_workers_that_keeps_up() -> None:
    few = estimate_stage("stage3", _changed(workers=1), ROOM, 0, (4,))
    assert few.step == 3.0
    assert few.wait_share == pytest.approx(1 / 3)
    (words,) = stage_advice(few, ROOM)
    assert "wait for data 33% of the time; set config.DATA.NUM_DATALOADER_WORKERS=2" in words
    (words,) = stage_advice(few, replace(ROOM, cores=4))
    assert "loading keeps 2 cores busy for each rank, and there are 1" in words


# --- the command


@pytest.fixture
def recipe(tmp_path: Path, tiny_manifest: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    stages = [{"config": f"jointssl/stage{number}_swav"} for number in (1, 2)]
    path.write_text(
        json.dumps({"run": str(tmp_path / "run"), "manifest": str(tiny_manifest), "stages": stages, "device": "cpu"})
    )
    return path


Engine = Callable[..., list[Sequence[str]]]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Stands in for the engine: answers with these numbers, and finds no memory for batches above `fits`."""

    def install(fits: int = 1000, said: str = "CUDA out of memory", **changed: Any) -> list[Sequence[str]]:
        def run(overrides: Sequence[str], folder: Path, label: str, program: str) -> None:
            asked.append(overrides)
            assert program == "vissl_jointssl.plugin.measured_run"
            batches = [one.rpartition("=")[2] for one in overrides if "BATCHSIZE" in one]
            batch = int(batches[-1]) if batches else 6
            folder.mkdir(parents=True)
            facts = {**FACTS, "batch": batch}
            (folder / STEP_MEASURES_FILE).write_text(json.dumps({"facts": facts, "ranks": 1}))
            if batch > fits:
                raise RecipeError(f"{label} failed (exit 1): {said}\nthe whole log: {folder}/launch.log")
            (folder / STEP_MEASURES_FILE).write_text(json.dumps({**MEASURED, "ranks": 1, "facts": facts, **changed}))

        monkeypatch.setattr("vissl_jointssl.training.preflight.run_engine", run)
        monkeypatch.setattr("vissl_jointssl.training.preflight.look_around", lambda folder: ROOM)
        return asked

    asked: list[Sequence[str]] = []
    return install


def test_every_stage_is_measured_without_a_parent_and_nothing_is_left(
    recipe: Path, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.iterdir())
    asked = engine()
    assert cli.main(["train", str(recipe), "--plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [overrides[0] for overrides in asked] == ["config=jointssl/stage1_swav", "config=jointssl/stage2_swav"]
    assert not any("PARAMS_FILE" in one for overrides in asked for one in overrides)
    assert all("config.MACHINE.DEVICE=cpu" in overrides for overrides in asked)
    assert set(tmp_path.iterdir()) == before
    seconds = [stage["seconds"] for stage in found["stages"]]
    assert found["total"]["seconds"] == sum(seconds)
    assert list(found["total"]["seconds_at"]) == ["1", "4", "32"]
    assert found["problems"] == []


def test_the_keys_of_json_are_told_in_the_documentation(
    recipe: Path, engine: Engine, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine()
    cli.main(["train", str(recipe), "--plan", "--json"])
    found = json.loads(capsys.readouterr().out)
    documented = (root / "docs" / "scaling.md").read_text(encoding="utf-8")
    keys = {*found, *found["stages"][0], *found["room"], *found["total"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in documented] == []


def test_a_batch_without_memory_is_halved_until_it_fits_and_is_a_problem(
    recipe: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = engine(fits=2)
    assert cli.main(["train", str(recipe), "--plan"]) == 1
    said = capsys.readouterr().out
    assert len(asked) == 2 * 3  # 6, 3, 1
    assert "will not work: jointssl/stage1_swav: a batch of 6 finds no memory; 1 should fit" in said
    assert "MICRO_BATCHES" in said


def test_another_failure_is_told_and_not_tried_again(
    recipe: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = engine(fits=2, said="the config has 1 fault")
    assert cli.main(["train", str(recipe), "--plan"]) == 1
    said = capsys.readouterr().err
    assert "measuring stage 1 of 2 failed (exit 1): the config has 1 fault" in said
    assert "launch.log" not in said  # it is gone
    assert len(asked) == 1


def test_checkpoints_that_do_not_fit_on_the_disk_are_a_problem(
    recipe: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(checkpoint_bytes=20 * GIB)
    assert cli.main(["train", str(recipe), "--plan"]) == 1
    said = capsys.readouterr().out
    assert "run: 42 checkpoints take 840.0 GiB, and 500.0 GiB are free on that disk: raise config.CHECKPOINT" in said


def test_the_table_says_what_was_found_and_for_whom(
    recipe: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine()
    assert cli.main(["train", str(recipe), "--plan"]) == 0
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["step"][-2:] == ["2", "s"]
    assert lines["batch per rank"][-1] == "6"
    assert lines["checkpoints"][-4:] == ["21", "x", "300", "MiB"]
    assert lines["1 rank"][2:] == ["28.5", "h"]  # two stages of 60 + 100 * (254 * 2 + 4) + 42 = 51302 s
    assert any("30 h on 4 A100" in line for line in lines)


def test_json_without_plan_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(recipe), "--json"]) == 1
    assert "add --plan" in capsys.readouterr().err


def test_the_cache_is_weighed_file_by_file(tiny_manifest: Path) -> None:
    expected = sum(path.stat().st_size for path in tiny_manifest.parent.glob("*.npy"))
    assert size_of_cache([tiny_manifest]) == expected


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4123, "0.412 s"), (119, "119 s"), (720, "12 min"), (108000, "30.0 h")]
)
def test_times_are_shown_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert show_seconds(seconds) == words
