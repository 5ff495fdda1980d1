"""A folder of scans, of which nothing is known but what its files say, as a recipe."""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Recipe
from vissl_jointssl.preparation.sources.finding import find_sources


def folder_recipe(folder: Path | str, out_dir: Path | str, modality: str | None = None) -> Recipe:
    """The recipe of a folder of scans, of which nothing is known but what the files say.

    Raises:
        PreparationError: If the folder does not exist or holds no scan.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PreparationError(f"{printable(folder)}: is not a folder. Next: give the folder that holds the scans")
    sources = find_sources(folder, modality, skip=Path(out_dir))
    if not sources:
        raise PreparationError(
            f"{printable(folder)}: holds no scan. Next: give a folder with .nii, .nii.gz, .mha, .mhd, .nrrd, .png or "
            ".jpg files, or with folders of DICOM files"
        )
    return Recipe("folder", folder, tuple(sources))  # not its own name, which may be a patient's


def check_patients(recipe: Recipe) -> None:
    """Raise `PreparationError` where a split is asked for and everything counts as one patient."""
    shares = recipe.validation_share + recipe.test_share
    if len(recipe.sources) > 1 and shares > 0 and len({source.patient for source in recipe.sources}) == 1:
        raise PreparationError(
            f"{printable(recipe.root)}: all {len(recipe.sources)} scans count as one patient, as they lie in one "
            "topmost folder, and patients are never divided. Next: give the folder in which each patient has a file "
            "or folder"
        )
