"""What is kept of a scan that was looked at, so that scans can be compared after their voxels are gone."""

from __future__ import annotations

from dataclasses import dataclass

from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis
from vissl_jointssl.preparation.doctor.values import Values


@dataclass(frozen=True)
class Facts:
    """A source, or one of its samples, or a row.

    Attributes:
        id: Of the source or row.
        path: Of its file, relative to the folder, in one line.
        kind: "volume" or "image".
        patient: Hashed.
        modality: As given, stated by the file, or told from the values.
        split: "train", "val" or "test", or None where it is not fixed yet.
        shape: `(F, H, W)`, `(H, W)`, or with channels as in `manifest.Entry`.
        spacing: Along (F, H, W) in mm, or None where unknown.
        values: Of the first channel.
        digest: Equal for equal voxels.
        label: Class of the whole, or None.
        label_numbers: That occur in the label map but for 0, or None where there is no map.
    """

    id: str
    path: str
    kind: str
    patient: str
    modality: str
    split: str | None
    shape: tuple[int, ...]
    spacing: tuple[float, float, float] | None
    values: Values
    digest: str
    label: int | None = None
    label_numbers: tuple[int, ...] | None = None

    @property
    def channels(self) -> int:
        """1 where the shape has no axis for them; colour counts as one."""
        return self.shape[0] if self.kind == "volume" and len(self.shape) == 4 else 1

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """The shape without channels."""
        return self.shape[-3:] if self.kind == "volume" else self.shape[:2]


@dataclass(frozen=True)
class Examined:
    """What came of looking at one source or row.

    Attributes:
        facts: One for each scan in it; empty where it could not be read.
        diagnoses: What was found.
    """

    facts: tuple[Facts, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
