"""Faults of the WebSocket handshake: refusals, and silence."""

from __future__ import annotations

from dataclasses import dataclass

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.faults.fault import OnHandshake, check_header, check_status


@dataclass(frozen=True)
class HandshakeStatus(OnHandshake):
    """The handshake is refused with a status."""

    status: int = 403
    retry_after: int | str | None = None
    """Seconds of the header `Retry-After`, or any text in their place; none: without it."""
    location: str | None = None
    """The header `Location`; none: for a 3xx another path of the exchange, else without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_status(self.status)
        check_header("retry_after", self.retry_after)

    def receive(self, connection: Client) -> None:
        """Refuse."""
        location = self.location
        if location is None and self.status < 400:
            location = f"{connection.url}/moved"
        headers = {"Retry-After": self.retry_after, "Location": location}
        given = {name: str(value) for name, value in headers.items() if value is not None}
        connection.reject(self.status, f"{self.status}\n", given)


@dataclass(frozen=True)
class HandshakeSilence(OnHandshake):
    """The handshake is not answered; the connection stays open."""

    def receive(self, connection: Client) -> None:
        """Answer nothing."""
        connection.neglect_handshake()
