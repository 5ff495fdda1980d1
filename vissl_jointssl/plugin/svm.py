"""Linear SVMs on extracted features: VISSL's `train_svm.py` for class ids, and with nothing left of an earlier run.

Training and its cross-validation are VISSL's (vissl/utils/svm_utils/svm_trainer.py). What it takes for targets is one
column per class (:91); a data set with class ids has one column, of which it would make one wrong SVM.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from vissl.config import AttrDict
from vissl.utils.io import load_file
from vissl.utils.svm_utils.svm_trainer import SVMTrainer

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.plugin.compat.average_precision import give_svms_one_number
from vissl_jointssl.plugin.extracted_features import Extraction, Features, class_ids, extract, read_features

give_svms_one_number()

RESULTS = "svm.json"
LEFTOVERS = ("cls*_cost*.pickle", "AP_cls*_cost*.npy", "crossval_ap.npy", "chosen_cost.npy", "test_ap.npy")


class AllClassesSVMTrainer(SVMTrainer):
    """VISSL's trainer with the classes one after the other.

    VISSL trains each in a thread of its own (:206), where an error is printed and forgotten.
    """

    def train(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Train an SVM per class, a column of the targets `(n, classes)` in 0 and 1, and per cost."""
        self.cls_list = self._get_cls_list(targets)
        self.train_ap_matrix = np.zeros((len(self.cls_list), len(self.costs_list)))
        features = self._normalize_features(features) if self.normalize else features
        for number in self.cls_list:
            self.train_cls(features, targets, number)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Distance from each class' hyperplane, at its best cost, `(n, classes)`."""
        features = self._normalize_features(features) if self.normalize else features
        models = [
            load_file(self._get_svm_model_filename(number, cost)[0])
            for number, cost in enumerate(self.get_best_cost_value())
        ]
        return np.stack([model.decision_function(features) for model in models], axis=1)


def one_hot(train: Features, test: Features) -> tuple[np.ndarray, np.ndarray]:
    """Targets of both splits with one column per class, 0 or 1; multi-label targets stay as they are.

    Args:
        train: Features with targets `(n, 1)` or `(n, classes)`.
        test: Likewise.

    Raises:
        ValueError: If a class id is below zero.
    """
    if train.targets.shape[1] > 1:
        return train.targets, test.targets
    ids = [class_ids(split.targets, "an SVM") for split in (train, test)]
    classes = np.arange(max(one.max() for one in ids) + 1)
    known, wanted = ((one[:, None] == classes).astype(np.int32) for one in ids)
    return known, wanted


def main(overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Extract, train, test and report; also in `svm.json` beside the features.

    Args:
        overrides: Hydra's.

    Returns:
        By feature: `ap`, the average precision of each class, `mean_ap`, and, for class ids, `accuracy`; in per cent.

    Raises:
        ValueError: If the config has a fault, or does not fit the features.
    """
    return evaluate(extract(overrides, "train_svm.py"))


def evaluate(extraction: Extraction) -> dict[str, dict[str, Any]]:
    """Train on and test with extracted features; the results are logged and written."""
    results = {}
    for layer in extraction.layers:
        train, test = (read_features(extraction.folder, split, layer) for split in ("train", "test"))
        results[layer] = classify(train, test, extraction.config.SVM, layer, extraction.folder)
        shown = ", ".join(f"{name}: {value}" for name, value in results[layer].items())
        logging.info(f"Layer {layer}: {len(test.values)} samples, SVM: {shown}")
    write_at_once((json.dumps(results, indent=1) + "\n").encode(), extraction.folder / RESULTS)
    return results


def classify(train: Features, test: Features, settings: AttrDict, layer: str, folder: Path) -> dict[str, Any]:
    """SVMs of one feature; VISSL's files go to `folder / layer`.

    Args:
        train: Training split.
        test: Test split.
        settings: `config.SVM`.
        layer: Name of the feature.
        folder: Where the features are.

    Raises:
        ValueError: If a class has too few samples to be cross-validated or tested.
    """
    known, wanted = one_hot(train, test)
    classes = [int(number) for number in settings.cls_list] or list(range(known.shape[1]))
    _check_classes(known, wanted, classes, settings.cross_val_folds)
    for pattern in LEFTOVERS:  # VISSL would take an earlier run's SVMs for this one's, :138 and :180
        for path in (folder / layer).glob(pattern):
            path.unlink()
    # VISSL numbers the classes it is given from 0, whatever cls_list says; and adds to the list of costs, :82.
    copied = AttrDict(
        {**settings, "cls_list": [], "costs": {**settings.costs, "costs_list": [*settings.costs.costs_list]}}
    )
    trainer = AllClassesSVMTrainer(copied, layer=layer, output_dir=str(folder))
    trainer.train(train.values, known[:, classes])
    trainer.test(test.values, wanted[:, classes])
    ap = 100.0 * load_file(str(folder / layer / "test_ap.npy"))[:, 0]
    result: dict[str, Any] = {"mean_ap": round(float(ap.mean()), 3), "ap": [round(float(one), 3) for one in ap]}
    if test.targets.shape[1] == 1 and len(classes) == known.shape[1]:
        hits = trainer.scores(test.values).argmax(axis=1) == test.targets[:, 0]
        result["accuracy"] = round(100.0 * float(hits.mean()), 3)
    return result


def _check_classes(known: np.ndarray, wanted: np.ndarray, classes: list[int], folds: int) -> None:
    for number in classes:
        if not 0 <= number < known.shape[1]:
            raise ValueError(f"config.SVM.cls_list names class {number}; there are classes 0 to {known.shape[1] - 1}")
        members = int((known[:, number] == 1).sum())
        fewest = min(members, len(known) - members)
        if fewest < folds:
            raise ValueError(
                f"class {number} has {members} of {len(known)} training samples, but config.SVM.cross_val_folds="
                f"{folds} needs {folds} in it and {folds} outside; lower it, or name the other classes in "
                "config.SVM.cls_list"
            )
        if not (wanted[:, number] == 1).any():
            raise ValueError(
                f"class {number} has no test sample, so its average precision is undefined; name the other classes in "
                "config.SVM.cls_list"
            )
