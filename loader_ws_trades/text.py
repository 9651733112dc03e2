"""Text for people: durations, times, and foreign text made safe to show. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone


def format_duration(seconds: float) -> str:
    """A time span for people, in its two largest units: "0.02 s", "4.3 s", "2 min 5 s", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    size, larger, smaller, step = next(unit for unit in _SPANS if seconds >= unit[0])
    most, rest = divmod(int(seconds), size)
    return f"{most} {larger} {rest // step} {smaller}"


_SPANS = ((86400, "d", "h", 3600), (3600, "h", "min", 60), (60, "min", "s", 1))


def format_time(timestamp: int) -> str:
    """Unix milliseconds for people; out-of-range values are shown as they are."""
    at = utc(timestamp)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else str(timestamp)


def utc(timestamp: float) -> datetime | None:
    """The date and time of Unix milliseconds; None if they are out of range."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def printable(foreign: str, limit: int = 200) -> str:
    """Foreign text for a message: on one line, without control characters, at most `limit` long.

    Everything that Unicode does not call printable is escaped: line breaks, terminal codes, direction marks,
    invisible characters, lone surrogates.
    """
    if len(foreign) <= limit and foreign.isprintable():
        return foreign
    shown, size = [], 0
    for letter in foreign[: limit + 1]:
        piece = letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        size += len(piece)
        if size > limit:
            shown.append("...")
            break
        shown.append(piece)
    return "".join(shown)


def counted(count: int, thing: str) -> str:
    """How many there are of a thing: "1 id", "1,000 ids"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """Names for a message, which lists `most` of them and counts the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def redacted_url(value: str) -> str:
    """`value` without the credentials and the query of a URL."""
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1?***", re.sub(r"(?<=://)[^/?#]*@", "***@", value))


def header_number(foreign: str) -> int | None:
    """The whole number in a response header; None for anything else, or for more than 15 digits."""
    return int(foreign) if re.fullmatch(r"[0-9]{1,15}", foreign.strip()) else None
