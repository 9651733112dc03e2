"""One pair: the order of its trades, its counters, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.connections import Connections
from loader_ws_trades.pipeline.copies import Copies
from loader_ws_trades.pipeline.events import Event, Gap, Position, Reset, Standing
from loader_ws_trades.pipeline.outlet import Outlet
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.stamps import stamped
from loader_ws_trades.pipeline.trade import Trade, record_encoder


class Lane:
    """The only owner of a `Sequencer`. Thread-safe, under the outlet's lock.

    Invariants: trades reach the sink in the order in which the sequencer emitted them. The lock is not held while
    waiting, nor while calling `on_events`, which is called in the thread that brought the trades.

    Args:
        settings: those of the pair.
        sequencer: puts its trades in order.
        outlet: passes them on.
        on_events: gets ids given up, late trades and resets, with the reason.
        stamp_source: where the trades come from that are given, if they are to be stamped with it.
        copies: counts what each of several connections brought.
    """

    def __init__(
        self,
        settings: Settings,
        sequencer: Sequencer,
        outlet: Outlet[Lane],
        *,
        on_events: Callable[[list[Event], str], None],
        stamp_source: str | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.settings = settings
        self.symbol = settings.symbol
        self.of = f" of {self.symbol}" if settings.many else ""
        """For log lines, which say whose ids they name if the process loads several pairs."""
        self.sequencer = sequencer
        """For its counters and times, which any thread may read."""
        self.encode = record_encoder(self.symbol)
        """Encodes one of its trades."""
        self.accepted = self.delivered = 0
        """Its trades that the sink has taken, and of these the delivered ones; kept by the sink."""
        self._outlet = outlet
        self._on_events = on_events
        self._stamp_source = stamp_source
        self.connections = Connections(copies)
        """Those that carry the pair; only to be used under the lock."""
        self.received = 0
        self.repaired = 0
        self.missing = 0
        self.ended = False
        """Whether it takes no more trades although the run continues; set under the lock."""
        self.trouble: str | None = None
        """Why nothing of this pair can arrive from the stream at present."""
        self.unchecked: str | None = None
        """Which trades before its first one may be missing on the topic, as a sentence."""

    @property
    def full(self) -> bool:
        """Whether trades wait for room in the sink."""
        return self._outlet.full

    @property
    def _takes(self) -> bool:
        return self._outlet.takes and not self.ended

    def push(self, trades: Sequence[Trade], connection: int) -> list[Event]:
        """Take trades of a connection; returns what `report` must get afterwards. The lock is held."""
        connections, sequencer, outlet = self.connections, self.sequencer, self._outlet
        self.received += len(trades)
        repeats, sequencer.left = sequencer.duplicates, outlet.left
        ready, events = sequencer.push(trades, connection)
        if ready is trades and not outlet.behind:  # without events, and with no order to note
            outlet.left = sequencer.left
            outlet.pass_on(ready, self)
        else:
            if _has_reset(events):
                connections.note_reset(connection)
            self._pass_on(ready, events)
        connections.newest[connection] = trades[-1].trade_id
        if connections.copies:
            new = len(trades) - (sequencer.duplicates - repeats)
            connections.copies.note(connections.slots.get(connection, 0), trades, new, time.monotonic())
        return events

    def report(self, events: list[Event], why: str) -> None:
        """Report what happened under the lock, which is not held any more."""
        if events:
            self._on_events(events, "before the reset of trade ids" if _has_reset(events) else why)

    def take_trades(self, trades: Sequence[Trade]) -> None:
        """Take trades as they come. Blocks while the sink is full."""
        if self._stamp_source:
            trades = stamped(trades, self._stamp_source)
        with self._outlet.lock:
            if not self._takes:
                return
            events = self.push(trades, 0)
        self._finish(events, "the source does not have them")

    def fill(self, rows: Sequence[Trade]) -> int:
        """Take trades from REST, ascending; returns how many were emitted, with held ones. May block on the sink."""
        if self._stamp_source:
            rows = stamped(rows, "rest")
        sequencer = self.sequencer
        with self._outlet.lock:
            if not self._takes:
                return 0
            held, sequencer.left = sequencer.held, self._outlet.left
            ready, events = sequencer.fill(rows)
            self.repaired += len(ready) + sequencer.held - held  # without those emitted that were held before
            self._pass_on(ready, events)
        self._finish(events, "REST does not have them")
        return len(ready)

    def skip(self, before: int, why: str) -> None:
        """Give up on the ids missing before `before`. Blocks while the sink is full."""
        with self._outlet.lock:
            if not self._takes:
                return
            events = self._skip(before)
        self._finish(events, why)

    def _skip(self, before: int) -> list[Event]:
        self.sequencer.left = self._outlet.left
        ready, events = self.sequencer.skip(before)
        self._pass_on(ready, events)
        return events

    def resume(self, last: Position) -> None:
        """Continue after `last`, which is published; only while nothing is held back."""
        with self._outlet.lock:
            self.sequencer.resume(last)

    def start_after(self, trade_id: int) -> None:
        """Start after `trade_id`, if there was no trade yet."""
        with self._outlet.lock:
            self.sequencer.start_after(trade_id)

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; a `hint` only until `drop_hint`, unless trades confirm it."""
        with self._outlet.lock:
            if self._takes:
                self.sequencer.expect(newest, hint=hint)
                self._note_order()

    def drop_hint(self) -> bool:
        """Forget a hint that no held trade confirms; returns whether there was one."""
        with self._outlet.lock:
            dropped = self.sequencer.drop_hint()
            self._note_order()
            return dropped

    def gap(self) -> Gap | None:
        """The missing ids that hold trades back; None if there are none, or no more trades are taken."""
        with self._outlet.lock:
            return self.sequencer.gap() if self._takes else None

    def standing(self) -> Standing:
        """How far its trades have come."""
        with self._outlet.lock:
            sequencer, connections = self.sequencer, self.connections
            gap, streamed = sequencer.gap(), dict(connections.newest)
            confirmed = gap is None or connections.confirm(gap.first)
            return Standing(sequencer.newest_id, streamed, sequencer.behind, sequencer.is_hint, confirmed)

    def _pass_on(self, ready: Sequence[Trade], events: list[Event]) -> None:
        self._outlet.left = self.sequencer.left
        self._outlet.pass_on(ready, self)
        if events:
            self._count_missing(events)
        self._note_order()

    def _count_missing(self, events: list[Event]) -> None:
        self.missing += sum(len(event) for event in events if isinstance(event, Gap))

    def _note_order(self) -> None:
        """Keep the outlet's lanes with gaps up to date. The lock is held."""
        outlet = self._outlet
        if not self.sequencer.in_order:
            outlet.behind[self] = None
            outlet.gap_seen.set()
        else:
            outlet.behind.pop(self, None)

    def _finish(self, events: list[Event], why: str) -> None:
        self.report(events, why)
        self._outlet.settle()

    # For the end of a run or of the pair: these do not wait for room.

    def give_up(self, why: str) -> None:
        """Give up on all missing ids."""
        events: list[Event] = []
        with self._outlet.lock_or_time():
            while self._outlet.left != 0 and (gap := self.sequencer.gap()) is not None:
                events += self._skip(gap.last + 1)
        self.report(events, why)

    @property
    def all_delivered(self) -> bool:
        """Whether all its trades that were passed on are delivered; without the lock, for the main thread."""
        return self.accepted == self.delivered and not self._outlet.holds(self)

    def end(self, what: str = "the run") -> None:
        """Give up on the trades that waited for the proof of a reset of trade ids when `what` ended."""
        with self._outlet.lock_or_time():
            undecided = self.sequencer.end()
            self._count_missing(undecided)
        self.report(undecided, f"{what} ended before a reset of trade ids was proved")


def _has_reset(events: list[Event]) -> bool:
    return any(isinstance(event, Reset) for event in events)
