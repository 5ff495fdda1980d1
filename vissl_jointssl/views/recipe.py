"""What views may look like."""

from __future__ import annotations

from dataclasses import dataclass

MILLIMETRES = ("crop_millimetres", "depth_millimetres")


@dataclass(frozen=True)
class ViewRecipe:
    """Limits that views are drawn within; the defaults suit CT and MR.

    Attributes:
        size: H and W of a view, in pixels.
        num_slices: F of a view.
        area: Smallest and largest share of a slice's area that a crop covers; not used with `crop_millimetres`.
        ratio: Smallest and largest height over width of a crop; relative to the slice's own for `area`, in mm over mm
            for `crop_millimetres`.
        crop_millimetres: Smallest and largest side of a crop in the plane, mm, or None for crops by `area`. Volumes of
            different pixel size then show anatomy at the same scales. A crop never exceeds the slice: a scan smaller
            than the drawn side is seen at most whole, larger than life.
        depth_millimetres: Smallest and largest extent along the slices, mm, or None to take slices as they are. A
            view's slices are then that extent over `num_slices` apart, interpolated from the volume's (averaged where
            they are closer), so that thin and thick slices look alike; where a scan is shorter, slices are missing.
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
    crop_millimetres: tuple[float, float] | None = None
    depth_millimetres: tuple[float, float] | None = None
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
        if not isinstance(self.size, tuple) or len(self.size) != 2 or min(self.size) < 1:
            faults.append(f"size is {self.size}; expected two positive numbers of pixels")
        if self.num_slices < 1:
            faults.append(f"num_slices is {self.num_slices}; expected a positive number")
        for name in ("area", "ratio", "crop_millimetres", "depth_millimetres", "gamma", "contrast", "blur"):
            limits = getattr(self, name)
            if limits is None and name in MILLIMETRES:
                continue
            if not isinstance(limits, tuple) or len(limits) != 2 or not 0 < limits[0] <= limits[1]:
                faults.append(f"{name} is {limits}; expected (smallest, largest), positive and in this order")
        if isinstance(self.area, tuple) and max(self.area, default=0) > 1:
            faults.append(f"area is {self.area}; a crop covers at most 1, the whole slice")
        for name in ("flip_rows", "flip_columns", "flip_slices", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                faults.append(f"{name} is {getattr(self, name)}; expected a probability")
        for name, largest in (("rotation", 180.0), ("brightness", 1.0), ("noise", 1.0)):
            if not 0 <= getattr(self, name) <= largest:
                faults.append(f"{name} is {getattr(self, name)}; expected 0 to {largest:g}")
        if faults:
            raise ValueError("; ".join(faults))
