"""Faults of REST: refusals, silence, cuts, answers in pieces or with other rows, and a database that lags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loader_ws_trades.sandbox.exchange.asked import Asked
from loader_ws_trades.sandbox.faults.fault import Fault, Occasion, OnAnswer, check_header, check_status

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
    """Seconds of the header `Retry-After`, or any text in their place; none: without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_status(self.status)
        check_header("retry_after", self.retry_after)

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
class RestDrip(OnAnswer):
    """REST answers byte by byte, `pause` seconds before each."""

    pause: float = 2.0
    body: bool = False
    """Whether the head comes at once, and the body alone so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("pause")

    def give(self, asked: Asked) -> None:
        """Let the answer drip."""
        asked.drip(self.pause, body_alone=self.body)


@dataclass(frozen=True)
class RestOtherRows(OnAnswer):
    """REST answers with rows of other ids, as a cache does that mixes up its answers: from `first_id` on."""

    first_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_id < 0:
            raise ValueError("first_id must not be below 0")

    def give(self, asked: Asked) -> None:
        """Number the rows otherwise; an answer without rows of trades stays as it is."""
        answer = asked.answer
        if isinstance(answer.body, list):
            answer.body = [
                row | {"id": number} if "id" in row else row for number, row in enumerate(answer.body, self.first_id)
            ]
        asked.respond()


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
        occasion.faults.activate(self, seconds=self.lasting, times=None)
