"""From raw scans on disk to a cache of arrays and its manifest; NumPy and image readers, no torch.

`pipeline.prepare` runs a `recipe.Recipe`, `pipeline.prepare_folder` makes one from a folder of scans.

| folder | what it does |
|---|---|
| `sources` | finds scans and tables: in a plain folder, a CSV, a MedMNIST file, and for `datasets` |
| `datasets` | one file per public data set |
| `decoding` | one decoder per file format; `reading` and `pictures` are their doors |
| `processing` | turns, resamples, windows, crops and cuts |
| `cache` | writes the prepared folder |
| `doctor` | says what is wrong |
"""
