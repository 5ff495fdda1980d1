"""From raw scans on disk to a cache of arrays and its manifest; NumPy and image readers, no torch.

`pipeline.prepare` runs a `recipe.Recipe`, `pipeline.prepare_folder` makes one from a folder of scans.
"""
