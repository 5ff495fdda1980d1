"""One file per public data set; each takes the folder where its files lie and downloads nothing.

A file of this folder is found by being there: it has a constant `DATA_SETS`, a tuple of one or more `DataSet`.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet, WrongFolder
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.recipe import Recipe
from vissl_jointssl.spelling import nearest

_log = logging.getLogger(__name__)


def all_data_sets() -> dict[str, DataSet]:
    """Every data set by its name, in order."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for data_set in importlib.import_module(f"{__name__}.{module.name}").DATA_SETS:
            found[data_set.name] = data_set
    return dict(sorted(found.items()))


def data_set_recipe(name: str, root: Path | str | None) -> Recipe:
    """The recipe of a data set by its name, over the folder where its files lie.

    Raises:
        PreparationError: If nobody knows the name; or if the folder is not given or does not hold it, with what was
            looked for, what was found, and where the data set is had.
    """
    known = all_data_sets()
    if name not in known:
        raise PreparationError(f"no data set is called {name!r}{nearest(name, known)}")
    data_set = known[name]
    where = f"{data_set.title} is had from {data_set.home} and unpacks to\n{data_set.layout.rstrip()}"
    if root is None:
        raise PreparationError(f"{name} needs the folder where it lies: `jointssl prepare {name} FOLDER`. {where}")
    try:
        recipe = data_set.recipe(Path(root))
    except WrongFolder as error:
        raise PreparationError(f"{name}: {error}. Next: give the folder that holds these. {where}") from None
    if data_set.count not in (None, len(recipe.sources)):
        _log.warning(
            "%s: %d of the %d sources of a full copy (%s)",
            name,
            len(recipe.sources),
            data_set.count,
            data_set.contents,
        )
    return recipe
