"""The names of trade streams, and the URLs of connections that carry them."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urlsplit, urlunsplit


def stream_name(symbol: str) -> str:
    """The name of a pair's trade stream."""
    return f"{symbol.lower()}@trade"


def stream_url(base: str, symbols: Iterable[str], *, combined: bool = False) -> str:
    """The URL of the streams of `symbols`, whose names go between the path and the query of a base URL.

    Args:
        base: the URL without them; if its path ends in `/stream`, the streams are combined, and in the query.
        symbols: a single one, unless the streams are combined.
        combined: whether they are combined whatever the base URL.
    """
    parts = urlsplit(combined_url(base) if combined else base)
    path, names = parts.path.rstrip("/"), "/".join(map(_quoted, symbols))
    if path.endswith("/stream"):  # frames come wrapped in `{"stream":..,"data":..}`
        query = "&".join(part for part in (f"streams={names}", parts.query) if part)
        return urlunsplit(parts._replace(path=path, query=query))
    return urlunsplit(parts._replace(path=f"{path}/{names}"))


def combined_url(base: str) -> str:
    """The base URL of combined streams."""
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith("/stream") else f"{path.removesuffix('/ws')}/stream"))


def length_in_url(symbol: str) -> int:
    """How many characters the stream of a pair adds to a URL."""
    return len(_quoted(symbol)) + 1


def _quoted(symbol: str) -> str:
    return quote(stream_name(symbol), safe="@")
