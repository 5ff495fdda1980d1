"""`jointssl train`: runs a recipe's stages through VISSL's engine. VISSL is never imported on this side."""

from vissl_jointssl.training.chain import announce, plan, train
from vissl_jointssl.training.engine import machine_overrides, run_engine
from vissl_jointssl.training.preflight import Preflight, look_ahead
from vissl_jointssl.training.recipe import Recipe, RecipeError, Stage, read_recipe
from vissl_jointssl.training.stopping import RunStopped

__all__ = [
    "Preflight",
    "Recipe",
    "RecipeError",
    "RunStopped",
    "Stage",
    "announce",
    "look_ahead",
    "machine_overrides",
    "plan",
    "read_recipe",
    "run_engine",
    "train",
]
