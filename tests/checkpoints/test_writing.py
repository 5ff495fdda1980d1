from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.checkpoints import save_atomically


def test_what_is_saved_reads_back_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    save_atomically({"weight": torch.ones(3)}, tmp_path / "new" / "w.pth")
    assert torch.equal(torch.load(tmp_path / "new" / "w.pth", weights_only=True)["weight"], torch.ones(3))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["w.pth"]


def test_a_failure_half_way_keeps_the_old_file_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    write_at_once(b"old", path)
    with pytest.raises(AttributeError, match="local object"):
        save_atomically({"weight": torch.ones(3), "unpicklable": lambda: None}, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]
