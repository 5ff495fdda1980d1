from __future__ import annotations

import pytest
import torch

from vissl_jointssl.models.valid_slices import valid_lengths, valid_slices


def test_nan_slices_are_padding_and_constant_slices_are_real() -> None:
    volume = torch.zeros(2, 4, 1, 3, 3)
    volume[0, 2:] = float("nan")
    assert valid_slices(volume).tolist() == [[True, True, False, False], [True] * 4]


def test_lengths_count_the_slices_of_each_volume() -> None:
    valid = torch.tensor([[True, False, False], [True, True, True]])
    assert valid_lengths(valid).tolist() == [1, 3]


def test_a_batch_without_its_axes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(B, F, C, H, W\), got \(4, 8, 8\)"):
        valid_slices(torch.zeros(4, 8, 8))


def test_a_volume_without_slices_is_named() -> None:
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch have no valid slice"):
        valid_lengths(torch.tensor([[True, False], [False, False]]))


def test_padding_inside_a_volume_is_named() -> None:
    with pytest.raises(ValueError, match=r"volumes \[0\] of the batch have padding before an existing slice"):
        valid_lengths(torch.tensor([[True, False, True], [True, True, True]]))


@pytest.mark.parametrize("valid", [torch.ones(2, 3), torch.ones(3, dtype=torch.bool)])
def test_a_mask_of_another_kind_is_refused(valid: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"valid must be a boolean \(B, F\)"):
        valid_lengths(valid)


def test_on_a_device_the_check_is_asked_of_the_device_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.Tensor, str]] = []
    monkeypatch.setattr(torch, "_assert_async", lambda *given: asked.append(given))
    lengths = valid_lengths(torch.ones(2, 3, dtype=torch.bool, device="meta"))  # meta has no values to wait for
    assert lengths.shape == (2,)
    ((sound, message),) = asked
    assert (sound.device.type, sound.shape, sound.dtype) == ("meta", (), torch.bool)
    assert "run valid_lengths on the batch on the CPU to see which" in message
