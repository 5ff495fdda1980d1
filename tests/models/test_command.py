from __future__ import annotations

import json

import pytest
import torch
from deformable_attention import DeformableAttention1D
from torchvision.models import resnet50

from vissl_jointssl.cli import main
from vissl_jointssl.models.parameter_counts import count_parameters
from vissl_jointssl.models.slice_encoder import PAPER_LEVELS


def counted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, int]:
    assert main(["parameters", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_released_preset_has_table_7s_31_16_million(capsys: pytest.CaptureFixture[str]) -> None:
    found = counted(capsys, "--preset", "released")
    assert found == {
        "f_intra": 27_276_992,
        "f_inter": 3_885_892,
        "total": 31_162_884,
        "prototypes": 3000 * 640,
        "decoder": 640 * 5888 + 5888,
    }
    assert f"{found['total'] / 1e6:.2f}" == "31.16"


def test_the_released_count_is_that_of_the_libraries_it_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    def size(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    resnet = size(resnet50()) - size(resnet50().fc)
    attention = size(DeformableAttention1D(dim=64, downsample_factor=4, offset_scale=2, offset_kernel_size=6))
    feed_forward = size(torch.nn.Linear(640, 720)) + size(torch.nn.Linear(720, 640)) + 2 * size(torch.nn.LayerNorm(640))
    found = counted(capsys, "--preset", "released")
    assert found["f_intra"] == resnet + size(torch.nn.Linear(5888, 640))
    assert found["f_inter"] == 4 * (attention + feed_forward)


def test_the_paper_is_the_default_and_parts_can_be_exchanged(capsys: pytest.CaptureFixture[str]) -> None:
    paper = counted(capsys)
    assert paper == counted(capsys, "--preset", "paper")
    assert paper["f_intra"] == 23_508_032 + 3904 * 640 + 640
    assert paper["total"] == paper["f_intra"] + paper["f_inter"]
    assert counted(capsys, "--attention-axis", "none")["f_inter"] == 0
    assert counted(capsys, "--attention-axis", "embedding")["f_inter"] == 3_885_892
    assert counted(capsys, "--levels", "res4", "res5")["f_intra"] == 23_508_032 + 3072 * 640 + 640
    assert counted(capsys, "--prototypes", "10", "--embedding-width", "320")["prototypes"] == 3200


def test_the_table_shows_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parameters", "--preset", "released"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["27,276,992", "3,885,892", "31,162,884", "3,774,208", "1,920,000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "relased"], "unknown preset 'relased'; did you mean released?"),
        (["--attention-axis", "slices"], "unknown attention axis 'slices'; did you mean slice?"),
        (["--levels", "res6"], "unknown level 'res6'; did you mean res"),
        (["--embedding-width", "0"], "D must be positive and K not negative, got D = 0"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["parameters", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("jointssl parameters: ")
    assert message in error
    assert error.count("\n") == 1


def test_options_of_f_inter_count() -> None:
    def f_inter(**options: object) -> int:
        return count_parameters(levels=PAPER_LEVELS, attention_axis="slice", volume_encoder=options).f_inter

    assert f_inter(downsample=[1]) * 2 - f_inter(downsample=[2, 1]) == 1280  # the LayerNorm before the first block
