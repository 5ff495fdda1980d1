"""The header of NRRD (teem.sourceforge.net/nrrd/format.html): what it promises and where its voxels lie."""

from __future__ import annotations

import re
from pathlib import Path

from vissl_jointssl.preparation.decoding.decoded import Geometry
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN, MAX_HEADER, check_claim, check_length
from vissl_jointssl.preparation.decoding.packed import check_gzip
from vissl_jointssl.preparation.decoding.signatures import found_instead
from vissl_jointssl.preparation.decoding.text_header import Fields, Promise, as_text, beside, unsupported
from vissl_jointssl.preparation.errors import ReadError

_KNOWN = (
    *("sizes", "dimension", "type", "datafile", "byteskip", "lineskip", "encoding", "kinds", "spacings"),
    *("spacedirections", "space"),
)
_BYTES = {"float": 4, "double": 8}
_BYTES |= {f"{sign}{name}": 1 for sign in ("", "signed ", "unsigned ", "u") for name in ("char", "int8", "int8_t")}
for _size, _names in (
    (2, ("short", "short int", "int16", "int16_t")),
    (4, ("int", "int32", "int32_t")),
    (8, ("longlong", "long long", "long long int", "int64", "int64_t")),
):
    _BYTES |= {f"{sign}{name}": _size for sign in ("", "signed ", "unsigned ", "u") for name in _names}
_ANATOMICAL = (
    "(left|right)-(anterior|posterior)-(superior|inferior)|[lr][ap][si]"  # others are of the scanner or unknown
)
_PLAIN, _TEXT, _GZIP = ("raw",), ("txt", "text", "ascii"), ("gzip", "gz")


def read_nrrd_header(path: Path) -> Promise:
    """Read and check a header; arguments and errors as in `read_metaimage_header`."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER)
    end = re.search(rb"\r?\n\r?\n", head)
    if not head.startswith(b"NRRD"):
        raise ReadError(path, f"cannot be read as NRRD: it {found_instead(head)}", COPY_AGAIN)
    fields = Fields(path, _KNOWN)
    for raw_line in head[: end.start() if end else len(head)].split(b"\n")[1:]:
        line = as_text(path, raw_line)
        key, colon, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):  # comments, and free keys, which may name a patient
            continue
        if not colon and line:
            raise ReadError(path, "cannot be read as NRRD: its header is damaged or cut short", COPY_AGAIN)
        fields.add(key.strip().lower().replace(" ", ""), value.strip())
    shape = fields.whole_numbers("sizes")
    if fields.whole_numbers("dimension") != (len(shape),):
        raise fields.damaged("dimension")
    itemsize = _BYTES.get(" ".join(fields.get("type", "").lower().split()))
    if itemsize is None:
        raise unsupported(path, "its type is not a plain number")
    promised = check_claim(path, shape, itemsize)
    name = fields.get("datafile")
    if name is None and end is None:
        raise ReadError(path, "cannot be read as NRRD: its header has no end", COPY_AGAIN)
    data_path = path if name is None else beside(path, name)
    bytes_skipped = fields.whole_numbers("byteskip", "0")[0]
    lines_skipped = fields.whole_numbers("lineskip", "0")[0]
    if bytes_skipped < -1 or lines_skipped < 0:
        raise fields.damaged("byte skip or line skip")
    start = end.end() if end and name is None else 0
    size = data_path.stat().st_size
    encoding = fields.get("encoding", "").lower()
    if encoding in _GZIP and (bytes_skipped or lines_skipped):
        raise unsupported(path, "its packed voxels do not follow its header")
    if encoding in _GZIP:
        check_gzip(data_path, start, promised)
    elif encoding in _PLAIN:
        check_length(data_path, start + max(bytes_skipped, 0) + promised, size)
    elif encoding in _TEXT:
        check_length(data_path, start + promised // itemsize * 2 - 1, size)  # a digit and a space each
    else:
        raise unsupported(path, "its encoding is not raw, gzip or text")
    return _promise(path, fields, shape, data_path)


def _promise(path: Path, fields: Fields, shape: tuple[int, ...], data_path: Path) -> Promise:
    """ITK takes an axis that is not one of space as the numbers of a voxel, wherever it stands."""
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * len(shape)
    if len(kinds) != len(shape):
        raise fields.damaged("kinds")
    within = [axis for axis, kind in enumerate(kinds) if kind not in ("domain", "space", "time", "???", "none")]
    channels = shape[within[0]] if within else 1
    if len(within) > 1:
        raise unsupported(path, f"{len(within)} of its axes are not axes of space")
    fields.check_sizes("spacings", [axis for axis in range(len(shape)) if axis not in within])
    fields.check_directions("spacedirections")
    sized = "spacedirections" in fields or "spacings" in fields
    placed = "spacedirections" in fields and re.fullmatch(_ANATOMICAL, fields.get("space", "").lower())
    geometry: Geometry = "nothing" if not sized else "place" if placed else "spacing"
    return Promise(tuple(n for axis, n in enumerate(shape) if axis not in within), channels, data_path, geometry)
