"""Predictions read back from the runs' folders, and drawn on the pictures."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.evaluation.segmentation.predictions import to_source_grid
from vissl_jointssl.manifest import Box, Entry, Grid, Manifest, read_manifest, write_boxes, write_grid, write_manifest
from vissl_jointssl.report.case_overlays import draw_overlays, telling_cases
from vissl_jointssl.report.evaluation_page import render_evaluations
from vissl_jointssl.report.evaluation_records import Evaluation
from vissl_jointssl.report.evaluations import read_evaluations
from vissl_jointssl.report.overlay_figures import PREDICTION, TRUTH, BoxCase, MaskCase, box_overlays, mask_overlays
from vissl_jointssl.report.predictions import (
    PredictionError,
    ScoredBox,
    find_manifest,
    predicted_boxes,
    predicted_masks,
    read_picture,
    true_boxes,
    true_masks,
)

Make = Callable[..., Path]
SHAPE = (4, 24, 24)


@pytest.fixture
def write_data(tmp_path: Path) -> Callable[..., Manifest]:
    """Rows `case0` to `case4` with label maps, and whatever a row is to have besides."""

    def write(kind: str = "volume", labels: np.ndarray | None = None, **more: str) -> Manifest:
        folder = tmp_path / "data"
        folder.mkdir()
        shape = SHAPE if kind == "volume" else SHAPE[1:]
        truth = np.zeros(shape, np.uint8) if labels is None else labels
        if labels is None:
            truth[..., 6:14, 8:16] = 3
            if kind == "volume":
                truth[0] = truth[3] = 0
                truth[2, 14:18, 8:16] = 3
        np.save(folder / "labels.npy", truth)
        np.save(folder / "array.npy", np.full(shape, 30000, np.uint16))
        digest = hashlib.sha256((folder / "array.npy").read_bytes()).hexdigest()
        label = None if "boxes_path" in more else "labels.npy"
        entries = [
            Entry(
                f"case{n}", kind, "array.npy", label, None, "test", f"p{n}", "CT", (2.0, 1.0, 0.5), shape, "uint16",
                digest, **more,
            )
            for n in range(5)
        ]  # fmt: skip
        write_manifest(folder / "manifest.csv", entries)
        return read_manifest(folder / "manifest.csv")

    return write


def evaluation_of(path: Path) -> Evaluation:
    (evaluation,), _ = read_evaluations([path])
    return evaluation


def colour_share(png: bytes, colour: str) -> int:
    """How many pixels have exactly a colour."""
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((pixels == wanted).all(axis=-1).sum())


def tinted(png: bytes) -> tuple[int, int]:
    """How many pixels are more red than blue, and more blue than red, and of no line's colour."""
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    warm = pixels[..., 0] - pixels[..., 2]
    calm = (pixels.max(axis=-1) - pixels.min(axis=-1)) < 120
    return int(((warm > 30) & calm).sum()), int(((warm < -30) & calm).sum())


def test_a_prediction_on_the_scans_voxels_comes_back_onto_the_prepared_ones(
    make_evaluation: Make, write_data: Callable[..., Manifest], tmp_path: Path
) -> None:
    # The scan has other axes, one of them turned round, and twice the voxels along H.
    source = np.array([[0, 0.0, -0.5, 9], [-0.5, 0, 0, 4], [0, 2.0, 0, -7], [0, 0, 0, 1]])
    prepared = np.array([[0, 0, -0.5, 9], [0, -1.0, 0, 3.75], [2.0, 0, 0, -7], [0, 0, 0, 1]])
    grid = Grid(prepared, source, (48, 4, 24))
    manifest = write_data(grid_path="grid.json")
    write_grid(grid, manifest.root / "grid.json")
    evaluation = evaluation_of(make_evaluation(options={"labels": [3]}))
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    run, entry = evaluation.runs[0], manifest.entries[0]
    path = evaluation.folder(run) / "predictions" / "case0.nii.gz"
    path.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(to_source_grid(labels, grid), source), path)
    truth, numbers = true_masks(manifest, entry, evaluation)
    assert numbers == (3,)
    np.testing.assert_array_equal(truth[0], np.load(manifest.root / "labels.npy") == 3)
    np.testing.assert_array_equal(predicted_masks(evaluation, run, manifest, entry, numbers)[0], labels == 3)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), source), path)
    with pytest.raises(PredictionError, match=r"case0.nii.gz has shape \(3, 3, 3\), the scan \(48, 4, 24\)"):
        predicted_masks(evaluation, run, manifest, entry, numbers)


def test_planes_that_overlap_are_one_picture_each(make_evaluation: Make, write_data: Callable[..., Manifest]) -> None:
    planes = np.random.default_rng(0).integers(0, 2, (2, *SHAPE[1:])).astype(np.uint8)
    manifest = write_data("image", planes)
    evaluation = evaluation_of(make_evaluation("jsrt", "segmentation_2d", "dice", options={}))
    run, entry = evaluation.runs[0], manifest.entries[1]
    truth, numbers = true_masks(manifest, entry, evaluation)
    assert numbers == (1, 2)
    folder = evaluation.folder(run) / "predictions"
    folder.mkdir(parents=True)
    Image.fromarray(planes[0] * 255).save(folder / "case1-1.png")
    with pytest.raises(PredictionError, match=r"case1.png does not exist, nor one for each target"):
        predicted_masks(evaluation, run, manifest, entry, numbers)
    Image.fromarray(planes[1] * 255).save(folder / "case1-2.png")
    np.testing.assert_array_equal(predicted_masks(evaluation, run, manifest, entry, numbers), truth)


def test_the_data_is_known_by_its_fingerprint(make_evaluation: Make, write_data: Callable[..., Manifest]) -> None:
    manifest = write_data()
    ours = evaluation_of(make_evaluation("ours", manifest=manifest.fingerprint()))
    other = evaluation_of(make_evaluation("other"))
    assert find_manifest(ours, [manifest.path]) is not None
    assert find_manifest(ours, []) is None
    assert find_manifest(other, [manifest.path]) is None


def test_best_median_and_worst_are_by_the_mean_over_all_starts(make_evaluation: Make) -> None:
    evaluation = evaluation_of(make_evaluation())
    means = {f"case{n}": np.mean([run.cases[f"case{n}"]["iou"] for run in evaluation.runs]) for n in range(5)}
    order = sorted(means, key=lambda case: -means[case])
    assert telling_cases(evaluation) == [("best", order[0]), ("median", order[2]), ("worst", order[4])]


def test_the_slice_with_the_largest_truth_is_drawn_and_a_missing_prediction_is_said(
    make_evaluation: Make, write_data: Callable[..., Manifest]
) -> None:
    manifest = write_data()
    path = make_evaluation(manifest=manifest.fingerprint(), options={"labels": [3]})
    evaluation = evaluation_of(path)
    assert draw_overlays(evaluation, manifest)[0] is None
    page = render_evaluations([evaluation], manifests=[manifest.path])
    assert "no prediction is left, so none is drawn" in page
    assert "and 2 more" in page  # two starts of three cases, and the sentence above
    truth = np.load(manifest.root / "labels.npy")
    for run in evaluation.runs:
        for n in range(5):
            file = evaluation.folder(run) / "predictions" / f"case{n}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            if run.weights == "scratch":
                nibabel.save(nibabel.Nifti1Image(truth, np.eye(4)), file)
    figure, missing = draw_overlays(evaluation, manifest)
    assert figure is not None
    assert len(missing) == 3
    assert all("stage3_swav" in sentence and "does not exist" in sentence for sentence in missing)
    assert "starts side by side" in render_evaluations([evaluation], manifests=[manifest.path])


def case(predicted: np.ndarray | None, truth: np.ndarray) -> list[MaskCase]:
    return [MaskCase("best: a", np.full((24, 24), 0.5), truth, {"a": predicted}, {"a": "iou 1"})]


def test_outlines_and_tints_show_what_is_wrong() -> None:
    truth = np.zeros((1, 24, 24), bool)
    truth[0, 8:16, 8:16] = True
    larger, smaller = truth.copy(), truth.copy()
    larger[0, 8:16, 16:20] = True
    smaller[0, 8:16, 12:16] = False
    right = mask_overlays(case(truth, truth))
    red, blue = tinted(right)
    over, under = tinted(mask_overlays(case(larger, truth))), tinted(mask_overlays(case(smaller, truth)))
    assert over[0] > red + 2000 > over[1]
    assert under[1] > blue + 2000
    assert colour_share(mask_overlays(case(None, truth)), PREDICTION) == 0
    assert colour_share(mask_overlays(case(None, truth)), TRUTH) > 100
    assert colour_share(right, PREDICTION) > 100


def test_boxes_below_the_least_score_are_not_drawn() -> None:
    def draw(boxes: Sequence[ScoredBox]) -> bytes:
        truth = [Box(0, 2, 2, 9, 9)]
        return box_overlays([BoxCase("best: a", np.full((24, 24), 0.5), truth, {"a": boxes}, {"a": "f1 1"})])

    sure, unsure = ScoredBox(1, 3, 3, 10, 10, 0.9), ScoredBox(1, 3, 3, 10, 10, 0.1)
    assert colour_share(draw([sure]), PREDICTION) > 100
    assert colour_share(draw([unsure]), PREDICTION) == 0
    assert colour_share(draw([unsure]), TRUTH) > 100


def test_boxes_are_read_from_the_run_and_the_manifest(
    make_evaluation: Make, write_data: Callable[..., Manifest]
) -> None:
    manifest = write_data("image", boxes_path="boxes.json")
    write_boxes([Box(2, 1, 2, 5, 9)], manifest.root / "boxes.json")
    evaluation = evaluation_of(make_evaluation("vindr_cxr", "detection_2d", "ap50", manifest=manifest.fingerprint()))
    run, entry = evaluation.runs[0], manifest.entries[0]
    assert true_boxes(manifest, entry) == (Box(2, 1, 2, 5, 9),)
    with pytest.raises(PredictionError, match=r"case0.json does not exist"):
        predicted_boxes(evaluation, run, entry)
    file = evaluation.folder(run) / "predictions" / "case0.json"
    file.parent.mkdir(parents=True)
    content = {"label": 2, "left": 1.5, "top": 2, "right": 5, "bottom": 9, "score": 0.75}
    file.write_text(json.dumps([content]))
    assert predicted_boxes(evaluation, run, entry) == (ScoredBox(2, 1.5, 2, 5, 9, 0.75),)
    file.write_text(json.dumps([{"label": 2}]))
    with pytest.raises(PredictionError, match=r"case0.json is no list of boxes \(KeyError: 'left'\)"):
        predicted_boxes(evaluation, run, entry)


def test_boxes_of_a_label_map_lie_around_each_number(write_data: Callable[..., Manifest]) -> None:
    labels = np.zeros(SHAPE[1:], np.uint8)
    labels[2:5, 7:11] = 1
    labels[10:12, 0:3] = 4
    manifest = write_data("image", labels)
    assert true_boxes(manifest, manifest.entries[0]) == (Box(0, 7, 2, 11, 5), Box(0, 0, 10, 3, 12))
    assert read_picture(manifest, manifest.entries[0])[0, 0] == pytest.approx(30000 / 65535)
