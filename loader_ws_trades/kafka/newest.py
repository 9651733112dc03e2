"""The newest trade of a pair among records of its topic, judged by ids and times. No I/O."""

from __future__ import annotations

from loader_ws_trades.pipeline.events import Position

_PROOF = 3  # trades in a row that prove a reset


class Newest:
    """The newest trade of one pair at or after `since`; trades are taken in the order of their offsets.

    It is the one with the highest id. But three in a row with ids that rise by one, all below that id and later than
    every trade so far, are a reset: a new sequence of ids, and earlier trades do not count any more.
    """

    def __init__(self, since: int) -> None:
        self._since = since
        self._id = self._time = -1  # the highest id, and the greatest time
        self._begin = -1  # when the current sequence of ids began, if it began here
        self._run: list[Position] = []
        self._older_id = -1
        self.older_time = -1
        """The greatest time of a trade before `since`; -1 if there was none."""

    def take(self, trade_id: int, timestamp: int) -> None:
        """Look at the next trade of the pair."""
        if timestamp < self._begin:
            return  # backfilled, of an earlier sequence
        if timestamp < self._since:
            self._older_id = max(self._older_id, trade_id)
            self.older_time = max(self.older_time, timestamp)
        elif trade_id > self._id:
            self._id = trade_id
            self._time = max(self._time, timestamp)
            self._run.clear()
        else:
            self._prove(Position(trade_id, timestamp))

    def _prove(self, lower: Position) -> None:
        """Take a trade whose id is not the highest so far."""
        if lower.timestamp <= self._time:
            self._run.clear()
            return
        if self._run and lower.trade_id != self._run[-1].trade_id + 1:
            self._run.clear()
        self._run.append(lower)
        if len(self._run) == _PROOF:
            self._begin = self._run[0].timestamp
            self._id, self._time = lower.trade_id, max(place.timestamp for place in self._run)
            self._older_id = -1
            self._run.clear()

    @property
    def last(self) -> Position | None:
        """The newest trade, if there is one."""
        return Position(self._id, self._time) if self._id >= 0 else None

    @property
    def settled(self) -> bool:
        """Whether the newest trade is certain.

        An older trade with a higher id casts doubt: one of the times may be wrong, or the older trade belong to an
        earlier sequence of ids. A scan from further back decides.
        """
        return self._id >= 0 and self._older_id <= self._id
