"""The interface of a client's connection for REST answers and faults."""

from collections.abc import Mapping
from typing import Protocol

from loader_ws_trades.sandbox.exchange.frames import Form
from loader_ws_trades.sandbox.exchange.subscriptions import Subscriptions
from loader_ws_trades.sandbox.exchange.writer import Writer


class Client(Protocol):
    """A connection of a WebSocket or REST client."""

    form: Form
    writer: Writer
    subscriptions: Subscriptions

    @property
    def open(self) -> bool:
        """Whether it is a WebSocket connection that neither side has begun to close."""

    @property
    def number(self) -> int:
        """Number of the WebSocket connection, from 1; 0 for any other connection."""

    @property
    def url(self) -> str:
        """Base URL of the exchange."""

    @property
    def stuck(self) -> bool:
        """Whether it cannot continue as if nothing had happened."""

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Close with a close frame, or without one (1006)."""

    def abort(self) -> None:
        """Cut the connection and drop what is not sent yet."""

    def end(self) -> None:
        """End the connection without a close frame, after everything that is already written."""

    def reset(self) -> None:
        """End the connection with a TCP reset."""

    def freeze(self, *, pings: bool, for_good: bool) -> None:
        """Send nothing, or nothing but pings, until `thaw`."""

    def thaw(self) -> None:
        """Send what was held back by `freeze`."""

    def reject(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        """Reject the WebSocket handshake."""

    def ignore_handshake(self) -> None:
        """Leave the WebSocket handshake unanswered."""
