"""Many symbols from one set of variables: which one a process loads, and where `{symbol}` is filled in.

Each function raises `ValueError` with the end of a sentence that begins with the setting's name, as those of `values`.
"""

from __future__ import annotations

import re
from typing import Final

from loader_ws_trades.config import parsers as values

PLACE: Final = "{symbol}"  # stands for the symbol, in upper case

_TOPIC_NAMES = f"use up to 249 letters, digits, '.', '_' and '-', and {PLACE} for the symbol"


def listed(value: str) -> tuple[str, ...]:
    """Trading pairs separated by commas, each once."""
    found: list[str] = []
    for part in value.split(","):
        if not part.strip():
            raise ValueError("has an empty entry; separate pairs by single commas, as in BTCUSDT,ETHUSDT")
        try:
            found.append(values.symbol(part))
        except ValueError as error:
            raise ValueError(f"has an entry that {error}") from error
    if repeated := next((symbol for place, symbol in enumerate(found) if symbol in found[:place]), None):
        raise ValueError(f"names {repeated} more than once, so two loaders would publish its trades; list it once")
    return tuple(found)


def index(value: str) -> int:
    """A zero-based index."""
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise ValueError(f"is {values.quoted(value)}, which is not a whole number from 0")
    return int(value)


def chosen(symbols: tuple[str, ...], place: int | None) -> str:
    """The symbol at `place`, which may be omitted if there is only one; errors are about the index."""
    if place is None and len(symbols) == 1:
        return symbols[0]
    last = len(symbols) - 1
    if place is None:
        raise ValueError(
            f"is not set, so none of the {len(symbols)} pairs of SYMBOLS (--symbols) is selected; set it to a number "
            f"from 0 to {last}, as a Kubernetes Indexed Job does, or set SYMBOL (--symbol) instead of both"
        )
    if place > last:
        held = f"{len(symbols)} pairs, 0 to {last}" if last else "one pair, 0"
        raise ValueError(
            f"is {place}, but SYMBOLS (--symbols) has {held}; set the completions of the Job to the number of pairs"
        )
    return symbols[place]


def topic(value: str) -> str:
    """A valid topic name, as given or with the symbol filled in."""
    value = values.text(value)
    try:
        values.topic(value.replace(PLACE, "X"))
    except ValueError as error:
        raise ValueError(f"is {values.quoted(value)}, which is not a topic name; {_TOPIC_NAMES}") from error
    return value


def label(value: str) -> str:
    """Any name; `{symbol}` is all that it may have in braces."""
    value = values.text(value)
    for braced in re.findall(r"\{[^{}]*\}", value):
        if braced != PLACE:
            raise ValueError(f"contains {values.quoted(braced)}; only {PLACE} is allowed in braces")
    return value


def filled(text: str, symbol: str, *, is_topic: bool) -> str:
    """`text` for `symbol`; it may have to be a topic name."""
    if is_topic and not re.fullmatch(r"[A-Z0-9._-]+", symbol):
        raise ValueError(
            f"contains {PLACE}, but {symbol} has characters not allowed in topic names; "
            f"use a topic without {PLACE} for it"
        )
    text = text.replace(PLACE, symbol)
    return values.topic(text) if is_topic else text
