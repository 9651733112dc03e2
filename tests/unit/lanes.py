"""An ingest with its lane, outlet and sink, for tests that look at what comes out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache

from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.copies import Copies
from loader_ws_trades.pipeline.events import Event
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.outlet import Outlet
from loader_ws_trades.pipeline.sequencer import WINDOW, Sequencer
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade


@cache
def settings_of(symbol: str) -> Settings:
    """Settings of one pair, made once: the tests make thousands of pipelines."""
    return load({"symbol": symbol}, needed=("symbol",))


class SmallSink:
    """Takes trades as long as there is room."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.trades: list[Trade] = []

    @property
    def ids(self) -> list[int]:
        """Of the trades taken, in order."""
        return [trade.trade_id for trade in self.trades]

    def put(self, trades: Sequence[Trade], _lane: Lane) -> int:
        """Take as many as there is room for."""
        taken = trades[: self.room - len(self.trades)]
        self.trades += taken
        return len(taken)


class Pipeline:
    """Everything between the frames and a sink, and what it called."""

    def __init__(
        self,
        *symbols: str,
        sink: SmallSink | None = None,
        window: int = WINDOW,
        limit: int | None = None,
        stamp_source: str | None = None,
        copies: bool = False,
        lane: type[Lane] = Lane,
        on_events: Callable[[list[Event], str], None] | None = None,
        understood: Collection[str] = (),
    ) -> None:
        self.sink = sink or SmallSink()
        self.limits = 0
        self.reads: list[float] = []
        self.rejected: list[RejectedFrame] = []
        self.understood = understood
        self.events: list[Event] = []
        self.outlet: Outlet[Lane] = Outlet(self.sink.put, limit=limit, on_limit=self._on_limit)
        self.ingest = Ingest(
            self.outlet,
            on_rejected=self._on_rejected,
            on_read=self.reads.append,
            stamp_source=stamp_source and "stream",
        )
        for symbol in symbols or ("BTCUSDT",):
            self.lane = lane(
                settings_of(symbol),
                Sequencer(window),
                self.outlet,
                on_events=on_events or (lambda events, _why: self.events.extend(events)),
                stamp_source=stamp_source,
                copies=Copies() if copies else None,
            )
            self.ingest.add(self.lane)

    def _on_rejected(self, frame: RejectedFrame, _connection: int) -> bool:
        self.rejected.append(frame)
        return frame.kind in self.understood

    def _on_limit(self) -> None:
        self.limits += 1
