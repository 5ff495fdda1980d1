"""Joint self-supervised pre-training of 2D and 3D medical image encoders, as a plugin to VISSL.

Importing this package is light and never imports VISSL; `import vissl_jointssl.plugin` does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vissl_jointssl.pretrained import load_pretrained

__all__ = ["__version__", "load_pretrained"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_pretrained` at its first use, because it needs PyTorch."""
    if name == "load_pretrained":
        from vissl_jointssl.pretrained import load_pretrained

        return load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
