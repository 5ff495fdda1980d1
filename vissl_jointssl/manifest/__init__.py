"""The door between preparation and everything after it: the table of volumes and images.

A prepared folder holds arrays, and `manifest.csv` that names them, one row each. Preparation writes it last, so a
manifest that exists is complete; training, evaluation and export read nothing else. Paths in it are relative to
its own folder, which can therefore be moved. It needs NumPy only, so that a notebook can read it.

A volume is an array `(F, H, W)` in `.npy`, or `(C, F, H, W)` with several channels on one grid, such as the sequences
of an MRI; it is memory-mapped on reading. An image is `(H, W)` or `(H, W, 3)` in `.npy`, PNG or JPEG. Integers stand
for [0, 1] by their own range, see `as_unit_interval`.

`quarantine.csv` beside it, which `jointssl doctor --quarantine` writes, names rows that nothing reads.
"""

from vissl_jointssl.manifest.arrays import as_unit_interval
from vissl_jointssl.manifest.boxes import Box, write_boxes
from vissl_jointssl.manifest.content import Manifest
from vissl_jointssl.manifest.entry import ARRAY_TYPES, COLUMNS, IMAGE_SUFFIXES, KINDS, SPLITS, Entry, ManifestError
from vissl_jointssl.manifest.grid import Grid, write_grid
from vissl_jointssl.manifest.quarantine import QUARANTINE_FILE, read_quarantine, write_quarantine
from vissl_jointssl.manifest.table import read_manifest, write_manifest

__all__ = [
    "ARRAY_TYPES",
    "COLUMNS",
    "IMAGE_SUFFIXES",
    "KINDS",
    "QUARANTINE_FILE",
    "SPLITS",
    "Box",
    "Entry",
    "Grid",
    "Manifest",
    "ManifestError",
    "as_unit_interval",
    "read_manifest",
    "read_quarantine",
    "write_boxes",
    "write_grid",
    "write_manifest",
    "write_quarantine",
]
