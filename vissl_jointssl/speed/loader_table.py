"""The table of `jointssl speed loader`, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vissl_jointssl.speed.crop_readers import OURS
from vissl_jointssl.speed.timing import machine_line

_WAYS = {
    OURS: "our cache",
    "nibabel_whole": "nibabel, the scan, then cut",
    "nibabel_sliced": "nibabel, dataobj[box]",
    "torchio": "TorchIO, Subject, then cut",
}


def loader_table(measured: Mapping[str, Any]) -> str:
    """Lines of text, the last without a line break."""
    machine, crop, scans = measured["machine"], measured["crop"], measured["scans"]
    shapes = [_times(shape) for shape in scans["shapes"]]
    times = measured["seconds_per_crop"]
    width = max(map(len, _WAYS.values()))
    rows = [f"{'a crop from':{width}}  {'median':>11}  {'quartiles':>20}  {'times ours':>10}"]
    for name, way in _WAYS.items():
        rows.append(_row(f"{way:{width}}", times[name], times[OURS]))
    rows.append(_row(f"{'our cache, whole slices':{width}}", measured["seconds_per_whole_slices"], times[OURS]))
    reading = measured["reading"]["volumes_per_second_per_core"]
    return "\n".join(
        [
            f"{crop['count']} random crops of {_times(crop['size'])} from {scans['count']} scans ({scans['origin']}) "
            f"of {', '.join(shapes[:3])}{' and other sizes' if len(shapes) > 3 else ''}",
            machine_line(machine),
            f"page cache: {measured['page_cache']}; every way gave the same voxels",
            "",
            *rows,
            "",
            f"{measured['times_as_fast']['nibabel']:.1f} times as fast as nibabel's faster way, "
            f"{measured['times_as_fast']['torchio']:.1f} times as fast as TorchIO",
            *(f"reading, {count} workers: {rate:.0f} volumes per second and core" for count, rate in reading.items()),
            f"preparing: {measured['preparing']['volumes_per_second_per_core']:.2f} volumes per second and core",
        ]
    )


def _row(way: str, taken: Mapping[str, float], ours: Mapping[str, float]) -> str:
    span = f"{_ms(taken['first_quartile'])} to {_ms(taken['third_quartile'])}"
    return f"{way}  {_ms(taken['median']):>8} ms  {span:>17} ms  {taken['median'] / ours['median']:>10.1f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
