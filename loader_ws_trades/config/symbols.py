"""Many symbols from one set of variables: which one a process takes, and where its name is put in.

Each function raises `ValueError` with the end of a sentence that begins with the setting's name, as those of `values`.
"""

from __future__ import annotations

import re
from typing import Final

from loader_ws_trades.config import parsers as values

PLACE: Final = "{symbol}"  # stands for the symbol, in upper case

_TOPIC_NAMES = f"use up to 249 letters, digits, '.', '_' and '-', and {PLACE} where the symbol shall stand"


def listed(value: str) -> tuple[str, ...]:
    """Trading pairs separated by commas, each once."""
    found: list[str] = []
    for part in value.split(","):
        if not part.strip():
            raise ValueError("holds an empty entry; separate pairs with one comma each, as in BTCUSDT,ETHUSDT")
        try:
            found.append(values.symbol(part))
        except ValueError as error:
            raise ValueError(f"holds an entry that {error}") from error
    if repeated := next((symbol for place, symbol in enumerate(found) if symbol in found[:place]), None):
        raise ValueError(f"names {repeated} more than once, and two loaders would write its trades twice; name it once")
    return tuple(found)


def index(value: str) -> int:
    """A place in a list, from 0."""
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise ValueError(f"is {values.quoted(value)}, which is no whole number from 0")
    return int(value)


def chosen(symbols: tuple[str, ...], place: int | None) -> str:
    """The symbol at `place`; of a single one it need not be said. A fault is the index's."""
    if place is None and len(symbols) == 1:
        return symbols[0]
    last = len(symbols) - 1
    if place is None:
        raise ValueError(
            f"is not set, and so none of the {len(symbols)} pairs of SYMBOLS (--symbols) is chosen; set it to a number "
            f"from 0 to {last}, as an Indexed Job of Kubernetes does, or set SYMBOL (--symbol) in place of both"
        )
    if place > last:
        held = f"{len(symbols)} pairs, 0 to {last}" if last else "one pair, 0"
        raise ValueError(f"is {place}, but SYMBOLS (--symbols) names {held}; give the Job as many completions as pairs")
    return symbols[place]


def topic(value: str) -> str:
    """A name that Kafka allows for a topic, as it stands or once the symbol is put in."""
    value = values.text(value)
    try:
        values.topic(value.replace(PLACE, "X"))
    except ValueError as error:
        raise ValueError(f"is {values.quoted(value)}, which is no topic name; {_TOPIC_NAMES}") from error
    return value


def label(value: str) -> str:
    """Any text that is not blank, in which the symbol's place is all that stands in braces."""
    value = values.text(value)
    for braced in re.findall(r"\{[^{}]*\}", value):
        if braced != PLACE:
            raise ValueError(f"holds {values.quoted(braced)}; only {PLACE} may stand there in braces")
    return value


def topic_of(symbol: str, name: str) -> str:
    """The topic called `name` for `symbol`."""
    if PLACE in name and not re.fullmatch(r"[A-Z0-9._-]+", symbol):
        raise ValueError(
            f"holds {PLACE}, but {symbol} has letters that no topic name may have; name a topic without {PLACE} for it"
        )
    return values.topic(name.replace(PLACE, symbol))


def label_of(symbol: str, text: str) -> str:
    """`text` for `symbol`."""
    return text.replace(PLACE, symbol)
