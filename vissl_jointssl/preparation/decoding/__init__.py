"""One decoder per file format: each gives voxels, an affine and nothing else of the header."""
