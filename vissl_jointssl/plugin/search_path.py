"""Hydra finds our configs, and VISSL's, from any working directory."""

from __future__ import annotations

from pathlib import Path

import vissl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

import vissl_jointssl


def our_configs() -> Path:
    """The folder that holds ``config/jointssl``: inside the installed package, or beside it in a checkout."""
    package = Path(vissl_jointssl.__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def stock_configs() -> Path:
    """The folder that VISSL's wheel installs beside its package."""
    return Path(vissl.__file__).resolve().parent.parent / "configs"


class JointSSLSearchPath(SearchPathPlugin):
    """Adds both folders by their absolute paths, behind what VISSL's own plugin puts in front.

    VISSL's (``hydra_plugins/vissl_plugin/vissl_plugin.py:12``) searches ``configs`` of the working directory, then the
    Python package ``configs``, which is somebody else's where the working directory has a package of that name.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it composes."""
        search_path.append(provider="vissl_jointssl", path=f"file://{our_configs()}")
        search_path.append(provider="vissl_jointssl", path=f"file://{stock_configs()}")


def register_search_path() -> None:
    """Tell Hydra about our search path; a second call changes nothing."""
    Plugins.instance().register(JointSSLSearchPath)
