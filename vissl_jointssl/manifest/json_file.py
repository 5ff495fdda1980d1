"""Reading the small JSON files beside arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vissl_jointssl.manifest.files import FileFault, read_text


def read_json(path: Path, limit: int) -> Any:
    """Whatever a JSON file holds.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        FileFault: If it is missing, too large, no ordinary file, or not JSON; NaN and infinities are not.
    """
    try:
        return json.loads(read_text(path, limit), parse_constant=_refuse)
    except FileNotFoundError:
        raise FileFault("does not exist") from None
    except FileFault:
        raise
    except OSError as error:
        raise FileFault(f"cannot be read ({error.strerror or type(error).__name__})") from None
    except json.JSONDecodeError as error:
        raise FileFault(f"is no JSON ({error.msg} in line {error.lineno})") from None
    except RecursionError:
        raise FileFault("is no JSON that anyone needs: it is nested too deeply") from None
    except ValueError:  # an integer of more than 4300 digits, or what `_refuse` says
        raise FileFault("is no JSON (it holds NaN, an infinity or a number of thousands of digits)") from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)
