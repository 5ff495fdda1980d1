"""The one line of a traceback that says what went wrong."""

from __future__ import annotations

import re
import traceback

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s+File "(?P<file>.+)", line (?P<line>\d+)')


def cause_of(error: BaseException) -> str:
    """Find the first exception behind an error that crossed processes as text.

    PyTorch hands on the failure of a rank, or of a data loader worker, as an exception whose message holds the
    original traceback. Printed in full, the innermost original is the last traceback of the text.

    Args:
        error: What the launcher caught.

    Returns:
        One line: ``<exception>: <message>``, with its place in the code if it has no message.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command resumes from the last checkpoint"
    lines = "".join(traceback.format_exception(error)).splitlines()
    headers = [number for number, line in enumerate(lines) if line.endswith(_HEADER)]
    place = ""
    for line in lines[headers[-1] + 1 :] if headers else lines:
        frame = _FRAME.match(line)
        if frame:
            place = f"{frame['file']}:{frame['line']}"
        elif line and not line[0].isspace():
            return line if ": " in line or not place else f"{line} (in {place})"
    return f"{type(error).__name__}: {error}"
