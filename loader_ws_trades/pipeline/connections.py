"""The open connections of a stream: their numbers and slots, what each brought last, and which one proved a reset."""

from __future__ import annotations

from loader_ws_trades.pipeline.copies import Copies


class Connections:
    """Not thread-safe.

    Args:
        copies: counts what each of several connections brought.
    """

    def __init__(self, copies: Copies | None = None) -> None:
        self.copies = copies
        self._last = 0  # the highest number of all opened
        self.slots: dict[int, int] = {}
        """By open connection: its slot."""
        self.newest: dict[int, int] = {}
        """By open connection: its last id, or -1."""
        self.proved = self.doubtful = 0
        """After a reset: the connection that proved it, and the last one that may have frames from before it."""

    def open(self, connection: int, slot: int) -> None:
        """Note that the connection with this number was opened in `slot`; later ones have higher numbers."""
        self.newest[connection], self.slots[connection] = -1, slot
        self._last = max(self._last, connection)
        self._restart()

    def close(self, connection: int) -> None:
        """Note that a connection has ended."""
        self.newest.pop(connection, None)
        self.slots.pop(connection, None)
        self._restart()

    def _restart(self) -> None:
        if self.copies:
            self.copies.restart()

    def note_reset(self, connection: int) -> None:
        """Note that `connection` proved a reset: the others may have frames from before it."""
        self.proved, self.doubtful = connection, self._last

    def confirm(self, first: int) -> bool:
        """Whether each of several open connections brought an id above `first`."""
        return len(self.newest) < 2 or all(trade_id > first for trade_id in self.newest.values())
