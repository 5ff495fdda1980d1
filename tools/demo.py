"""`make demo`: real CT and MR volumes to verified weights and a report, with one command.

    python tools/demo.py [--run runs/demo] [--device auto|cpu|gpu]

Gets the scans, prepares them, trains the three stages, extracts embeddings and fits linear classifiers with VISSL's
engines, exports f_intra to torchvision, and writes `report.html`. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fetch_demo_volumes import fetch
from tqdm import tqdm

import vissl_jointssl
from vissl_jointssl.checkpoints import sha256
from vissl_jointssl.export.torchvision import export_torchvision
from vissl_jointssl.manifest import Entry, Manifest, as_unit_interval
from vissl_jointssl.preparation.datasets.demo_volumes import LABEL_NAMES, demo_volumes
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.report import collapse_figure, contents, figures, loss_figure
from vissl_jointssl.report.curves import read_loss_curve, read_meters
from vissl_jointssl.report.measures import read_measures
from vissl_jointssl.report.page import write_report
from vissl_jointssl.run_signs import COLLAPSE_FILE, MASKED_BASELINES_FILE
from vissl_jointssl.training import Recipe, machine_overrides, read_recipe, run_engine, train
from vissl_jointssl.views import ViewRecipe, apply_view, draw_view, window

ROOT = Path(__file__).resolve().parent.parent
VIEW = ViewRecipe(size=(48, 48), num_slices=12)  # as configs/config/jointssl/demo
STAGE_NAMES = ("1, slices: SwAV", "2, masked slices: predict their embeddings", "3, volumes: clustering agreement")
PROTOTYPES = (16, None, 8)
GUESSES = {"mean_embedding": "mean embedding", "neighbours": "average of the neighbours"}  # measure: its name
EVALUATIONS = {  # folder: (feature, what it is called in the report)
    "linear_slice": ("res5avg", "slices: pooled res5 (2048)"),
    "linear_volume": ("volume", "volumes: Z (640)"),
}


def main() -> int:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    args = parser.parse_args()
    began = time.monotonic()
    for line in fetch(args.run / "raw"):
        print(line)
    manifest = prepare_with_bar(args.run)
    recipe = replace(
        read_recipe(ROOT / "configs" / "recipes" / "demo.yaml", [f"device={args.device}"]),
        run=args.run,
        manifests=(args.run / "prepared" / "manifest.csv",),
    )
    last = train(recipe, say=print)
    for name in ("extract_slices", "extract_volumes", *EVALUATIONS):
        once(recipe, f"jointssl/demo/{name}", last)
    account = export_torchvision(last, args.run / "export" / "resnet50.pth")
    print(account.summary())
    report = args.run / "report.html"
    write_report(make_report(recipe, manifest, last, account.summary()), report)
    chance = chance_levels(manifest)
    for name, score in read_scores(args.run).items():
        print(f"linear evaluation, {name}: {score:.1%}, chance {chance[name]:.1%}")
    print(f"{report} after {time.monotonic() - began:.0f} s")
    return 0


def prepare_with_bar(run: Path) -> Manifest:
    """Prepare the scans, showing which one is read."""
    with tqdm(desc="prepare", unit="scan", dynamic_ncols=True) as bar:

        def show(done: int, total: int, path: str) -> None:
            bar.total, bar.n = total, done
            bar.set_postfix_str(path)

        return prepare(demo_volumes(run / "raw"), run / "prepared", progress=show)


def once(recipe: Recipe, config: str, checkpoint: Path) -> None:
    """Run one of VISSL's engines on a checkpoint, unless that has been done."""
    folder = recipe.run / config.rpartition("/")[2]
    overrides = [
        f"config={config}",
        f"config.CHECKPOINT.DIR='{folder}'",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{checkpoint}'",
        *(f"config.DATA.{split}.DATA_PATHS=['{recipe.manifests[0]}']" for split in ("TRAIN", "TEST")),
        *machine_overrides(replace(recipe, processes=1)),
    ]
    done = folder / "done.json"
    asked = json.dumps({"overrides": overrides, "checkpoint": sha256(checkpoint)})
    if done.exists() and done.read_text(encoding="utf-8") == asked:
        return
    for left_over in folder.glob("*"):  # of an interrupted run, or of another checkpoint
        left_over.unlink()
    run_engine(overrides, folder, folder.name)
    done.write_text(asked, encoding="utf-8")


def read_scores(run: Path) -> dict[str, float]:
    """Test accuracy of each linear evaluation after its last epoch, 0 to 1."""
    scores = {}
    for folder, (feature, name) in EVALUATIONS.items():
        meter = f"test_accuracy_list_meter.top_1.{feature}"
        readings = [one for one in read_meters(run / folder / "metrics.json") if one.name == meter]
        scores[name] = readings[-1].value / 100
    return scores


def chance_levels(manifest: Manifest) -> dict[str, float]:
    """Share of the most frequent class of the labelled test regions, by evaluation as in `read_scores`.

    A slice counts as one sample of its region's class, and regions differ in slices.
    """
    slices: Counter[int] = Counter()
    volumes: Counter[int] = Counter()
    for entry in manifest.select(splits=["test"]):
        if entry.label is not None:
            slices[entry.label] += entry.shape[0]
            volumes[entry.label] += 1
    counts = {"linear_slice": slices, "linear_volume": volumes}
    return {name: max(counts[folder].values()) / counts[folder].total() for folder, (_, name) in EVALUATIONS.items()}


def make_report(recipe: Recipe, manifest: Manifest, last: Path, account: str) -> contents.RunReport:
    """Collect what the run left into one page."""
    curves = [read_loss_curve(recipe.folder(position) / "stdout.json") for position in range(len(recipe.stages))]
    stages = [
        contents.StageSummary(
            name, stage.config, curve.epochs, curve.first_loss, curve.last_loss, seconds(recipe.folder(position))
        )
        for position, (name, stage, curve) in enumerate(zip(STAGE_NAMES, recipe.stages, curves, strict=True))
    ]
    scores, chance = read_scores(recipe.run), chance_levels(manifest)
    guesses = read_measures(recipe.folder(1) / MASKED_BASELINES_FILE)
    beside = [{}, {name: guesses.series[key] for key, name in GUESSES.items()}, {}]
    collapse = read_measures(recipe.folder(2) / COLLAPSE_FILE)
    return contents.RunReport(
        title="Joint image-volume pre-training: the demo",
        lead=(
            "Three stages on five real scans (three CT, two MR), cut to regions of 16 slices. Minutes of training on "
            "five scans show that everything runs and is connected; expect views that agree more often than by "
            "chance, and scores near chance. The weights are not a pre-trained model to use."
        ),
        stages=stages,
        tables=[scan_table(manifest), score_table(scores, chance), account_table(account)],
        figures=[
            contents.Figure(
                "curves",
                loss_figure.loss_curves(
                    [
                        loss_figure.StageCurve(f"Stage {name.partition(':')[0]}", curve, prototypes, beside=others)
                        for name, curve, prototypes, others in zip(
                            STAGE_NAMES, curves, PROTOTYPES, beside, strict=True
                        )
                    ]
                ),
                "Loss of each stage over its iterations",
                "A clustering loss at ln K has learned nothing yet: every prototype is equally likely. Stage 2 "
                "is beside two guesses that need no learning: the mean of all visible slices, and of two neighbours.",
            ),
            contents.Figure(
                "collapse",
                collapse_figure.collapse_curves(collapse),
                "Five measures of stage 3's volume embeddings and codes over its iterations, with their limits",
                "Blue stays off the shaded side as long as volumes are told apart.",
            ),
            contents.Figure(
                "views",
                figures.view_grid(some_views(manifest)),
                "Two views of three regions, slice by slice",
                "What stages 2 and 3 see: two views of one region, each row one view.",
            ),
            contents.Figure("neighbours", neighbours(recipe.run, manifest), "Slices and their nearest neighbours",
                "Nearest slices of other scans, by the cosine of the exported ResNet-50's features."),
            *(
                contents.Figure(
                    "linear_evaluation",
                    figures.score_bars([figures.Score(name, score)], chance[name]),
                    f"Accuracy of the linear classifier of {name} beside chance",
                    "Trained on one CT, tested on a CT and an MR of other people.",
                )
                for name, score in scores.items()
            ),
        ],
        environment=environment(last),
        commands=["make demo", f"jointssl train configs/recipes/demo.yaml run={recipe.run}"],
        warnings=[
            *(problem for curve in curves for problem in curve.problems),
            *(problem for log in (guesses, collapse) for problem in log.problems),
            *(f"Stage 3, {warning}" for warning in collapse.warnings),
        ],
    )  # fmt: skip


def seconds(folder: Path) -> float | None:
    """Wall time of a stage: from its process's start to its last checkpoint, if it ran in one go."""
    files = [folder / "settings.json", *folder.glob("model_final_checkpoint_phase*.torch")]
    return files[-1].stat().st_mtime - files[0].stat().st_mtime if len(files) == 2 else None


def scan_table(manifest: Manifest) -> contents.Table:
    """What the regions were cut from."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in manifest.entries:
        groups.setdefault((scan_of(entry), entry.modality, entry.split), []).append(entry)
    rows: list[list[contents.Cell]] = [
        [scan, modality, split, len(entries), *(sum(entry.label == label for entry in entries) for label in range(3))]
        for (scan, modality, split), entries in groups.items()
    ]
    return contents.Table("views", ["scan", "modality", "split", "regions", *LABEL_NAMES], rows, "The five scans")


def score_table(scores: dict[str, float], chance: dict[str, float]) -> contents.Table:
    """The scores, chance beside them."""
    rows = [[name, f"{value:.1%}", f"{chance[name]:.1%}"] for name, value in scores.items()]
    return contents.Table("linear_evaluation", ["frozen features", "test accuracy", "chance"], rows)


def account_table(account: str) -> contents.Table:
    """The export's account, line by line."""
    return contents.Table("export", ["f_intra to torchvision's resnet50"], [[line] for line in account.splitlines()])


def some_views(manifest: Manifest) -> dict[str, torch.Tensor]:
    """Two views of the middle region of each training scan."""
    views = {}
    by_scan: dict[str, list[Entry]] = {}
    for entry in manifest.select(splits=["train"]):
        by_scan.setdefault(scan_of(entry), []).append(entry)
    for seed, (scan, entries) in enumerate(by_scan.items()):
        volume = manifest.open(entries[len(entries) // 2])
        generator = torch.Generator().manual_seed(seed)
        drawn = [draw_view(VIEW, (volume.shape[0], volume.shape[1], volume.shape[2]), generator) for _ in range(2)]
        views[scan] = torch.stack(
            [apply_view(torch.from_numpy(as_unit_interval(window(volume, one))), one) for one in drawn]
        )
    return views


def neighbours(run: Path, manifest: Manifest) -> bytes:
    """Nearest slices of other scans for one slice of each test scan and class."""
    embeddings: list[np.ndarray] = []
    images: list[np.ndarray] = []
    scans: list[str] = []
    queries: list[int] = []
    seen: set[tuple[str, int | None]] = set()
    for split in ("test", "train"):
        entries = [entry for entry in manifest.select(splits=[split]) if entry.label is not None]
        found = {kind: np.load(run / "extract_slices" / f"rank0_chunk0_{split}_res5avg_{kind}.npy") for kind in
                 ("features", "inds")}  # fmt: skip
        order = np.argsort(found["inds"].ravel())
        embeddings.append(found["features"].reshape(len(order), -1)[order])
        for entry in entries:
            slices = as_unit_interval(manifest.open(entry))
            if split == "test" and (scan_of(entry), entry.label) not in seen:
                seen.add((scan_of(entry), entry.label))
                queries.append(len(images) + len(slices) // 2)
            images += list(slices)
            scans += [scan_of(entry)] * len(slices)
    return figures.neighbour_grid(
        torch.from_numpy(np.concatenate(embeddings)), torch.from_numpy(np.stack(images)), scans, queries[:5]
    )


def scan_of(entry: Entry) -> str:
    """Name of the scan that a region was cut from."""
    return entry.id.rpartition("-")[0]


def environment(last: Path) -> dict[str, str]:
    """Versions, machine and commit."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "vissl_jointssl": vissl_jointssl.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "cores": str(torch.get_num_threads()),
        "GPU": gpu,
        "last checkpoint, sha256": sha256(last)[:16],
    }


if __name__ == "__main__":
    sys.exit(main())
