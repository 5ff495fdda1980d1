"""Does pre-training help, on real data? Scratch, stage 1, stages 1 and 3, and all three, on four downstream tasks.

    python tools/study_downstream.py DATA [--device auto|cpu|gpu]

DATA holds `msd_hippocampus` (scans and label maps of the Medical Segmentation Decathlon's Task04), `luna16_slices` and
`msd_heart_slices` (PNG), `dsb2018_nuclei` (images and maps of instances) and `adrenalmnist3d/adrenalmnist3d_64.npz`.
Prepares them, pre-trains by the recipes `study_*`, runs the suite `study` and writes `runs/study/report.html`; all
below the folder it is called from. What is done is not done again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from vissl_jointssl import cli

ROOT = Path(__file__).resolve().parent.parent
RUN = Path("runs/study")
SUITE = ROOT / "configs" / "evaluation" / "suites" / "study.yaml"
RECIPES = ("study_joint", "study_without_mask_prediction", "study_longer_stage1")
SPLIT = ("--validation-share", "0.1", "--test-share", "0.2")
SPLITS_OF = {"msd_hippocampus": SPLIT, "dsb2018_nuclei": SPLIT, "luna16_slices": (), "msd_heart_slices": ()}
ADRENAL = Path("adrenalmnist3d") / "adrenalmnist3d_64.npz"
BLOCK = (4, 2, 2)  # voxels that become one: 64 x 64 x 64 shapes as 16 slices of 32 x 32


def main() -> int:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the five data sets")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    args = parser.parse_args()
    device = f"device={args.device}"
    reduced = RUN / "raw" / "adrenalmnist3d.npz"
    if not reduced.exists():
        reduce_shapes(args.data / ADRENAL, reduced)
    commands = [
        *(["prepare", args.data / name, "--out", RUN / "data" / name, *split] for name, split in SPLITS_OF.items()),
        ["prepare", reduced, "--out", RUN / "data" / "adrenalmnist3d"],
        *(["train", ROOT / "configs" / "recipes" / f"{recipe}.yaml", device] for recipe in RECIPES),
        ["evaluate", SUITE, device],
        ["report", RUN / "evaluation", "--out", RUN / "report.html"],
    ]
    for command in commands:
        words = [str(word) for word in command]
        print("jointssl", *words)
        if code := cli.main(words):
            return code
    return 0


def reduce_shapes(source: Path, target: Path) -> None:
    """Means of blocks of voxels in place of the voxels of a MedMNIST file.

    Args:
        source: `.npz` with `SPLIT_images` `(N, 64, 64, 64)`, uint8, and `SPLIT_labels`.
        target: The same with `(N, 16, 32, 32)`.
    """
    arrays = {}
    with np.load(source) as content:
        for name in content.files:
            array = content[name]
            if name.endswith("_images"):
                counts = [(side // block, block) for side, block in zip(array.shape[1:], BLOCK, strict=True)]
                split = array.reshape(len(array), *(number for pair in counts for number in pair))
                array = np.rint(split.mean(axis=(2, 4, 6))).astype(array.dtype)
            arrays[name] = array
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **arrays)


if __name__ == "__main__":
    sys.exit(main())
