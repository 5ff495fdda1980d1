from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vissl_jointssl.checkpoints import CheckpointError, StageRecord, read_checkpoint, sha256


def test_a_checkpoint_gives_back_weights_progress_and_record(
    write_checkpoint: Callable[..., Path], record: StageRecord
) -> None:
    path = write_checkpoint(record=record)

    checkpoint = read_checkpoint(path)

    assert checkpoint.path == path
    assert torch.equal(checkpoint.trunk["_feature_blocks.conv1.weight"], torch.arange(6.0).reshape(2, 3))
    assert set(checkpoint.heads) == {"0.prototypes0.weight"}
    assert checkpoint.record == record
    assert (checkpoint.train_phase, checkpoint.iteration, checkpoint.final) == (9, 40, True)


def test_a_record_survives_its_plain_form(record: StageRecord) -> None:
    assert StageRecord.from_dict(record.to_dict()) == record
    assert record.to_dict()["levels"] == ["res1", "res5"]


def test_names_of_a_feature_extractor_lose_their_prefix(write_checkpoint: Callable[..., Path]) -> None:
    plain = read_checkpoint(write_checkpoint("plain.torch"))
    extractor = read_checkpoint(write_checkpoint("extractor.torch", feature_extractor=True))

    assert extractor.trunk.keys() == plain.trunk.keys()


def test_a_checkpoint_of_stock_vissl_has_no_record(write_checkpoint: Callable[..., Path]) -> None:
    assert read_checkpoint(write_checkpoint()).record is None


def test_only_the_final_checkpoint_of_a_run_is_final_also_through_its_link(
    write_checkpoint: Callable[..., Path],
) -> None:
    final, phase = write_checkpoint(), write_checkpoint("model_phase3.torch")
    link = final.with_name("checkpoint.torch")
    link.symlink_to(final)

    assert read_checkpoint(link).final
    assert not read_checkpoint(phase).final


class _Payload:
    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.evidence),)


def test_code_inside_a_file_does_not_run(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
    evidence = tmp_path / "it_ran"
    path = write_checkpoint(extra=_Payload(evidence))
    with pytest.raises(CheckpointError, match=r"model_final_checkpoint_phase9\.torch: refused, because it holds more"):
        read_checkpoint(path)
    assert not evidence.exists()

    torch.load(path, weights_only=False)  # the payload is live: the door is what stopped it
    assert evidence.exists()


def test_a_bare_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.torch"
    path.write_bytes(pickle.dumps(_Payload(tmp_path / "it_ran")))
    with pytest.raises(CheckpointError, match=r"x\.torch: not a PyTorch checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "it_ran").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.torch: no such file; train the stage first"):
        read_checkpoint(tmp_path / "absent.torch")


def test_an_empty_file_is_told_from_a_truncated_one(tmp_path: Path) -> None:
    (tmp_path / "empty.torch").touch()
    with pytest.raises(CheckpointError, match=r"empty\.torch: the file is empty \(0 bytes\)"):
        read_checkpoint(tmp_path / "empty.torch")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_says_how_much_of_it_is_there(write_checkpoint: Callable[..., Path], share: float) -> None:
    path = write_checkpoint()
    data = path.read_bytes()
    kept = int(len(data) * share)
    path.write_bytes(data[:kept])
    with pytest.raises(CheckpointError, match=rf"truncated \(its end is missing after {kept} bytes\)"):
        read_checkpoint(path)


def test_flipped_bits_in_a_weight_are_noticed(write_checkpoint: Callable[..., Path]) -> None:
    path = write_checkpoint()
    data = bytearray(path.read_bytes())
    place = data.index(torch.arange(6.0).numpy().tobytes())
    data[place + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="the file is damaged"):
        read_checkpoint(path)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"scans\.zip: the file is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (torch.ones(2), "holds a Tensor"),
        ({"conv1.weight": torch.ones(2)}, "conv1.weight"),
        ({"classy_state_dict": 3}, "classy_state_dict"),
        ({"classy_state_dict": {"base_model": {"model": {"trunk": {}, "heads": {}}}}}, "classy_state_dict"),
    ],
)
def test_weights_in_another_layout_are_not_a_training_checkpoint(tmp_path: Path, content: object, found: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="not a VISSL training checkpoint") as caught:
        read_checkpoint(path)
    assert found in str(caught.value)


def test_a_list_of_shards_asks_to_be_consolidated(write_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="type 'shard_list' holds no whole model; consolidate it first"):
        read_checkpoint(write_checkpoint(type="shard_list"))


def test_a_record_with_foreign_keys_names_the_version_that_wrote_it(write_checkpoint: Callable[..., Path]) -> None:
    path = write_checkpoint(record={"stage": 2, "colour": "red", "version": "9.9"})
    with pytest.raises(
        CheckpointError,
        match=r"phase9\.torch: .*missing keys \['flavour'\] and unknown keys \['colour'\].*version 9\.9",
    ):
        read_checkpoint(path)


def test_a_record_with_a_wrong_type_is_refused(write_checkpoint: Callable[..., Path]) -> None:
    path = write_checkpoint(record={"stage": "two", "flavour": "swav"})
    with pytest.raises(CheckpointError, match="stage='two', flavour='swav'; expected an integer and a string"):
        read_checkpoint(path)


@pytest.mark.parametrize("change", [{"levels": 5}, {"volume_encoder": [1]}, {"levels": "res5"}])
def test_a_record_whose_parts_have_a_wrong_type_is_refused(
    write_checkpoint: Callable[..., Path], record: StageRecord, change: dict[str, object]
) -> None:
    path = write_checkpoint(record={**record.to_dict(), **change})
    with pytest.raises(CheckpointError, match=r"phase9\.torch: the stage record says levels=.* expected a list and a"):
        read_checkpoint(path)


@pytest.mark.parametrize("trunk", [{3: torch.ones(1)}, {"conv1.weight": "text"}, {"a": torch.ones(1), "b": None}])
def test_weights_that_are_no_named_tensors_are_refused(write_checkpoint: Callable[..., Path], trunk: dict) -> None:
    with pytest.raises(CheckpointError, match=r"among its weights is .* of type .*, expected names of tensors"):
        read_checkpoint(write_checkpoint(trunk=trunk))


def test_a_record_whose_keys_are_no_names_is_refused(write_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"unknown keys \['3', 'colour'\]"):
        read_checkpoint(write_checkpoint(record={"stage": 2, "flavour": "swav", 3: 1, "colour": "red"}))


def test_a_sound_archive_around_a_pickle_that_nobody_wrote_is_refused(write_checkpoint: Callable[..., Path]) -> None:
    # one opcode each that PyTorch's reader answers with an error of another kind: KeyError, IndexError, ...
    for pickled in (b"\x80\x02h\x05.", b"\x80\x02a.", b"\x80\x02N]s.", b"\x80\x02K\x01Q.", b"\x80\x02G\x00.", b""):
        path = write_checkpoint()
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, pickled if name.endswith("data.pkl") else part)
        with pytest.raises(CheckpointError, match=r"phase9\.torch: the file is damaged \(it is no whole archive"):
            read_checkpoint(path)


def test_a_flipped_end_is_damage_and_no_error_of_zipfile(write_checkpoint: Callable[..., Path]) -> None:
    path = write_checkpoint()
    whole = path.read_bytes()
    for place in range(len(whole) - 98, len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with contextlib.suppress(CheckpointError):  # anything else fails the test
                assert read_checkpoint(path).iteration == 40


def test_the_hash_beside_a_file_is_heeded(write_checkpoint: Callable[..., Path]) -> None:
    path = write_checkpoint()
    path.with_name(f"{path.name}.sha256").write_text(f"{sha256(path)}  {path.name}\n")
    assert read_checkpoint(path).iteration == 40
    path.write_bytes(write_checkpoint("other.torch", iteration=41).read_bytes())
    with pytest.raises(CheckpointError, match=r"the file is damaged \(its SHA-256 is not the one in .*; copy it again"):
        read_checkpoint(path)


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 1000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"abc" * 1000).hexdigest()
