"""Faults as text, as in `cut:at=5s,code=1008`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

from loader_ws_trades.sandbox.faults import (
    connection_faults,
    delays,
    handshake_faults,
    market_faults,
    rest_faults,
    trade_faults,
)
from loader_ws_trades.sandbox.faults.fault import Fault
from loader_ws_trades.sandbox.faults.random_faults import Random

_CLASSES: tuple[type[Fault], ...] = (
    connection_faults.Cut,
    connection_faults.HalfOpen,
    connection_faults.Freeze,
    connection_faults.ServerShutdown,
    connection_faults.HugeFrame,
    connection_faults.Fragments,
    delays.Delay,
    trade_faults.Skip,
    trade_faults.Hole,
    trade_faults.Duplicate,
    trade_faults.Replay,
    trade_faults.Shuffle,
    trade_faults.Malformed,
    trade_faults.IdReset,
    handshake_faults.HandshakeStatus,
    handshake_faults.HandshakeSilence,
    rest_faults.RestStatus,
    rest_faults.RestSilence,
    rest_faults.RestCut,
    rest_faults.RestTruncated,
    rest_faults.RestDrip,
    rest_faults.RestOtherRows,
    rest_faults.RestLag,
    market_faults.List,
    market_faults.Delist,
    market_faults.Silent,
    Random,
)

KINDS = {kind.kind(): kind for kind in _CLASSES}
"""The kinds of faults by name."""

# `for` is the better word, but a keyword in Python.
_RENAMED = {"lasting": "for"}

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def parse_fault(text: str) -> Fault:
    """Return the fault that a text describes: KIND[:NAME=VALUE,...]; raises `ValueError`."""
    name, _, rest = text.partition(":")
    if name not in KINDS:
        raise ValueError(f"unknown fault {text!r}; expected one of {', '.join(KINDS)}")
    kind = KINDS[name]
    readers = _readers(kind)
    values: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        key, given, value = part.partition("=")
        if key not in readers:
            raise ValueError(f"fault {text!r}: {name} has no {key!r}; it takes {', '.join(readers)}")
        field, read = readers[key]
        try:
            values[field] = read(value if given else "true")
        except ValueError as error:
            raise ValueError(f"fault {text!r}: {key} must be {error}, not {value!r}") from error
    try:
        return kind(**values)
    except ValueError as error:
        message = str(error)
        for field, word in _RENAMED.items():
            message = message.replace(field, word)
        raise ValueError(f"fault {text!r}: {message}") from error


def fault_text(fault: Fault) -> str:
    """Return the text for `parse_fault`, without values that are the default."""
    values = [
        f"{_RENAMED.get(field.name, field.name)}={_written(value)}"
        for field in dataclasses.fields(fault)
        if (value := getattr(fault, field.name)) != field.default
    ]
    return ":".join([fault.kind(), *([",".join(values)] if values else [])])


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value}s"
    return "+".join(value) if isinstance(value, tuple) else str(value)


def _readers(kind: type[Fault]) -> dict[str, tuple[str, Callable[[str], Any]]]:
    """Return the fields of a kind by their names in the text, each with the function that reads its value."""
    return {
        _RENAMED.get(field.name, field.name): (field.name, _READERS[str(field.type).removesuffix(" | None")])
        for field in dataclasses.fields(kind)
    }


def _time(text: str) -> float:
    number, unit = _measure(text, r"\d+(?:\.\d+)?", _SECONDS, "a time such as 500ms, 5s or 1m")
    return float(number) * _SECONDS[unit]


def _whole(text: str) -> int:
    number, unit = _measure(text, r"\d+", _BYTES, "a whole number such as 10, or a size such as 64MiB")
    return int(number) * _BYTES[unit]


def _whole_or_text(text: str) -> int | str:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else text


def _measure(text: str, number: str, units: Iterable[str], expected: str) -> tuple[str, str]:
    match = re.fullmatch(f"({number})({'|'.join(units)})", text)
    if match is None:
        raise ValueError(expected)
    return match[1], match[2]


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("true or false")
    return text == "true"


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split("+"))


_READERS: dict[str, Callable[[str], Any]] = {
    "float": _time,
    "int": _whole,
    "int | str": _whole_or_text,
    "bool": _flag,
    "str": str,
    "tuple[str, ...]": _list,
}
