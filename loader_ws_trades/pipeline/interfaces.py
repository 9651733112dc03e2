"""What a run, its source and its sink need of each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Many
from typing import NamedTuple, Protocol

from loader_ws_trades.lifecycle import Activity, Deadline, Startup
from loader_ws_trades.pipeline.sequencer import Gap, Position
from loader_ws_trades.pipeline.trade import Refusal, Trade

OnDeath = Callable[[BaseException], None]


class Receiver(Protocol):
    """What connections bring their frames to; all of it may be called in any thread."""

    def connect(self) -> int:
        """A number for a connection that was opened, for `take`."""

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take frames as they came over a connection; whether a trade of ours was among them. May block."""

    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""


class Intake(Receiver, Protocol):
    """Where a source brings what it has; all of it may be called in any thread, and blocks while the sink is full."""

    gap_seen: threading.Event
    """Set when something is missing; cleared by who sees to it."""

    def give(self, trades: Many[Trade]) -> None:
        """Take trades as they came."""

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        """Take note of what was no trade."""

    def resume(self, last: Position) -> None:
        """Go on behind `last`, which is out already; only while nothing is held back."""

    def begin_after(self, trade_id: int) -> None:
        """Begin behind `trade_id`, if no trade has come yet."""

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; with `hint` until `drop_hint`, unless trades show that they are."""

    def drop_hint(self) -> bool:
        """Expect nothing more for a hint, unless trades are held that show the gap; whether there was such a hint."""

    def gap(self) -> Gap | None:
        """The ids that hold back what follows."""

    @property
    def has_gap(self) -> bool:
        """Whether ids hold back what follows; never waits."""

    @property
    def newest_time(self) -> int:
        """Milliseconds since 1970, of the newest trade seen."""

    @property
    def last_time(self) -> int:
        """Milliseconds since 1970, of the last trade that was handed on; 0 if there was none."""

    @property
    def newest_id(self) -> int:
        """The highest id known, whether its trade came out or not; -1 if there is none."""

    def is_hint(self) -> bool:
        """Whether no trade shows the present gap, but only a hint."""

    def behind(self) -> int:
        """How many ids have not come out, up to the newest one seen."""

    def is_confirmed(self) -> bool:
        """Whether the present gap is one on each open connection: all of them have brought a higher id."""

    @property
    def newest_streamed(self) -> int:
        """The highest of the ids that the open connections brought last; -1 if there is none."""

    def fill(self, rows: Many[Trade]) -> int:
        """Take trades that were missing; how many trades came out, the held ones behind them among them."""

    def skip(self, before: int, why: str) -> None:
        """Give up on the ids missing before the id `before`."""

    def give_up(self, why: str) -> None:
        """Give up on all that is missing, without waiting for room; for the end of a run."""


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
    activities: Many[Activity] = ()
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

    def prepare(self, intake: Intake) -> None:
        """Find the position to start from; runs in a thread of its own, which is abandoned if the run ends."""

    def start(self, intake: Intake, on_death: OnDeath) -> None:
        """Start reading."""

    def tick(self) -> None:
        """Do what is due; called by the main thread several times a second."""
        return

    def rejected(self, frame: Refusal, connection: int) -> bool:  # noqa: ARG002 - for subclasses
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
    """Where trades go; `put` is called in the source's threads, all else in the main one."""

    @property
    def delivered(self) -> int:
        """Trades that are where they belong."""

    @property
    def in_flight(self) -> int:
        """Trades taken and not delivered yet."""

    @property
    def accepted(self) -> int:
        """Trades taken; once as many are delivered, these are."""

    @property
    def outages(self) -> int:
        """How often nothing was delivered for long though trades waited."""

    @property
    def waiting_since(self) -> float | None:
        """Since when (monotonic) nothing was delivered though trades wait; None if none wait."""

    def open(self, startup: Startup) -> None:
        """Wait until it can be written to."""

    def put(self, trades: Iterable[Trade]) -> int:
        """Take trades in order, without blocking; how many were taken."""

    def poll(self, timeout: float) -> None:
        """Note what was delivered; raises when the run cannot go on."""

    def drain(self) -> None:
        """Wait for no more company for what was taken: little or nothing comes behind it."""

    def give_up(self, deadline: Deadline) -> list[int]:
        """Let go of what is not delivered; its ids."""
