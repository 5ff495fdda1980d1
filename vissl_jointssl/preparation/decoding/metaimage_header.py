"""The header of MetaImage (itk.org/Wiki/ITK/MetaIO/Documentation): what it promises and where its voxels lie."""

from __future__ import annotations

import re
from pathlib import Path

from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN, MAX_HEADER, check_claim, check_length
from vissl_jointssl.preparation.decoding.packed import check_zlib
from vissl_jointssl.preparation.decoding.signatures import found_instead
from vissl_jointssl.preparation.decoding.text_header import Fields, Promise, as_text, beside, unsupported
from vissl_jointssl.preparation.errors import ReadError

_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_BYTES |= {f"U{name}": size for name, size in _BYTES.items() if name not in ("FLOAT", "DOUBLE")}
_PLACE = ("TransformMatrix", "Rotation", "Orientation")
_SIZE = ("ElementSpacing", "ElementSize")
_KNOWN = (
    *("NDims", "DimSize", "ElementNumberOfChannels", "ElementType", "BinaryData", "CompressedData"),
    *("CompressedDataSize", "HeaderSize", "ElementDataFile", *_SIZE, *_PLACE),
)
_MAX_LINE = 2**16


def read_metaimage_header(path: Path) -> Promise:
    """Read and check a header.

    Raises:
        ReadError: If it is damaged, promises more than its data file can hold or than is read, or names a data file
            outside its folder.
    """
    with path.open("rb") as file:
        head = file.read(MAX_HEADER)
    fields, start = _fields(path, head)
    shape = fields.whole_numbers("DimSize")
    if fields.whole_numbers("NDims") != (len(shape),):
        raise fields.damaged("NDims")
    channels = fields.whole_numbers("ElementNumberOfChannels", "1")[0]
    itemsize = _BYTES.get(fields.get("ElementType", "").removeprefix("MET_"))
    if itemsize is None:
        raise unsupported(path, "its ElementType is not a plain number")
    promised = check_claim(path, (*shape, channels) if channels != 1 else shape, itemsize)
    if not _is_true(fields.get("BinaryData", "True")):
        raise unsupported(path, "its voxels are written as text")
    packed = _is_true(fields.get("CompressedData", "False"))
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data_path = path if local else beside(path, fields["ElementDataFile"])
    skipped = fields.whole_numbers("HeaderSize", "0")[0]
    if skipped < -1 or (skipped != 0 and (local or packed)):
        raise fields.damaged("HeaderSize")
    before = start if local else max(skipped, 0)
    size = data_path.stat().st_size
    if packed:
        claimed = fields.whole_numbers("CompressedDataSize", "" if local else str(size))[0]
        if claimed <= 0:  # without it, ITK does not find the end of voxels within the header's own file
            raise fields.damaged("CompressedDataSize")
        check_length(data_path, before + claimed, size)
        check_zlib(data_path, before, claimed, promised)
    else:
        check_length(data_path, before + promised, size)
    for key in _SIZE:
        fields.check_sizes(key, range(len(shape)))
    for key in _PLACE:
        fields.check_directions(key)
    sized = any(key in fields for key in _SIZE)
    placed = any(key in fields for key in _PLACE)
    return Promise(shape, channels, data_path, "nothing" if not sized else "place" if placed else "spacing")


def _fields(path: Path, head: bytes) -> tuple[Fields, int]:
    """The fields up to the one that comes last, and where the bytes after it begin."""
    fields = Fields(path, _KNOWN)
    start = 0
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", start) % (len(head) + 1)  # without a line break, the end of the file
        key, equals, value = as_text(path, head[start:end]).partition("=")
        if start >= len(head) or not equals or end - start > _MAX_LINE:
            found = "its header is damaged or cut short" if head[:start] else f"it {found_instead(head)}"
            raise ReadError(path, f"cannot be read as MetaImage: {found}", COPY_AGAIN)
        word = re.split(r"[\s:]", key.strip())[0]
        if word != key.strip() and word in _KNOWN:  # ITK would end the key there
            raise fields.damaged(word)
        fields.add(key.strip(), value.strip())
        start = end + 1
    return fields, start


def _is_true(word: str) -> bool:
    return word[:1] in ("T", "t", "1")
