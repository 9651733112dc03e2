# ruff: noqa: ARG002 - the arguments are for those who override
"""The place where faults will be made: all that the exchange says passes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loader_ws_trades.sandbox.connection import Connection
    from loader_ws_trades.sandbox.frames import Batch
    from loader_ws_trades.sandbox.rest import Answer


class Faults:
    """Changes nothing; a subclass overrides what it disturbs. All methods run in the exchange's event loop.

    A connection's `write`, `close` and `abort` say or do more than is asked for here.
    """

    def handshake(self, connection: Connection, target: str) -> bool:
        """Say whether the exchange should answer the WebSocket handshake for `target`; if not, this sees to it."""
        return True

    def frames(self, connection: Connection, batch: Batch) -> bytes:
        """Return the bytes to write in place of the batch's; may be none."""
        return batch.data

    def ping(self, connection: Connection) -> bool:
        """Say whether to send a ping that is due."""
        return True

    def answer(self, connection: Connection, target: str, answer: Answer) -> Answer | None:
        """Return the REST answer to give; none: this gives it itself, later or never."""
        return answer
