"""What a file really is, by its first bytes, for files that do not hold what their name says."""

from __future__ import annotations

_SIGNATURES = (
    (b"\x1f\x8b", "a gzip file"),
    (b"NRRD", "an NRRD file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"<", "a page of HTML or XML"),
    (b"version https://git-lfs", "a pointer of git LFS"),
    (b"ObjectType", "a MetaImage file"),
    (b"NDims", "a MetaImage file"),
)
HEAD = 348  # bytes that `found_instead` needs


def found_instead(head: bytes) -> str:
    """Words for a message: "holds a PNG image", or that nothing known was found."""
    for start, words in _SIGNATURES:
        if head.startswith(start):
            return f"holds {words}"
    if head[128:132] == b"DICM":
        return "holds a DICOM file"
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return "holds a NIfTI or Analyze file"
    return "begins with bytes of no known format"
