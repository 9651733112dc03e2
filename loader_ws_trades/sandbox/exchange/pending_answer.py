"""A REST answer that is still to be sent."""

from dataclasses import dataclass

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.rest import Answer


@dataclass(frozen=True)
class PendingAnswer:
    """The answer to a request for `path`, and the ways to send it."""

    connection: Client
    path: str
    answer: Answer
    counters: Counters

    def respond(self) -> None:
        """Send the answer."""
        head, body = self._counted()
        self.connection.writer.write(head + body)

    def truncate(self) -> None:
        """Send half of the body, and end the connection."""
        head, body = self._counted()
        self.connection.writer.write(head + body[: len(body) // 2])
        self.connection.end()

    def drip(self, pause: float, *, body_only: bool) -> None:
        """Send the answer byte by byte, `pause` seconds before each; or the head at once and only the body so."""
        head, body = self._counted()
        if body_only:
            self.connection.writer.write(head)
            head = b""
        self.connection.writer.stream_slowly((bytes([byte]) for byte in head + body), pause)

    def withhold(self) -> None:
        """Send no answer."""
        self.counters.count_answer(self.path, None)

    def reset(self) -> None:
        """Reset the connection instead of answering."""
        self.withhold()
        self.connection.reset()

    def _counted(self) -> tuple[bytes, bytes]:
        self.counters.count_answer(self.path, self.answer.status)
        return self.answer.encoded()
