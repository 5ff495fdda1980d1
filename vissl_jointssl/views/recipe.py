"""What views may look like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViewRecipe:
    """Limits that views are drawn within; the defaults suit CT and MR.

    Attributes:
        size: H and W of a view, in pixels.
        num_slices: F of a view.
        area: Smallest and largest share of a slice's area that a crop covers.
        ratio: Smallest and largest height over width of a crop, relative to the slice's own.
        flip_rows: Probability of turning a volume upside down.
        flip_columns: Probability of mirroring a volume left to right.
        flip_slices: Probability of reversing the order of the slices.
        rotation: Largest rotation in the plane, degrees, either way.
        gamma: Smallest and largest exponent of the grey values, drawn log-uniformly.
        contrast: Smallest and largest factor of the distance from the mean grey value.
        brightness: Largest shift of the grey values, either way; they span [0, 1].
        blur: Smallest and largest deviation of a Gaussian blur in the plane, pixels of the view.
        blur_probability: How often a view is blurred.
        noise: Largest deviation of additive Gaussian noise.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    size: tuple[int, int] = (128, 128)
    num_slices: int = 64
    area: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip_rows: float = 0.5
    flip_columns: float = 0.5
    flip_slices: float = 0.5
    rotation: float = 15.0
    gamma: tuple[float, float] = (0.7, 1.5)
    contrast: tuple[float, float] = (0.7, 1.3)
    brightness: float = 0.1
    blur: tuple[float, float] = (0.1, 1.5)
    blur_probability: float = 0.5
    noise: float = 0.05

    def __post_init__(self) -> None:
        faults = []
        if len(self.size) != 2 or min(self.size) < 1:
            faults.append(f"size is {self.size}; expected two positive numbers of pixels")
        if self.num_slices < 1:
            faults.append(f"num_slices is {self.num_slices}; expected a positive number")
        for name in ("area", "ratio", "gamma", "contrast", "blur"):
            limits = getattr(self, name)
            if len(limits) != 2 or not 0 < limits[0] <= limits[1]:
                faults.append(f"{name} is {limits}; expected (smallest, largest), positive and in this order")
        if self.area[-1] > 1:
            faults.append(f"area is {self.area}; a crop covers at most 1, the whole slice")
        for name in ("flip_rows", "flip_columns", "flip_slices", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                faults.append(f"{name} is {getattr(self, name)}; expected a probability")
        for name, largest in (("rotation", 180.0), ("brightness", 1.0), ("noise", 1.0)):
            if not 0 <= getattr(self, name) <= largest:
                faults.append(f"{name} is {getattr(self, name)}; expected 0 to {largest:g}")
        if faults:
            raise ValueError("; ".join(faults))
