"""What a released view may be, and one that is decided: plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from vissl_jointssl.spelling import nearest

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Flip:
    """Reverse `axes` of (F, H, W) = (0, 1, 2); none for the half of the cases in which RandomFlip does nothing."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """Rotate about the axes F, H, W by `degrees`, then scale by `scales`, about the middle of the volume."""

    scales: Triple
    degrees: Triple


@dataclass(frozen=True)
class Anisotropy:
    """Keep every `factor`-th sample of an axis, and interpolate between them."""

    axis: int
    factor: float


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise of this deviation, from this seed."""

    deviation: float
    seed: int


@dataclass(frozen=True)
class Blur:
    """Gaussian blur; deviations along (F, H, W) in mm."""

    deviations: Triple


@dataclass(frozen=True)
class BiasField:
    """Multiply by the exponential of a polynomial of degree 3 in (F, H, W), each from -1 to 1 across the volume.

    The 20 coefficients belong to F^i H^j W^k, i + j + k <= 3, ordered by i, then j, then k.
    """

    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Gamma:
    """Raise each channel to an exponent of its own, keeping signs."""

    exponents: tuple[float, ...]


Transform = Flip | Affine | Anisotropy | Noise | Blur | BiasField | Gamma
TRANSFORMS = ("flip", "affine", "anisotropy", "noise", "blur", "bias_field", "gamma")


@dataclass(frozen=True)
class ReleasedRecipe:
    """Limits of the released views: their size; every range is TorchIO's default.

    Attributes:
        size: H and W of a view, in pixels.
        num_slices: F of a view.
        transforms: What a view's one transform is drawn from, each equally likely.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    size: tuple[int, int] = (128, 128)
    num_slices: int = 64
    transforms: tuple[str, ...] = TRANSFORMS

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.size, tuple) or len(self.size) != 2 or min(self.size) < 1:
            faults.append(f"size is {self.size}; expected two positive numbers of pixels")
        if self.num_slices < 1:
            faults.append(f"num_slices is {self.num_slices}; expected a positive number")
        if isinstance(self.transforms, str) or not self.transforms:
            faults.append(f"transforms is {self.transforms!r}; expected a list of {', '.join(TRANSFORMS)}")
        else:
            unknown = [name for name in self.transforms if name not in TRANSFORMS]
            faults += [f"transforms names {name!r}{nearest(name, TRANSFORMS)}" for name in unknown]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class ReleasedViewParameters:
    """One released view of one volume, decided.

    Attributes:
        size: H and W of the view.
        num_slices: F of the view.
        first: First voxel of the volume that is in it, along (F, H, W).
        kept: How many of the volume's voxels are in it, along (F, H, W).
        before: How many black voxels come before them, along (F, H, W); the rest come after.
        spacing: Size of a voxel along (F, H, W), mm.
        transform: What is done to it; None for nothing.
    """

    size: tuple[int, int]
    num_slices: int
    first: tuple[int, int, int]
    kept: tuple[int, int, int]
    before: tuple[int, int, int]
    spacing: Triple = (1.0, 1.0, 1.0)
    transform: Transform | None = None
