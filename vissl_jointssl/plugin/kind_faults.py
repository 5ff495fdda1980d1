"""Values of a config that are of another kind than VISSL reads: a list where it reads a section, a word for a number.

Looked for before anything else, because whatever reads a section reads it without asking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Lists whose elements are read by name or by place; VISSL's defaults of them are mostly empty. `*` stands for any key.
ELEMENTS = {
    "DATA.*.TRANSFORMS": "mapping",
    "DATA.*.DATA_SOURCES": "word",
    "DATA.*.LABEL_SOURCES": "word",
    "DATA.*.DATA_PATHS": "word",
    "DATA.*.SPLITS": "word",
    "METERS.names": "word",
    "OPTIMIZER.param_schedulers.*.schedulers": "mapping",
    "MODEL.HEAD.PARAMS": "list",
}
FILES = ("CHECKPOINT.DIR", "MODEL.WEIGHTS_INIT.PARAMS_FILE")
HEADS = "MODEL.HEAD.PARAMS"
OURS = ("JOINT_SSL", "MODEL.TRUNK.JOINT_SSL")
EXPECTED = {
    "mapping": "a section {key: value}",
    "list": "a list",
    "number": "a number",
    "word": "a word",
    "single value": "a single value",
}


def kind_faults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """What of a config is of the wrong kind, in words, each with its key.

    Args:
        config: A run's, as plain containers.
        defaults: VISSL's. A default of `None` says nothing about the kind.
    """
    faults = list(_faults(config, defaults, ()))
    for path in OURS:
        found: Any = config
        for key in path.split("."):
            found = found.get(key, {}) if isinstance(found, Mapping) else {}
        faults += _fault(found, "mapping", path)
    return faults


def _faults(config: Mapping[str, Any], defaults: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[str]:
    for key, value in config.items():
        path, below = (*at, str(key)), defaults.get(key)
        if ".".join(path) in FILES and value is not None:
            yield from _fault(value, "word", ".".join(path))
        elif below is not None or key == "name":
            yield from _fault(value, _wanted(below), ".".join(path))
        if isinstance(value, Mapping):
            yield from _faults(value, below if isinstance(below, Mapping) else {}, path)
        elif isinstance(value, list | tuple):
            kind = next((kind for pattern, kind in ELEMENTS.items() if _matches(path, pattern)), "")
            yield from _element_faults(value, kind, ".".join(path))


def _element_faults(elements: Sequence[Any], kind: str, path: str) -> Iterator[str]:
    for number, element in enumerate(elements):
        place = f"{path}.{number}"
        yield from _fault(element, kind, place) if kind else ()
        if isinstance(element, Mapping):
            yield from _faults(element, {}, tuple(place.split(".")))
        elif path.startswith(HEADS) and isinstance(element, list | tuple):
            if element and isinstance(element[0], list | tuple):  # a head of several layers
                yield from _element_faults(element, "list", place)
            elif [_kind(one) for one in element] != ["word", "mapping"]:
                yield f"config.{place} is {str(element)[:60]!r}, expected [name, {{key: value}}]"


def _fault(value: Any, wanted: str, path: str) -> list[str]:
    found = _kind(value)
    fits = found not in ("mapping", "list") if wanted == "single value" else found == wanted
    return [] if fits else [f"config.{path} is {str(value)[:60]!r}, expected {EXPECTED[wanted]}"]


def _wanted(default: Any) -> str:
    """What VISSL's default tells: a run's number may be given for a word, and a word or nothing for a switch."""
    kind = _kind(default)
    return "single value" if kind == "word" else kind


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "word" if isinstance(value, str) else "single value"


def _matches(path: tuple[str, ...], pattern: str) -> bool:
    keys = pattern.split(".")
    return len(keys) == len(path) and all(key in ("*", name) for key, name in zip(keys, path, strict=True))
