from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.manifest import read_manifest
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare, prepare_folder
from vissl_jointssl.preparation.recipe import Recipe, Source


def command(folder: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "vissl_jointssl.cli", "prepare", str(folder), "--out", str(out), *words]


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def scans(tmp_path, save_nifti) -> Path:
    """Scans of several files each."""
    rng = np.random.default_rng(0)
    for number in range(5):
        array = rng.integers(0, 500, (24, 26, 28)).astype(np.int16)
        save_nifti(tmp_path / "in" / f"{number}.nii.gz", array)
        save_nifti(tmp_path / "in" / f"{number}_seg.nii.gz", (array > 300).astype(np.uint8))
    return tmp_path / "in"


def kill_while_it_writes(arguments: list[str], out: Path, draw: random.Random) -> bool:
    """Kill a run some files and some milliseconds after it began to write; False if it ended before."""
    goal = len(list(out.rglob("*"))) + draw.randint(1, 8)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.rglob("*"))) < goal:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.03))
    process.kill()
    return process.wait() != 0


def kill_and_compare(scans: Path, tmp_path: Path, kills: int) -> None:
    arguments = command(scans, tmp_path / "out", "--spacing", "0.8", "--modality", "MR")
    draw = random.Random(0)
    killed = attempts = 0
    while killed < kills:
        attempts += 1
        assert attempts <= 5 * kills, "runs end before they can be killed: give them more to do"
        if kill_while_it_writes(arguments, tmp_path / "out", draw):
            killed += 1
        else:  # it was done: begin anew
            shutil.rmtree(tmp_path / "out")
    prepare_folder(scans, tmp_path / "out", spacing=0.8, modality="MR").check_files()
    prepare_folder(scans, tmp_path / "fresh", spacing=0.8, modality="MR", jobs=1)
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "fresh")


def test_a_run_that_was_killed_at_any_moment_ends_as_one_that_was_not(scans, tmp_path):
    kill_and_compare(scans, tmp_path, 5)


@pytest.mark.slow
def test_a_run_that_was_killed_thirty_times_ends_as_one_that_was_not(scans, tmp_path, save_nifti):
    rng = np.random.default_rng(1)
    for number in range(10, 60):
        save_nifti(scans / f"{number}.nii.gz", rng.integers(0, 500, (40, 44, 48)).astype(np.int16))
    kill_and_compare(scans, tmp_path, 30)


def test_two_runs_at_once_leave_one_sound_folder(scans, tmp_path):
    runs = [
        subprocess.Popen(command(scans, tmp_path / "out"), stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
        for _ in range(2)
    ]
    ends = sorted((run.communicate()[1], run.returncode) for run in runs)
    assert 0 in {code for _, code in ends}
    for said, code in ends:
        assert code == 0 or "another run is preparing into it" in said
        assert "Traceback" not in said
    read_manifest(tmp_path / "out").check_files()
    prepare_folder(scans, tmp_path / "fresh")
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "fresh")


def test_a_full_disk_is_one_clear_line_and_what_was_prepared_stays(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "in" / "a.nii", make_volume((6, 7, 8)))
    prepare_folder(tmp_path / "in", tmp_path / "out")
    before = contents_of(tmp_path / "out")
    save_nifti(tmp_path / "in" / "large.nii", make_volume((40, 40, 40)))

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    arguments = command(tmp_path / "in", tmp_path / "out")
    run = subprocess.run(arguments, preexec_fn=no_room, capture_output=True, encoding="utf-8", errors="replace")
    assert run.returncode == 1
    (line,) = [line for line in run.stderr.splitlines() if "cannot be written to" in line]
    assert "out: cannot be written to (File too large). Next: check its permissions and free space" in line
    assert "Traceback" not in run.stderr
    assert contents_of(tmp_path / "out") == before
    assert len(prepare_folder(tmp_path / "in", tmp_path / "out")) == 2


def test_a_target_that_may_not_be_written_to_is_one_clear_line(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "in" / "a.nii", make_volume((6, 7, 8)))
    recipe = Recipe("set", tmp_path / "in", (Source("a", "a.nii", "p"),))
    prepare(recipe, tmp_path / "out")
    before = contents_of(tmp_path / "out")
    modes = {path: path.stat().st_mode for path in [tmp_path, *tmp_path.rglob("*")]}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    above = {path: path.stat().st_mode for path in tmp_path.parents if path.stat().st_uid == os.getuid()}
    for path, mode in above.items():  # pytest's folders are closed to all but their owner
        if not mode & 0o001:
            path.chmod(mode | 0o005)
    root = os.geteuid() == 0
    if root:  # who may write anywhere
        os.seteuid(65534)
    try:
        for target in ("out", "new"):
            with pytest.raises(
                PreparationError, match=rf"{target}: cannot be written to \(Permission denied\)"
            ) as error:
                prepare(recipe, tmp_path / target)
            assert "\n" not in str(error.value)
    finally:
        if root:
            os.seteuid(0)
        for path, mode in (modes | above).items():
            if path.stat().st_mode != mode:
                path.chmod(mode)
    assert contents_of(tmp_path / "out") == before


def test_a_target_that_is_a_file_is_one_clear_line(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "in" / "a.nii", make_volume())
    (tmp_path / "out").write_text("a file")
    with pytest.raises(PreparationError, match=r"out: cannot be written to \(.*\)\. Next: ") as error:
        prepare_folder(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert (tmp_path / "out").read_text() == "a file"


def test_a_target_inside_the_folder_of_scans_is_not_taken_for_scans(tmp_path, save_nifti, make_volume):
    save_nifti(tmp_path / "a.nii", make_volume())
    first = prepare_folder(tmp_path, tmp_path / "prepared")
    before = contents_of(tmp_path)
    assert prepare_folder(tmp_path, tmp_path / "prepared").entries == first.entries
    assert contents_of(tmp_path) == before


@pytest.mark.parametrize("place", [".", "images", "volumes"])
def test_a_target_that_would_mix_with_the_scans_is_refused(tmp_path, save_nifti, make_volume, place):
    save_nifti(tmp_path / place / "a-01234567.nii", make_volume())
    recipe = Recipe("set", tmp_path / place, (Source("a", "a-01234567.nii", "p"),))
    with pytest.raises(PreparationError, match=r"holds the scans themselves. Next: give --out a folder of its own"):
        prepare(recipe, tmp_path)
    if place != ".":
        recipe = Recipe("set", tmp_path.parent, (Source("a", f"{tmp_path.name}/{place}/a-01234567.nii", "p"),))
        with pytest.raises(PreparationError, match="holds the scans themselves"):
            prepare(recipe, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a-01234567.nii"]


NAMES = ("with space.nii", "grüße-Ω.nii", "two\nlines.nii", "tab\tand \x1b[31mred.nii", os.fsdecode(b"broken-\xff.nii"))


def test_names_of_any_letters_are_prepared_and_never_break_a_line(tmp_path, make_volume, save_nifti):
    for number, name in enumerate(NAMES):
        save_nifti(tmp_path / "plain.nii", make_volume((6, 7, 8), number))
        (tmp_path / "in" / f"pa {number}\n").mkdir(parents=True)
        (tmp_path / "plain.nii").rename(tmp_path / "in" / f"pa {number}\n" / name)
    (tmp_path / "in" / "bad\nname.nii").write_bytes(b"damaged")
    arguments = command(tmp_path / "in", tmp_path / "out\n put")
    stopped = subprocess.run(arguments, capture_output=True, encoding="utf-8", errors="replace")
    assert stopped.returncode == 1
    assert [line[:4] for line in stopped.stderr.splitlines() if "name.nii: " in line] == ["  - "]
    run = subprocess.run([*arguments, "--keep-going"], capture_output=True, encoding="utf-8", errors="replace")
    assert run.returncode == 0
    (line,) = [line for line in run.stderr.splitlines() if "left out" in line]
    assert r"bad\nname.nii: " in line
    assert "Traceback" not in stopped.stderr + run.stderr
    assert "\x1b[31m" not in stopped.stderr + run.stderr
    manifest = read_manifest(tmp_path / "out\n put")
    manifest.check_files()
    assert len(manifest) == len(NAMES)
    assert (manifest.root / "manifest.csv").read_text().isascii()
    assert (manifest.root / "report.json").read_text().isascii()
