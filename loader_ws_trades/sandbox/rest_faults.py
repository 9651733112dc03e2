"""Faults of REST: refusals, silence, cuts, truncated answers, and a database that lags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loader_ws_trades.sandbox.fault import Fault, Occasion, OnAnswer, check_status

if TYPE_CHECKING:
    from loader_ws_trades.sandbox.asked import Asked

_BODIES: dict[int, dict[str, Any]] = {
    418: {"code": -1003, "msg": "Way too much request weight used; IP banned. Please use WebSocket Streams."},
    429: {"code": -1003, "msg": "Too much request weight used; current limit is 6000 request weight per 1 MINUTE."},
    451: {"code": 0, "msg": "Service unavailable from a restricted location according to 'b. Eligibility'."},
    500: {"code": -1007, "msg": "Timeout waiting for response from backend server."},
    503: {
        "code": -1008,
        "msg": "Server is currently overloaded with other requests. Please try again in a few minutes.",
    },
}


@dataclass(frozen=True)
class RestStatus(OnAnswer):
    """REST answers with another status."""

    status: int = 429
    retry_after: int | None = None
    """Seconds of the header `Retry-After`; none: without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_status(self.status)

    def give(self, asked: Asked) -> None:
        """Answer with the status."""
        answer = asked.answer
        answer.status = self.status
        if self.retry_after is not None:
            answer.headers["Retry-After"] = str(self.retry_after)
        if self.status in _BODIES:
            answer.body = _BODIES[self.status]
        else:
            # What stands before the exchange answers so, and not in JSON.
            answer.kind, answer.body = "text/html", f"<html><body>{self.status}</body></html>\n"
        asked.respond()


@dataclass(frozen=True)
class RestSilence(OnAnswer):
    """REST does not answer, and leaves the connection open."""

    def give(self, asked: Asked) -> None:
        """Answer nothing."""
        asked.neglect()


@dataclass(frozen=True)
class RestCut(OnAnswer):
    """REST resets the connection in place of an answer."""

    def give(self, asked: Asked) -> None:
        """Reset the connection."""
        asked.reset()


@dataclass(frozen=True)
class RestTruncated(OnAnswer):
    """REST ends the connection in the middle of an answer's body."""

    def give(self, asked: Asked) -> None:
        """Give half of the answer."""
        asked.break_off()


@dataclass(frozen=True)
class RestLag(Fault):
    """The database behind `historicalTrades` and `aggTrades` does not know trades younger than `seconds`.

    `/api/v3/trades` comes from memory, and does not lag.
    """

    seconds: float = 5.0
    lasting: float | None = None
    """Seconds; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("seconds", "lasting")

    def strike(self, occasion: Occasion) -> None:
        """Lag from now on."""
        occasion.faults.staying.add(self, seconds=self.lasting, times=None)
