"""Whether a voxel size, and a number of voxels, can have come from a scanner."""

from __future__ import annotations

from vissl_jointssl.preparation.doctor.diagnosis import Fault, error, warning

Spacing = tuple[float, float, float]

# What scanners and their reconstructions make, in mm. CT: photon-counting detectors reach 0.1 in the plane, slices of
# old scans lie 10 apart. MR: 7 T reaches 0.1, localizers lie 20 apart. PET and SPECT: detectors of 1 mm and more.
_LIMITS = {"CT": (0.1, 10.0), "MR": (0.1, 20.0), "PT": (0.3, 20.0), "NM": (0.3, 20.0)}
_OTHER_LIMITS = (0.02, 20.0)
_IMPOSSIBLE = (0.01, 50.0)  # a header in metres, micrometres or inches, whatever the modality
_ANISOTROPY = 50.0  # 0.3 mm pixels in slices 15 mm apart
_LARGEST_EXTENT = 2500.0  # mm: the tallest person, and the table
_FEWEST_SLICES = 8
_FEWEST_PIXELS = 16
_HEADER = "compare with the scanner's protocol and repair the header, or convert the scan again"


def spacing_faults(spacing: Spacing | None, shape: tuple[int, ...], modality: str) -> list[Fault]:
    """Faults of a voxel size.

    Args:
        spacing: Along (F, H, W) in mm, or None where unknown, which is no fault.
        shape: `(F, H, W)`.
        modality: "CT", "MR", ...
    """
    if spacing is None:
        return []
    size = " x ".join(f"{length:.3g}" for length in spacing) + " mm"
    if not _IMPOSSIBLE[0] <= min(spacing) <= max(spacing) <= _IMPOSSIBLE[1]:
        return [error("spacing", f"has voxels of {size}, which no scanner makes", _HEADER)]
    low, high = _LIMITS.get(modality, _OTHER_LIMITS)
    if not low <= min(spacing) <= max(spacing) <= high:
        return [warning("spacing", f"has voxels of {size}; {modality} has {low:g} to {high:g} mm", _HEADER)]
    if max(spacing) > _ANISOTROPY * min(spacing):
        times = max(spacing) / min(spacing)
        return [warning("spacing", f"has voxels of {size}, {times:.0f} times as long as wide", _HEADER)]
    extent = max(length * voxels for length, voxels in zip(spacing, shape, strict=True))
    if extent > _LARGEST_EXTENT:
        return [warning("spacing", f"is {extent / 1000:.1f} m long: {shape} voxels of {size}", _HEADER)]
    return []


def size_faults(shape: tuple[int, ...], kind: str) -> list[Fault]:
    """Too few slices for a volume, or too few pixels for an image; the shape is without channels."""
    if kind == "volume" and shape[0] < _FEWEST_SLICES:
        next_step = "see whether it is a localizer, or cut along another axis (--slice-axis)"
        return [warning("dimensions", f"has {shape[0]} slices of {shape[1]} x {shape[2]}", next_step)]
    if min(shape[-2:]) < _FEWEST_PIXELS:
        next_step = "see whether it is a thumbnail, or cut along another axis"
        return [warning("dimensions", f"has {shape[-2]} x {shape[-1]} pixels", next_step)]
    return []
