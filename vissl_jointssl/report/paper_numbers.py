"""The paper's Tables 3 to 7 as data: what is printed there, under the names that evaluations and starts have here.

Numbers are percent, mean and deviation of the paper's runs; Tables 5 and 6 print no deviation. A start is matched by
its name:

| start | the paper |
|---|---|
| `scratch`, `imagenet` | Scratch (2D), Pre-trained ImageNet |
| `stage1_swav`, `stage1_deepclusterv2` | SwAV and Deep-Cluster-v2 on slices alone, which stage 1 is |
| `stage3_swav`, `stage3_deepclusterv2` | Our (SwAV), Our (Deep-Cluster-v2) |
| `without_mask_prediction`, `without_volume_clustering`, `without_multi_level` | Table 6, SwAV |
| anything else | the row's key below, such as `moco_v2` |

Table 3's LUNA2016-v2 is a mean over batch sizes 8, 16 and 32. The paper's text that was transcribed has no number of
Our (Deep-Cluster-v2) there, so none is here.
"""

from __future__ import annotations

from dataclasses import dataclass

Value = tuple[float, float | None] | None
Rows = tuple[tuple[str, str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class PaperNumber:
    """One cell of a table, in percent; `deviation` is None where none is printed."""

    table: int
    evaluation: str
    metric: str
    fraction: float
    start: str
    method: str
    mean: float
    deviation: float | None


# Names of evaluations are those of configs/evaluation; an evaluation of a suite may add `_batch8` and the like.
POOLED = {"luna2016_v2": ("luna2016_v2_batch8", "luna2016_v2_batch16", "luna2016_v2_batch32")}

_TABLE_3: Rows = (
    ("scratch_3d", "Scratch (3D)", ((58.51, 2.61), (94.15, 3.97))),
    ("v_net", "V-Net", ((59.01, 2.59), (95.85, 1.09))),
    ("transformer_3d", "3D-Transformer", ((66.54, 0.40), (85.15, 2.62))),
    ("i3d", "I3D", ((67.83, 0.75), (92.45, 2.63))),
    ("niftynet", "NiftyNet", ((60.78, 1.60), (94.16, 1.52))),
    ("med3d", "Med3D", ((66.09, 1.35), (91.32, 1.47))),
    ("rotation_3d", "3D-Rotation", ((56.48, 1.78), (95.91, 1.26))),
    ("jigsaw_3d", "3D-JigSaw", ((59.65, 0.81), (89.12, 1.71))),
    ("models_genesis", "Models Genesis", ((67.96, 1.29), (92.46, 5.54))),
    ("universal_model", "Universal Model", ((72.10, 0.67), None)),
    ("deepcluster_3d", "3D-DeepCluster", ((59.20, 1.69), (89.03, 2.56))),
    ("swav_3d", "3D-SwAV", ((62.81, 1.03), (88.79, 5.48))),
    ("transvw", "TransVW", ((68.82, 0.38), (93.84, 6.73))),
    ("swin_vit_3d", "SwinViT3D", ((70.58, 1.27), (88.68, 2.63))),
    ("scratch", "Scratch (2D)", ((66.82, 1.32), None)),
    ("imagenet", "Pre-trained ImageNet", ((71.24, 2.30), None)),
    ("simclr", "SimCLR", ((70.37, 1.11), None)),
    ("moco_v2", "Moco-v2", ((70.82, 0.22), None)),
    ("barlow_twins", "Barlow-Twins", ((67.35, 0.55), None)),
    ("stage1_deepclusterv2", "Deep-Cluster-v2", ((69.21, 2.10), None)),
    ("stage1_swav", "SwAV", ((69.83, 2.44), None)),
    ("stage3_deepclusterv2", "Our (Deep-Cluster-v2)", ((72.81, 0.15), None)),
    ("stage3_swav", "Our (SwAV)", ((73.03, 0.42), (94.22, 1.11))),
)
_TABLE_4: Rows = (
    ("scratch_3d", "Scratch (3D)", ((68.29, 1.68), (67.04, 2.18), None)),
    ("v_net", "V-Net", ((69.66, 3.65), (67.50, 3.76), None)),
    ("transformer_3d", "3D-Transformer", ((67.30, 2.29), (67.64, 2.21), None)),
    ("i3d", "I3D", ((76.63, 2.32), (66.71, 1.27), None)),
    ("niftynet", "Nifty Net", ((74.91, 2.78), (64.60, 1.96), None)),
    ("med3d", "Med3D", ((75.01, 0.74), (63.43, 0.61), None)),
    ("rotation_3d", "3D-Rotation", ((67.54, 2.80), (71.36, 1.70), None)),
    ("jigsaw_3d", "3D Jigsaw", ((68.40, 2.92), (72.99, 2.54), None)),
    ("models_genesis", "Model Genesis", ((76.48, 2.89), (74.53, 1.69), None)),
    ("universal_model", "Universal Model", ((78.14, 0.77), (77.52, 0.50), None)),
    ("deepcluster_3d", "3D-DeepCluster", ((69.47, 1.44), (75.83, 2.29), None)),
    ("swav_3d", "3D-SwAV", ((69.90, 1.31), (69.41, 1.93), None)),
    ("transvw", "TransVW", ((79.74, 2.78), (75.08, 2.04), None)),
    ("swin_vit_3d", "SwinViT3D", ((70.19, 1.23), (78.25, 1.66), None)),
    ("scratch", "Scratch (2D)", ((74.25, 2.05), (52.34, 4.31), (24.35, 0.04))),
    ("imagenet", "Pre-trained ImageNet", ((73.49, 3.15), (72.66, 2.46), (27.82, 0.29))),
    ("simclr", "SimCLR", ((78.56, 2.12), (72.72, 1.29), (26.87, 0.32))),
    ("moco_v2", "Moco-v2", ((80.25, 0.93), (71.85, 1.25), (27.20, 0.66))),
    ("barlow_twins", "Barlow-Twins", ((80.95, 2.47), (70.90, 1.89), (26.83, 0.13))),
    ("stage1_deepclusterv2", "Deep-Cluster-v2", ((81.03, 1.17), (74.51, 1.92), (28.03, 0.41))),
    ("stage1_swav", "SwAV", ((82.15, 1.19), (74.50, 1.20), (27.70, 0.22))),
    ("stage3_deepclusterv2", "Our (Deep-Cluster-v2)", ((83.58, 1.54), (78.14, 1.32), (28.47, 0.40))),
    ("stage3_swav", "Our (SwAV)", ((84.89, 0.68), (78.73, 1.21), (27.47, 0.18))),
)
_TABLE_5: Rows = (
    ("scratch", "Scratch CNN", ((84.05, None), (87.63, None), (90.96, None))),
    ("scratch_ptu", "Scratch PTU", ((85.55, None), (88.83, None), (91.22, None))),
    ("imagenet", "Pre-trained ImNet", ((87.90, None), (90.01, None), (91.73, None))),
    ("moco_v2", "Moco-v2", ((88.65, None), (91.03, None), (92.32, None))),
    ("pgl", "PGL", ((89.01, None), (91.39, None), (92.76, None))),
    ("pcrl", "PCRL", ((89.55, None), (91.53, None), (93.07, None))),
    ("moco_v3", "Moco-v3", ((90.07, None), (91.75, None), (92.68, None))),
    ("dino", "DINO", ((90.40, None), (92.16, None), (93.03, None))),
    ("usst", "USST", ((91.88, None), (93.15, None), (94.08, None))),
    ("stage3_deepclusterv2", "Our (DeepCluster-V2)", ((90.60, None), (92.87, None), (94.31, None))),
    ("stage3_swav", "Our (SwAV)", ((89.98, None), (93.03, None), (94.45, None))),
)
_TABLE_6: Rows = (
    ("without_mask_prediction", "W/o mask prediction", ((82.53, None), (77.35, None))),
    ("without_volume_clustering", "W/o 3D clustering", ((81.97, None), (76.18, None))),
    ("stage3_swav", "Full model", ((84.89, None), (78.73, None))),
    ("without_multi_level", "Full model w/o multi-feature", ((83.56, None), (78.12, None))),
)
_COLUMNS = {
    3: (("brats2018", "iou", 1.0), ("luna2016_v2", "auc", 1.0)),
    4: (("mmwhs_ct", "iou", 1.0), ("mmwhs_mr", "iou", 1.0), ("vindr_cxr", "ap50", 1.0)),
    5: (("jsrt", "dice", 0.2), ("jsrt", "dice", 0.4), ("jsrt", "dice", 1.0)),
    6: (("mmwhs_ct", "iou", 1.0), ("mmwhs_mr", "iou", 1.0)),
}
_ROWS: dict[int, Rows] = {3: _TABLE_3, 4: _TABLE_4, 5: _TABLE_5, 6: _TABLE_6}

# Table 7, millions of parameters; "Our" is our preset `released`.
PARAMETERS = {"SwinViT3D": 62.19, "TransVW": 19.7, "Universal Model": 19.7, "USST": 47.8, "Our": 31.16}


def paper_numbers(evaluation: str | None = None) -> tuple[PaperNumber, ...]:
    """Every cell of Tables 3 to 6 that holds a number, or those of one evaluation, in the paper's order.

    Args:
        evaluation: Its name, or that of one of the evaluations of `POOLED`.
    """
    wanted = next((name for name, members in POOLED.items() if evaluation in members), evaluation)
    return tuple(
        PaperNumber(table, column[0], column[1], column[2], start, method, *value)
        for table, rows in _ROWS.items()
        for start, method, values in rows
        for column, value in zip(_COLUMNS[table], values, strict=True)
        if value is not None and wanted in (None, column[0])
    )


def paper_number(evaluation: str, metric: str, fraction: float, start: str) -> PaperNumber | None:
    """What the paper reports for the same thing, or None; Table 6 repeats a number of Table 4, whose is taken."""
    for number in paper_numbers(evaluation):
        if (number.metric, number.fraction, number.start) == (metric, fraction, start):
            return number
    return None
