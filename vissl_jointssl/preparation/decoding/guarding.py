"""Around every call of pydicom and Pillow: nothing is printed, and whatever they raise becomes one clear line.

Their warnings, logs and errors quote headers, and headers name patients. Only the kind of an error is passed on.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

# What decoders have been seen to raise on damaged files, or may.
_ERRORS = (
    AssertionError,
    ArithmeticError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_LOGGERS = ("pydicom", "PIL")


@contextmanager
def guarded(path: Path, doing: str) -> Iterator[None]:
    """Silence within the block, and `ReadError` for all that decoders raise.

    Args:
        path: The file that is read.
        doing: What did not work, such as "cannot be read as DICOM".
    """
    with quiet():
        try:
            yield
        except ReadError:
            raise
        except FileNotFoundError:
            raise ReadError(path, "does not exist", "check the path in the recipe", "missing") from None
        except PermissionError:
            raise ReadError(path, "may not be read", "ask its owner for the right to read it", "forbidden") from None
        except MemoryError:
            raise ReadError(path, "needs more memory than there is", COPY_AGAIN, "too_large") from None
        except decoder_errors() as error:
            words = "cut short" if "truncated" in str(error).lower() else type(error).__name__
            raise ReadError(path, f"{doing} ({words})", COPY_AGAIN) from None


def decoder_errors() -> tuple[type[Exception], ...]:
    """Every kind of error that decoders raise on damaged files; Python asks for it only when something was raised."""
    from PIL.Image import DecompressionBombError
    from pydicom.errors import BytesLengthException, InvalidDicomError  # which are not even ValueErrors

    return (*_ERRORS, BytesLengthException, InvalidDicomError, DecompressionBombError)


@contextmanager
def quiet() -> Iterator[None]:
    """No warning of anybody and no log of pydicom and Pillow within the block; errors are raised as ever."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Within the block Pillow opens images of any size: for callers that compare the header with their own limit."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
