"""Faults of the WebSocket handshake: rejected or unanswered."""

from __future__ import annotations

from dataclasses import dataclass

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.faults.fault import OnHandshake, check_header, check_status


@dataclass(frozen=True)
class HandshakeStatus(OnHandshake):
    """The handshake is rejected with a status."""

    status: int = 403
    retry_after: int | str | None = None
    """Value of the `Retry-After` header, seconds or any text; none: no such header."""
    location: str | None = None
    """Value of the `Location` header; none: another path of the exchange for a 3xx, else no such header."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_status(self.status)
        check_header("retry_after", self.retry_after)

    def respond(self, connection: Client) -> None:
        """Reject the handshake."""
        location = self.location
        if location is None and self.status < 400:
            location = f"{connection.url}/moved"
        headers = {"Retry-After": self.retry_after, "Location": location}
        given = {name: str(value) for name, value in headers.items() if value is not None}
        connection.reject(self.status, f"{self.status}\n", given)


@dataclass(frozen=True)
class HandshakeSilence(OnHandshake):
    """The handshake is not answered; the connection stays open."""

    def respond(self, connection: Client) -> None:
        """Leave the handshake unanswered."""
        connection.ignore_handshake()
