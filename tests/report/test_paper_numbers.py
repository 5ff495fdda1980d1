"""The paper's tables against a second transcription, copied from the paper's text."""

from __future__ import annotations

import re

import pytest

from vissl_jointssl.report.paper_numbers import PARAMETERS, POOLED, paper_number, paper_numbers

TABLE_3 = """\
Scratch (3D)|58.51 ± 2.61|94.15 ± 3.97
V-Net|59.01 ± 2.59|95.85 ± 1.09
3D-Transformer|66.54 ± 0.40|85.15 ± 2.62
I3D|67.83 ± 0.75|92.45 ± 2.63
NiftyNet|60.78 ± 1.60|94.16 ± 1.52
Med3D|66.09 ± 1.35|91.32 ± 1.47
3D-Rotation|56.48 ± 1.78|95.91 ± 1.26
3D-JigSaw|59.65 ± 0.81|89.12 ± 1.71
Models Genesis|67.96 ± 1.29|92.46 ± 5.54
Universal Model|72.10 ± 0.67|N/A
3D-DeepCluster|59.20 ± 1.69|89.03 ± 2.56
3D-SwAV|62.81 ± 1.03|88.79 ± 5.48
TransVW|68.82 ± 0.38|93.84 ± 6.73
SwinViT3D|70.58 ± 1.27|88.68 ± 2.63
Scratch (2D)|66.82 ± 1.32|N/A
Pre-trained ImageNet|71.24 ± 2.30|N/A
SimCLR|70.37 ± 1.11|N/A
Moco-v2|70.82 ± 0.22|N/A
Barlow-Twins|67.35 ± 0.55|N/A
Deep-Cluster-v2|69.21 ± 2.10|N/A
SwAV|69.83 ± 2.44|N/A
Our (Deep-Cluster-v2)|72.81 ± 0.15|N/A
Our (SwAV)|73.03 ± 0.42|94.22 ± 1.11
"""
TABLE_4 = """\
Scratch (3D)|68.29 ± 1.68|67.04 ± 2.18|N/A
V-Net|69.66 ± 3.65|67.50 ± 3.76|N/A
3D-Transformer|67.30 ± 2.29|67.64 ± 2.21|N/A
I3D|76.63 ± 2.32|66.71 ± 1.27|N/A
Nifty Net|74.91 ± 2.78|64.60 ± 1.96|N/A
Med3D|75.01 ± 0.74|63.43 ± 0.61|N/A
3D-Rotation|67.54 ± 2.80|71.36 ± 1.70|N/A
3D Jigsaw|68.40 ± 2.92|72.99 ± 2.54|N/A
Model Genesis|76.48 ± 2.89|74.53 ± 1.69|N/A
Universal Model|78.14 ± 0.77|77.52 ± 0.50|N/A
3D-DeepCluster|69.47 ± 1.44|75.83 ± 2.29|N/A
3D-SwAV|69.90 ± 1.31|69.41 ± 1.93|N/A
TransVW|79.74 ± 2.78|75.08 ± 2.04|N/A
SwinViT3D|70.19 ± 1.23|78.25 ± 1.66|N/A
Scratch (2D)|74.25 ± 2.05|52.34 ± 4.31|24.35 ± 0.04
Pre-trained ImageNet|73.49 ± 3.15|72.66 ± 2.46|27.82 ± 0.29
SimCLR|78.56 ± 2.12|72.72 ± 1.29|26.87 ± 0.32
Moco-v2|80.25 ± 0.93|71.85 ± 1.25|27.20 ± 0.66
Barlow-Twins|80.95 ± 2.47|70.90 ± 1.89|26.83 ± 0.13
Deep-Cluster-v2|81.03 ± 1.17|74.51 ± 1.92|28.03 ± 0.41
SwAV|82.15 ± 1.19|74.50 ± 1.20|27.70 ± 0.22
Our (Deep-Cluster-v2)|83.58 ± 1.54|78.14 ± 1.32|28.47 ± 0.40
Our (SwAV)|84.89 ± 0.68|78.73 ± 1.21|27.47 ± 0.18
"""
TABLE_5 = """\
Scratch CNN|84.05|87.63|90.96
Scratch PTU|85.55|88.83|91.22
Pre-trained ImNet|87.90|90.01|91.73
Moco-v2|88.65|91.03|92.32
PGL|89.01|91.39|92.76
PCRL|89.55|91.53|93.07
Moco-v3|90.07|91.75|92.68
DINO|90.40|92.16|93.03
USST|91.88|93.15|94.08
Our (DeepCluster-V2)|90.60|92.87|94.31
Our (SwAV)|89.98|93.03|94.45
"""
TABLE_6 = """\
W/o mask prediction|82.53|77.35
W/o 3D clustering|81.97|76.18
Full model|84.89|78.73
Full model w/o multi-feature|83.56|78.12
"""
COLUMNS = {
    3: [("brats2018", "iou", 1.0), ("luna2016_v2", "auc", 1.0)],
    4: [("mmwhs_ct", "iou", 1.0), ("mmwhs_mr", "iou", 1.0), ("vindr_cxr", "ap50", 1.0)],
    5: [("jsrt", "dice", 0.2), ("jsrt", "dice", 0.4), ("jsrt", "dice", 1.0)],
    6: [("mmwhs_ct", "iou", 1.0), ("mmwhs_mr", "iou", 1.0)],
}


@pytest.mark.parametrize(("table", "text"), [(3, TABLE_3), (4, TABLE_4), (5, TABLE_5), (6, TABLE_6)])
def test_every_cell_is_the_papers(table: int, text: str) -> None:
    expected = []
    for line in text.splitlines():
        method, *cells = line.split("|")
        for column, cell in zip(COLUMNS[table], cells, strict=True):
            if cell != "N/A":
                mean, *deviation = (float(number) for number in re.findall(r"\d+\.\d+", cell))
                expected.append((method, *column, mean, deviation[0] if deviation else None))
    numbers = [number for number in paper_numbers() if number.table == table]
    assert [(n.method, n.evaluation, n.metric, n.fraction, n.mean, n.deviation) for n in numbers] == expected


@pytest.mark.parametrize(
    ("evaluation", "metric", "fraction", "start", "mean"),
    [
        ("mmwhs_ct", "iou", 1.0, "stage3_swav", 84.89),
        ("mmwhs_mr", "iou", 1.0, "scratch", 52.34),
        ("vindr_cxr", "ap50", 1.0, "stage1_deepclusterv2", 28.03),
        ("brats2018", "iou", 1.0, "imagenet", 71.24),
        ("luna2016_v2_batch16", "auc", 1.0, "stage3_swav", 94.22),
        ("jsrt", "dice", 0.2, "stage3_deepclusterv2", 90.60),
        ("mmwhs_ct", "iou", 1.0, "without_volume_clustering", 81.97),
    ],
)
def test_a_start_is_found_by_its_name(evaluation: str, metric: str, fraction: float, start: str, mean: float) -> None:
    number = paper_number(evaluation, metric, fraction, start)
    assert number is not None
    assert number.mean == mean


def test_nothing_is_made_up_where_the_paper_has_no_number() -> None:
    assert paper_number("mmwhs_ct", "dice", 1.0, "stage3_swav") is None
    assert paper_number("mmwhs_ct", "iou", 0.5, "stage3_swav") is None
    assert paper_number("luna2016_v2", "auc", 1.0, "imagenet") is None
    assert paper_number("my_own", "iou", 1.0, "scratch") is None
    assert paper_numbers("my_own") == ()


def test_no_start_has_two_rows_in_a_table() -> None:
    keys = [(n.table, n.evaluation, n.fraction, n.start) for n in paper_numbers()]
    assert len(set(keys)) == len(keys)


def test_table_7_and_the_pooled_batch_sizes() -> None:
    assert PARAMETERS == {"SwinViT3D": 62.19, "TransVW": 19.7, "Universal Model": 19.7, "USST": 47.8, "Our": 31.16}
    assert [name.rpartition("batch")[2] for name in POOLED["luna2016_v2"]] == ["8", "16", "32"]
