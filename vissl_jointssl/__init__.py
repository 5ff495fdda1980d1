"""Joint self-supervised pre-training of 2D and 3D medical image encoders, as a plugin to VISSL.

Importing this package is light and never imports VISSL; `import vissl_jointssl.plugin` does that.
"""

__version__ = "0.1.0"
