"""One REST request on its way to an answer."""

from dataclasses import dataclass

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.rest import Answer


@dataclass(frozen=True)
class Asked:
    """A request for `path`, the answer that the exchange would give, and the ways to give it."""

    connection: Client
    path: str
    answer: Answer
    counters: Counters

    def respond(self) -> None:
        """Give the answer."""
        head, body = self._counted()
        self.connection.outlet.write(head + body)

    def break_off(self) -> None:
        """Give the answer as far as the middle of its body, and end the connection."""
        head, body = self._counted()
        self.connection.outlet.write(head + body[: len(body) // 2])
        self.connection.end()

    def drip(self, pause: float, *, body_alone: bool) -> None:
        """Give the answer byte by byte, `pause` seconds before each; or its head at once, and its body so."""
        head, body = self._counted()
        if body_alone:
            self.connection.outlet.write(head)
            head = b""
        self.connection.outlet.occupy((bytes([byte]) for byte in head + body), pause)

    def neglect(self) -> None:
        """Give no answer."""
        self.counters.answered(self.path, None)

    def reset(self) -> None:
        """Reset the connection in place of an answer."""
        self.neglect()
        self.connection.reset()

    def _counted(self) -> tuple[bytes, bytes]:
        self.counters.answered(self.path, self.answer.status)
        return self.answer.encoded()
