"""What holds for every data set, so that a new one needs no test of these."""

from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl.preparation.datasets import all_data_sets, data_set_recipe
from vissl_jointssl.preparation.errors import PreparationError

ROOT = Path(__file__).resolve().parents[3]
WORDS = sorted(all_data_sets())
PAPER = (
    *("luna2016", "lits2017", "brats2018", "msd", "mots", "lidc_idri", "ribfrac", "tcia_covid19", "nih_chestxray8"),
    *("mmwhs_ct", "mmwhs_mr", "vindr_cxr", "jsrt", "luna2016_v2"),
)


def test_every_data_set_of_the_paper_is_a_word() -> None:
    assert set(PAPER) <= set(WORDS)


@pytest.mark.parametrize("word", WORDS)
def test_docs_have_its_row(word: str) -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| `") and f"`{word}`" in line.split("|")[1]]


@pytest.mark.parametrize("word", WORDS)
def test_it_says_where_it_is_had_and_under_which_licence(word: str) -> None:
    data_set = all_data_sets()[word]
    assert data_set.name == word
    assert "http" in data_set.home
    assert min(map(len, (data_set.title, data_set.licence, data_set.contents, data_set.labels, data_set.layout))) > 3
    assert set(data_set.modality.split(", ")) <= {"CT", "MR", "XR"}


@pytest.mark.parametrize("word", WORDS)
def test_a_wrong_folder_is_told_from_the_right_one_by_what_was_looked_for_and_found(word: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(
        PreparationError, match=r"(?s)not found below it: .*Found there: holiday.jpg.*is had from"
    ) as error:
        data_set_recipe(word, tmp_path)
    assert word in str(error.value)
    with pytest.raises(PreparationError, match="Found there: nothing, it does not exist"):
        data_set_recipe(word, tmp_path / "nowhere")
    with pytest.raises(PreparationError, match=f"needs the folder where it lies: `jointssl prepare {word} FOLDER`"):
        data_set_recipe(word, None)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "vissl_jointssl/preparation/datasets").glob("*.py")), ids=lambda p: p.stem
)
def test_a_data_set_is_one_short_file(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


def test_an_unknown_word_is_answered_with_the_nearest() -> None:
    with pytest.raises(PreparationError, match=r"no data set is called 'luna16'; did you mean luna2016\?"):
        data_set_recipe("luna16", None)
