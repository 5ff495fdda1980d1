"""CT-like scans for timing: sizes, values and noise as a scanner gives them, so that gzip has as hard a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

AIR, LUNG, TISSUE, BONE = -1000.0, -850.0, 40.0, 700.0  # HU
NOISE = 20.0  # HU, of a routine chest or abdomen CT


def write_synthetic_ct(path: Path, shape: tuple[int, int, int], seed: int) -> None:
    """A body of soft tissue with lungs and a spine, textured and noisy, as `.nii.gz` of int16 HU.

    Args:
        path: The file.
        shape: (i, j, k): columns, rows and slices.
        seed: Another seed, another patient.
    """
    import nibabel

    rng = np.random.default_rng(seed)
    x, y = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape[:2])
    x, y = x[:, None], y[None, :]
    volume = np.empty(shape, np.int16)
    for number in range(shape[2]):
        swelling = 1 + 0.1 * np.sin(6 * number / shape[2] + seed)
        plane = np.full(shape[:2], AIR, np.float32)
        plane[(x / 0.85) ** 2 + (y / 0.65) ** 2 < swelling] = TISSUE
        for side in (-0.4, 0.4):
            plane[((x - side) / 0.27) ** 2 + ((y - 0.05) / 0.4) ** 2 < swelling] = LUNG
        plane[x**2 + (y + 0.45) ** 2 < 0.01] = BONE
        organs = np.kron(rng.normal(0, 25, (-(-shape[0] // 16), -(-shape[1] // 16))), np.ones((16, 16)))
        plane += np.where(plane > AIR, organs[: shape[0], : shape[1]], 0).astype(np.float32)
        plane += rng.normal(0, NOISE, shape[:2]).astype(np.float32)
        volume[:, :, number] = np.clip(np.rint(plane), -1024, 3071)
    affine = np.diag([0.8, 0.8, 1.5, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
