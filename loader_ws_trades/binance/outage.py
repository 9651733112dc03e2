"""How long the exchange has not been connected, and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import RunError


class Outage:
    """The time without a connection. Changed under the feed's lock; read by any thread."""

    def __init__(self) -> None:
        self.since: float | None = None
        """When the last open connection ended (monotonic); None while one is open, or before the start."""
        self._text = "no connection to the exchange yet"
        self._has_reason = False

    def begin(self, reason: str) -> None:
        """No connection is open; only the first `reason` of an outage is kept."""
        self.since = self.since or time.monotonic()
        if not self._has_reason:
            self._has_reason = True
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._text = f"no connection to the exchange since {now} ({reason})"

    def end(self) -> float | None:
        """A connection is open; returns when the outage began."""
        since, self.since, self._has_reason = self.since, None, False
        return since

    def text(self) -> str | None:
        """Why and since when the exchange is not connected; None while it is."""
        return self._text if self.since is not None else None

    def check(self, limit: float, place: Callable[[], str]) -> None:
        """Check that the outage is within the limit; `place` says what the connections are to.

        Raises:
            RunError: if it is longer.
        """
        since = self.since  # a thread of the feed may set `since` to None
        if since is not None and time.monotonic() - since > limit:
            raise RunError(
                f"No connection to the exchange at {place()} for {limit:g} s "
                f"({self._text}); check {named('binance_ws_url')} and the network"
            )
