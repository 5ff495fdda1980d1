from __future__ import annotations

import argparse
import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from vissl_jointssl.export import registry
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.command import add_arguments, run


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_calls_the_target_and_logs_its_account(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[Path, Path]] = []

    def export(checkpoint: Path, out: Path) -> ExportAccount:
        calls.append((checkpoint, out))
        return ExportAccount(
            "torchvision", ("a", "b"), {"x.a": "a"}, ("h1", "h2", "h3", "h4", "h5"), (), 3e-7, out, out
        )

    monkeypatch.setitem(registry.TARGETS, "torchvision", export)
    with caplog.at_level(logging.INFO):
        run(_arguments("run/model.torch", "--out", "w.pth"))

    assert calls == [(Path("run/model.torch"), Path("w.pth"))]
    assert "matched  2 weights and buffers, 1 of them renamed" in caplog.text
    assert "dropped  5 (h1, h2, h3, h4, ...)" in caplog.text
    assert "missing  0\n" in caplog.text
    assert "at most 3.0e-07" in caplog.text


def test_an_unknown_target_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ExportError, match=r"target 'torchvison'; did you mean torchvision\?"):
        run(_arguments("m.torch", "--to", "torchvison", "--out", "w.pth"))


def test_a_target_unlike_any_other_lists_what_there_is() -> None:
    with pytest.raises(ExportError, match=r"unknown export target 'onnx'; known: detectron2, .*, volume"):
        run(_arguments("m.torch", "--to", "onnx", "--out", "w.pth"))


def test_the_help_lists_every_target_and_does_not_load_pytorch_for_it() -> None:
    code = (
        "import sys; from vissl_jointssl.cli import main\n"
        "try: main(['export', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = " ".join(result.stdout.split())
    assert all(target in shown for target in registry.TARGETS)
    assert shown.endswith("False")


def test_each_target_is_a_file_of_its_name_with_a_function_of_its_name() -> None:
    for target in registry.TARGETS:
        module = importlib.import_module(f"vissl_jointssl.export.{target}")
        assert callable(getattr(module, f"export_{target}"))
