"""What the progress bar shows of the progress file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vissl_jointssl.training.engine import show_progress


def _write(path: Path, **changed: Any) -> None:
    state = {"step": 3, "steps": 10, "loss": 1.5, "phase": "train", "beside_loss": {}, "warnings": []}
    path.write_text(json.dumps(state | changed))


def test_the_bar_shows_the_loss_and_what_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    with tqdm(file=io.StringIO()) as bar:
        show_progress(bar, path, set())  # no file yet
        _write(path, beside_loss={"mean_embedding": 0.875, "neighbours": 0.25})
        show_progress(bar, path, set())
        assert (bar.n, bar.total) == (3, 10)
        assert bar.postfix == "loss=1.500, mean_embedding=0.875, neighbours=0.250"


def test_a_warning_is_printed_once_above_the_bar(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "progress.json"
    shown: set[str] = set()
    with tqdm(desc="stage 3 of 3", file=io.StringIO()) as bar:
        for warnings in ([], ["all alike"], ["all alike"], ["all alike", "few in use"]):
            _write(path, warnings=warnings)
            show_progress(bar, path, shown)
    said = capsys.readouterr().err
    assert said.count("stage 3 of 3: all alike\n") == 1
    assert said.count("stage 3 of 3: few in use\n") == 1
