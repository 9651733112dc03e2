"""Many symbols from one set of variables: which ones a process loads, and where `{symbol}` is filled in.

Each function raises `ValueError` with the end of a sentence that begins with the setting's name, as those of `parsers`.
"""

from __future__ import annotations

import fnmatch
import re
import zlib
from collections.abc import Iterable
from typing import Final

from loader_ws_trades.config import parsers as values

PLACE: Final = "{symbol}"  # stands for the symbol, in upper case

_TOPIC_NAMES = f"use up to 249 letters, digits, '.', '_' and '-', and {PLACE} for the symbol"


def listed(value: str) -> tuple[str, ...]:
    """Trading pairs and patterns (`*` for any letters, `?` for one), separated by commas, each once."""
    found: list[str] = []
    for part in value.split(","):
        if not part.strip():
            raise ValueError("has an empty entry; separate pairs by single commas, as in BTCUSDT,ETHUSDT")
        try:
            # With a letter in place of each wildcard it must be a pair.
            values.symbol(re.sub("[*?]", "X", part))
        except ValueError as error:
            raise ValueError(
                f"has the entry {values.quoted(part.strip())}, which is neither a trading pair nor a pattern; use "
                "entries like BTCUSDT, *USDT or *"
            ) from error
        found.append(values.stripped(part).upper())
    if repeated := next((symbol for place, symbol in enumerate(found) if symbol in found[:place]), None):
        raise ValueError(f"names {repeated} more than once; list it once")
    return tuple(found)


def is_pattern(entry: str) -> bool:
    """Whether an entry stands for the pairs that match it."""
    return "*" in entry or "?" in entry


def matching(entries: Iterable[str], trading: Iterable[str], share: tuple[int, int]) -> list[str]:
    """The pairs of share i of n, by entry, then by name: those of `trading` that match a pattern, and all names.

    Pairs are split by CRC-32, so that a new one changes the share of no other.
    """
    names = sorted(trading)
    found: dict[str, None] = {}
    for entry in entries:
        found |= dict.fromkeys(fnmatch.filter(names, entry) if is_pattern(entry) else [entry])
    place, shares = share
    return [name for name in found if zlib.crc32(name.encode()) % shares == place]


def split(entries: tuple[str, ...], place: int | None, shares: int | None) -> tuple[str, ...]:
    """The entries of share `place` of a list; a list with a pattern is split by name later, so all of them.

    Errors are about the index.
    """
    if place is None:
        return entries
    by_name = any(map(is_pattern, entries))
    if shares is None and by_name:
        raise ValueError(
            f"is {place}, but SYMBOLS (--symbols) has a pattern, which is split into as many shares as "
            "JOB_COMPLETIONS (--job-completions) says; set it to the completions of the Job"
        )
    if shares and place >= shares:
        raise ValueError(
            f"is {place}, but JOB_COMPLETIONS (--job-completions) is {shares}; set that to the completions of the Job"
        )
    if place >= len(entries) and not by_name:
        last = len(entries) - 1
        held = f"{len(entries)} pairs (indexes 0 to {last})" if last else "one pair (index 0)"
        raise ValueError(
            f"is {place}, but SYMBOLS (--symbols) has {held}; lower the Job's completions, and "
            "JOB_COMPLETIONS (--job-completions) if it is set, to at most the number of pairs"
        )
    return entries if by_name else entries[place :: shares or len(entries)]


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
    if is_topic and PLACE in text and not re.fullmatch(r"[A-Z0-9._-]+", symbol):
        raise ValueError(
            f"contains {PLACE}, but {symbol} has characters not allowed in topic names; "
            f"use a topic without {PLACE} for it"
        )
    text = text.replace(PLACE, symbol)
    return values.topic(text) if is_topic else text
