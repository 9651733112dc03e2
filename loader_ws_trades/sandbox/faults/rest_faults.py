"""Faults of REST: errors, silence, resets, truncated, slow or wrong answers, and a lagging database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loader_ws_trades.sandbox.exchange.pending_answer import PendingAnswer
from loader_ws_trades.sandbox.faults.fault import Context, Fault, OnAnswer, check_header, check_status

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
    retry_after: int | str | None = None
    """Value of the `Retry-After` header, seconds or any text; none: no such header."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_status(self.status)
        check_header("retry_after", self.retry_after)

    def answer(self, pending: PendingAnswer) -> None:
        """Answer with the status."""
        response = pending.answer
        response.status = self.status
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        if self.status in _BODIES:
            response.body = _BODIES[self.status]
        else:
            # As a gateway in front of the exchange does: not JSON.
            response.kind, response.body = "text/html", f"<html><body>{self.status}</body></html>\n"
        pending.respond()


@dataclass(frozen=True)
class RestSilence(OnAnswer):
    """REST does not answer and leaves the connection open."""

    def answer(self, pending: PendingAnswer) -> None:
        """Leave the request unanswered."""
        pending.withhold()


@dataclass(frozen=True)
class RestCut(OnAnswer):
    """REST resets the connection instead of answering."""

    def answer(self, pending: PendingAnswer) -> None:
        """Reset the connection."""
        pending.reset()


@dataclass(frozen=True)
class RestTruncated(OnAnswer):
    """REST closes the connection in the middle of a response body."""

    def answer(self, pending: PendingAnswer) -> None:
        """Send half of the body."""
        pending.truncate()


@dataclass(frozen=True)
class RestDrip(OnAnswer):
    """REST answers byte by byte, `pause` seconds before each."""

    pause: float = 2.0
    body: bool = False
    """Send the head at once and only the body slowly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("pause")

    def answer(self, pending: PendingAnswer) -> None:
        """Send the answer slowly."""
        pending.drip(self.pause, body_only=self.body)


@dataclass(frozen=True)
class RestOtherRows(OnAnswer):
    """REST answers with the wrong rows, as from a confused cache: ids start at `first_id`."""

    first_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_id < 0:
            raise ValueError("first_id must not be below 0")

    def answer(self, pending: PendingAnswer) -> None:
        """Renumber the rows; an answer without trades is unchanged."""
        response = pending.answer
        if isinstance(response.body, list):
            response.body = [
                row | {"id": number} if "id" in row else row for number, row in enumerate(response.body, self.first_id)
            ]
        pending.respond()


@dataclass(frozen=True)
class RestLag(Fault):
    """The database behind `historicalTrades` and `aggTrades` lacks trades younger than `seconds`.

    `/api/v3/trades` is served from memory and does not lag.
    """

    seconds: float = 5.0
    lasting: float | None = None
    """Seconds; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("seconds", "lasting")

    def strike(self, context: Context) -> None:
        """Start lagging."""
        context.injector.activate(self, seconds=self.lasting, times=None)
