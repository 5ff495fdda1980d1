"""Does f_inter's axis matter? Slice axis, embedding axis and no f_inter: same budget, several seeds, one linear probe.

    python tools/study_axes.py --images FOLDER --labels FOLDER [--run runs/study_axes] [--seeds 3]

Needs a folder of scans and one of label maps with the same file names, such as the Medical Segmentation Decathlon's
Task04 (hippocampus). The probe asks whether the labelled structure is larger than in the median training scan. Stage 1
runs once per seed; each arm goes on from it, and all take about the same time. Writes `results.json` and
prints the table. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vissl_jointssl.checkpoints import is_finished, newest_checkpoint
from vissl_jointssl.manifest import Manifest, read_manifest
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.reading import read_scan
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.splitting import hash_patient, split_of
from vissl_jointssl.training import run_engine

ROOT = Path(__file__).resolve().parent.parent
TEST_SHARE = 0.5
# No scan of Task04 has fewer than 24 slices: how many there are would tell how large the structure is.
SLICES, SIZE = 16, 32
EPOCHS = {1: 2, 2: 4, 3: 2}
WIDTH = 160  # D; along 640 entries, the embedding axis takes 13 s a step on two cores
# A step of stage 2, whose f_intra is frozen, takes about a third of one of stage 3.
EPOCHS_ALONE = EPOCHS[3] + EPOCHS[2] // 3
VIEW = [f"num_slices={SLICES}", f"size=[{SIZE},{SIZE}]"]
# Stage 3 is of the other flavour: k-means tells volumes apart that are so alike that Sinkhorn's codes come out uniform.
CONFIGS = {1: "stage1_swav", 2: "stage2_swav", 3: "stage3_deepclusterv2"}
TRUNK = "config.MODEL.TRUNK.JOINT_SSL"
CPU = [
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.BACKEND=gloo",
    "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
    "config.DATA.PIN_MEMORY=False",
    "config.MODEL.AMP_PARAMS.USE_AMP=False",
]


@dataclass(frozen=True)
class Arm:
    """One way to make a volume's embedding of its slices: overrides of stages 2 and 3, and which stages there are."""

    name: str
    overrides: tuple[str, ...]
    stages: tuple[int, ...] = (2, 3)


OWN = f"~{TRUNK}.VOLUME_ENCODER.reference_length"  # the demo's, which only the slice axis has
ARMS = (
    Arm("slice axis", ()),
    Arm("embedding axis", (f"{TRUNK}.ATTENTION_AXIS=embedding", OWN)),
    Arm("no f_inter", (f"{TRUNK}.ATTENTION_AXIS=none", OWN, "+config.JOINT_SSL.SKIP_STAGE_2=True"), stages=(3,)),
)


def main() -> int:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of scans")
    parser.add_argument("--labels", type=Path, required=True, help="folder of label maps of the same names")
    parser.add_argument("--run", type=Path, default=Path("runs/study_axes"), help="folder of the study")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    manifest = prepare_labelled(args.images.resolve(), args.labels.resolve(), args.run / "prepared")
    scores: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        folder = args.run / f"seed{seed}"
        first = stage(1, folder / "stage1", manifest, seed, None, ())
        scores.setdefault("stage 1 only", []).append(probe(first, folder / "stage1_probe", manifest))
        for arm in ARMS:
            home, last = folder / arm.name.replace(" ", "_"), first
            for number in arm.stages:
                last = stage(number, home / f"stage{number}", manifest, seed, last, arm.overrides, len(arm.stages) == 1)
            scores.setdefault(arm.name, []).append(probe(last, home / "probe", manifest))
    write_results(args.run / "results.json", scores, manifest)
    return 0


def prepare_labelled(images: Path, labels: Path, out: Path) -> Manifest:
    """Cache the scans, each with the class "larger than the median training scan's" of its label map."""
    names = sorted(path.name for path in images.glob("*.nii.gz"))
    volumes, splits = {}, {}
    for name in names:
        scan = read_scan(labels / name)
        volumes[name] = float((scan.array > 0).sum() * abs(np.linalg.det(scan.affine[:3, :3])))  # mm^3
        splits[name] = split_of(hash_patient(name), 0.0, TEST_SHARE)
    median = statistics.median(volumes[name] for name in names if splits[name] == "train")
    sources = tuple(
        Source(
            name.partition(".")[0],
            name,
            hash_patient(name),
            modality="MR",
            split=splits[name],
            label=int(volumes[name] > median),
        )
        for name in names
    )
    prepare(Recipe("study_axes", images, sources), out)
    return read_manifest(out / "manifest.csv")


def stage(
    number: int,
    folder: Path,
    manifest: Manifest,
    seed: int,
    parent: Path | None,
    overrides: tuple[str, ...],
    alone: bool = False,
) -> Path:
    """Train one stage, unless that has been done; its last checkpoint."""
    if not is_finished(folder):
        # The demo's configs are the small ones; only data, size and length are the study's.
        epochs = EPOCHS_ALONE if alone else EPOCHS[number]
        view = ["size_crops=[32]"] if number == 1 else VIEW
        given = [
            f"config=jointssl/demo/{CONFIGS[number]}",
            f"config.DATA.TRAIN.DATA_PATHS=['{manifest.path}']",
            f"config.CHECKPOINT.DIR='{folder}'",
            f"config.SEED_VALUE={seed}",
            f"config.OPTIMIZER.num_epochs={epochs}",
            *(f"config.DATA.TRAIN.TRANSFORMS.0.{item}" for item in view),
            *([] if parent is None else [f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'"]),
            *([f"{TRUNK}.EMBEDDING_WIDTH={WIDTH}"] if number > 1 else []),
            *([f"config.MODEL.HEAD.PARAMS=[[mlp,{{dims:[{WIDTH}]}}]]"] if number == 3 else []),
            *overrides,
            *CPU,
        ]
        run_engine(given, folder, f"seed {seed}, {folder.parent.name}, stage {number}")
    last = newest_checkpoint(folder)
    assert last is not None  # it is finished
    return last


def probe(checkpoint: Path, folder: Path, manifest: Manifest) -> dict[str, float]:
    """Extract volume embeddings with VISSL's engine and fit one regularised logistic regression."""
    features = {}
    if not list(folder.glob("*test_volume_features.npy")):
        given = [
            "config=jointssl/extract_volumes",
            f"config.CHECKPOINT.DIR='{folder}'",
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{checkpoint}'",
            "config.DATA.NUM_DATALOADER_WORKERS=1",
            *(f"config.DATA.{split}.DATA_PATHS=['{manifest.path}']" for split in ("TRAIN", "TEST")),
            *(f"config.DATA.{split}.TRANSFORMS.0.{item}" for split in ("TRAIN", "TEST") for item in VIEW),
            *CPU,
        ]
        run_engine(given, folder, f"probe of {folder.parent.name}")
    for split in ("train", "test"):
        kinds = {kind: np.load(folder / f"rank0_chunk0_{split}_volume_{kind}.npy") for kind in ("features", "targets")}
        features[split] = (kinds["features"].reshape(len(kinds["targets"]), -1), kinds["targets"].ravel())
    classifier = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-4, 1, 6), cv=5, max_iter=2000, scoring="neg_log_loss", use_legacy_attributes=False
        ),
    )
    classifier.fit(*features["train"])
    samples, truth = features["test"]
    return {
        "AUC": float(roc_auc_score(truth, classifier.decision_function(samples))),
        "accuracy": float(np.mean(classifier.predict(samples) == truth)),
        "chance": float(max(np.mean(truth), 1 - np.mean(truth))),
    }


def write_results(path: Path, scores: dict[str, list[dict[str, float]]], manifest: Manifest) -> None:
    """Every run's scores, and a table of means and deviations."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    counts = {split: len(manifest.select(splits=[split])) for split in ("train", "test")}
    epochs = {**{str(number): count for number, count in EPOCHS.items()}, "3 alone": EPOCHS_ALONE}
    content = {
        "commit": commit.stdout.strip(),
        "volumes": counts,
        "epochs": epochs,
        "scores": scores,
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"{counts['train']} volumes to train, {counts['test']} to test; {path}")
    for name, runs in scores.items():
        cells = []
        for metric in ("AUC", "accuracy"):
            values = [run[metric] for run in runs]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{metric} {statistics.mean(values):.3f} ± {deviation:.3f}")
        print(f"{name:<16} {'  '.join(cells)}")


if __name__ == "__main__":
    sys.exit(main())
