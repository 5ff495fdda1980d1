"""Times are taken by turns, and told as medians and quartiles."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.speed import timing
from vissl_jointssl.speed.timing import Timing, machine, time_by_turns


def test_contestants_take_turns_and_every_case_is_checked() -> None:
    calls: list[object] = []

    def contestant(name: str) -> Callable[[int], str]:
        def do(case: int) -> str:
            calls.append((name, case))
            return f"{name}{case}"

        return do

    timings = time_by_turns(
        {name: contestant(name) for name in "abc"}, [1, 2], lambda case, results: calls.append((case, dict(results)))
    )
    assert calls[:4] == [("a", 1), ("b", 1), ("c", 1), (1, {"a": "a1", "b": "b1", "c": "c1"})]
    assert [call[0] for call in calls[4:]] == ["a", "b", "c", 2]  # type: ignore[index]
    assert [len(timings[name].seconds) for name in "abc"] == [2, 2, 2]


def test_a_slow_contestant_takes_longer_and_checking_does_not_count() -> None:
    timings = time_by_turns(
        {"quick": lambda case: None, "slow": lambda case: time.sleep(0.02)}, range(3), lambda *_: time.sleep(0.05)
    )
    assert timings["quick"].median < 0.01 < 0.02 <= timings["slow"].median < 0.05


def test_a_failed_check_ends_the_measure() -> None:
    def differ(case: int, results: object) -> None:
        raise ValueError("they differ")

    with pytest.raises(ValueError, match="they differ"):
        time_by_turns({"a": lambda case: case}, [1], differ)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 40])
def test_median_and_quartiles_are_numpys(count: int) -> None:
    seconds = np.random.default_rng(count).random(count)
    one = Timing(tuple(seconds.tolist()))
    assert one.median == pytest.approx(np.median(seconds))
    assert one.quartiles == pytest.approx(np.percentile(seconds, [25, 75]))
    assert one.summary()["third_quartile"] == one.quartiles[1]


def test_the_machine_is_named_without_its_paths() -> None:
    found = machine(["numpy"])
    assert found["cores"] >= 1
    assert found["processor"]
    assert found["versions"]["numpy"] == np.__version__
    assert set(found["commit"]) <= set("0123456789abcdef+unkow")
    assert "/" not in str(found["versions"]) + found["commit"]


def test_the_commit_is_of_the_checkout_that_holds_the_package_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(timing, "__file__", str(package / "timing.py"))
    (package / "timing.py").write_text("one\n")
    assert timing.machine([])["commit"] == "unknown"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git(*identity, "commit", "-q", "--allow-empty", "-m", "empty")
    assert timing.machine([])["commit"] == "unknown"  # the package lies in the checkout and is no part of it
    git("add", ".")
    git(*identity, "commit", "-q", "-m", "package")
    assert timing.machine([])["commit"] == git("rev-parse", "--short", "HEAD")
    (package / "timing.py").write_text("two\n")
    assert timing.machine([])["commit"] == git("rev-parse", "--short", "HEAD") + "+"
