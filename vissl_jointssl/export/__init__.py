"""Pre-trained weights for other libraries: one file per target, each proved by a forward pass in that library.

A new target is one file with a function ``(checkpoint, out) -> ExportAccount`` and one line in ``registry.py``.
"""
