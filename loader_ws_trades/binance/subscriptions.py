"""The streams of one open connection, and the messages by which others join and leave. No I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from loader_ws_trades.binance.stream_urls import stream_name
from loader_ws_trades.logs import Throttle
from loader_ws_trades.text import listed

# The exchange allows five frames a second, pongs included, but has closed connections for messages 250 ms apart.
_APART = 0.5  # seconds between two messages
_ANSWER_LIMIT = 10.0  # seconds after which an answer is missing
_REFUSED = 30.0  # seconds to wait after an error
_NAMED = 20  # pairs that a log line names at most
_ID = re.compile(r'"id":\s*(\d{1,18})\b')


class _Request(NamedTuple):
    number: int
    method: str
    pairs: list[str]
    sent: float

    def __str__(self) -> str:
        return f"{self.method} for {listed(self.pairs, _NAMED)}"


class Subscriptions:
    """Guarded by the feed's lock.

    Args:
        pairs: those in the connection's URL.
        version: of the group they are from.
        numbers: gives each message its id.
        lines: for the log.
    """

    def __init__(self, pairs: Iterable[str], version: int, numbers: Iterator[int], lines: Throttle) -> None:
        self.pairs = dict.fromkeys(pairs)
        """Those whose stream the connection carries."""
        self._version = version
        self._numbers = numbers
        self._lines = lines
        self._asked: _Request | None = None
        self._not_before = 0.0

    def message(self, wanted: Collection[str], version: int) -> str | None:
        """The message to send now so that the connection carries the streams of `wanted`; None for none.

        One at a time: the next one follows the answer. Without an answer it is sent again.
        """
        if version == self._version:
            return None
        now, asked = time.monotonic(), self._asked
        if now < self._not_before or (asked and now < asked.sent + _ANSWER_LIMIT):
            return None
        if asked:
            self._lines.warn("subscribe", f"The exchange has not answered {asked} in {_ANSWER_LIMIT:g} s; asking again")
        method, pairs = "SUBSCRIBE", [pair for pair in wanted if pair not in self.pairs]
        if not pairs:
            method, pairs = "UNSUBSCRIBE", [pair for pair in self.pairs if pair not in wanted]
        if not pairs:
            self._version, self._asked = version, None
            return None
        self._asked = _Request(next(self._numbers), method, pairs, now)
        names = list(map(stream_name, pairs))
        return msgspec.json.encode({"method": method, "params": names, "id": self._asked.number}).decode()

    def answer(self, text: str, *, accepted: bool) -> list[str] | None:
        """Take an answer; returns the pairs that joined, or None if it is not the answer to our message.

        An error without an id can only be about our message.
        """
        asked, found = self._asked, _ID.search(text)
        if asked is None or (int(found[1]) != asked.number if found else accepted):
            return None
        self._asked = None
        # From the answer on, as the message may have waited to be sent.
        self._not_before = time.monotonic() + (_APART if accepted else _REFUSED)
        if not accepted:
            self._lines.warn("subscribe", f"The exchange rejects {asked}: {text}; asking again in {_REFUSED:g} s")
            return []
        if asked.method == "SUBSCRIBE":
            self.pairs |= dict.fromkeys(asked.pairs)
            self._lines.info("subscribed", f"The exchange accepts {asked}")
            return asked.pairs
        for pair in asked.pairs:
            del self.pairs[pair]
        return []
