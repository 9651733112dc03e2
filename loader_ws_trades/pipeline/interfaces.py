"""The interfaces between a run, its source and its sink."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from loader_ws_trades.lifecycle import Activity, Deadline, Startup
from loader_ws_trades.pipeline.sequencer import Gap, Position
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade

OnDeath = Callable[[BaseException], None]


class FrameReceiver(Protocol):
    """Where connections deliver their frames. Thread-safe."""

    def connect(self, slot: int = 0) -> int:
        """A number for a connection that was opened in a slot of the set of connections, for `take`."""

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take frames of a connection; returns whether any was a trade. May block."""

    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""


class TradeReceiver(FrameReceiver, Protocol):
    """Where a source delivers trades. Thread-safe; blocks while the sink is full."""

    gap_seen: threading.Event
    """Set when trades are missing; cleared by whoever repairs them."""

    def take_trades(self, trades: Sequence[Trade]) -> None:
        """Take trades as they come."""

    def reject(self, rejected: Iterable[RejectedFrame]) -> None:
        """Count frames that are not valid trades."""

    def resume(self, last: Position) -> None:
        """Continue after `last`, which is published; only while nothing is held back."""

    def start_after(self, trade_id: int) -> None:
        """Start after `trade_id`, if there was no trade yet."""

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; a `hint` only until `drop_hint`, unless trades confirm it."""

    def drop_hint(self) -> bool:
        """Forget a hint that no held trade confirms; returns whether there was one."""

    def gap(self) -> Gap | None:
        """The missing ids that hold trades back."""

    @property
    def has_gap(self) -> bool:
        """Whether missing ids hold trades back; does not wait."""

    @property
    def newest_time(self) -> int:
        """Time of the newest trade seen, in ms since 1970."""

    @property
    def last_time(self) -> int:
        """Time of the last trade passed on, in ms since 1970; 0 if there was none."""

    @property
    def newest_id(self) -> int:
        """The highest id known, emitted or not; -1 if there is none."""

    def is_hint(self) -> bool:
        """Whether the current gap shows only by a hint, and not by a trade."""

    def behind(self) -> int:
        """How many ids up to the newest one seen have not been emitted."""

    def is_confirmed(self) -> bool:
        """Whether all open connections confirm the current gap, by having brought a higher id."""

    @property
    def newest_streamed(self) -> int:
        """The highest id that the open connections brought last; -1 if there is none."""

    def fill(self, rows: Sequence[Trade]) -> int:
        """Take missing trades; returns how many were emitted, including held ones."""

    def skip(self, before: int, why: str) -> None:
        """Give up on the ids missing before `before`."""

    def give_up(self, why: str) -> None:
        """Give up on all missing ids, without waiting for room; for the end of a run."""


class SourceStatus(NamedTuple):
    """How a source is doing; times are monotonic."""

    state: str = "starting"
    """What it is doing, in a word."""
    total: int | None = None
    """How many trades it brings, if it has an end and knows it."""
    reconnects: int = 0
    """How many connections replaced an earlier one."""
    reconnects_by_reason: Mapping[str, int] = {}
    """How often another connection was requested, by why the one before ended."""
    connected_since: float | None = None
    disconnected_since: float | None = None
    """None while there is a connection, and for a source that has none."""
    rest_weight: int = 0
    """Request weight of the last minute, as REST reports it or as counted here."""
    activities: Sequence[Activity] = ()
    """What its threads do that has a time limit, once loading."""
    trouble: str | None = None
    """Why nothing can arrive at present."""
    unchecked: str | None = None
    """Which trades before its first one may be missing on the topic, as a sentence."""
    resumes: bool = True
    """Whether a later run fetches what this one leaves behind."""


class Source(Protocol):
    """Where trades come from, in threads of its own. Subclasses inherit the methods that do nothing here."""

    gives: str = "stream"
    """Where the trades come from that it gives, for `RECORD_HEADERS`; what fills gaps comes from REST."""

    def status(self) -> SourceStatus:
        """How it is doing; may be called in any thread."""

    def check(self) -> None:
        """Check that it can be read, before the run reports that it has started."""
        return

    def prepare(self, receiver: TradeReceiver) -> None:
        """Find the position to start from; runs in a thread of its own, which is abandoned if the run ends."""

    def start(self, receiver: TradeReceiver, on_death: OnDeath) -> None:
        """Start reading."""

    def tick(self) -> None:
        """Do what is due; called by the main thread several times a second."""
        return

    def rejected(self, frame: RejectedFrame, connection: int) -> bool:  # noqa: ARG002 - for subclasses
        """Handle a frame that is not a trade; whether it was one that the source understands."""
        return False

    def keep_only(self, connection: int) -> None:  # noqa: ARG002 - for subclasses
        """Close all other connections, without waiting: this one has proved that the trade ids were reset."""
        return

    def close(self) -> None:
        """Stop reading, without waiting; idempotent."""

    @property
    def done(self) -> bool:
        """Whether everything that was to be read has been handed over."""

    def finish(self, *, final: bool, patient: bool) -> bool:
        """End what continues after `close`; whether nothing more will come.

        Args:
            final: no later run will fetch what is missing, so it must be reported.
            patient: there is time to wait; without it, end now, whatever the threads are doing.
        """

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the threads, and release everything; whether they have ended."""


class Sink(Protocol):
    """Where trades go; `put` is called in the source's threads, everything else in the main thread."""

    @property
    def delivered(self) -> int:
        """Trades delivered."""

    @property
    def in_flight(self) -> int:
        """Trades accepted but not delivered yet."""

    @property
    def accepted(self) -> int:
        """Trades accepted."""

    @property
    def outages(self) -> int:
        """How often delivery stalled."""

    @property
    def waiting_since(self) -> float | None:
        """Since when (monotonic) nothing was delivered while trades were in flight; None if there are none."""

    def open(self, startup: Startup) -> None:
        """Wait until it can be written to."""

    def put(self, trades: Iterable[Trade]) -> int:
        """Take trades in order, without blocking; returns how many were taken."""

    def poll(self, timeout: float) -> None:
        """Serve delivery reports; raises if the run cannot continue."""

    def drain(self) -> None:
        """Deliver accepted trades without waiting to batch them with more."""

    def give_up(self, deadline: Deadline) -> list[int]:
        """Drop undelivered trades; returns their ids."""
