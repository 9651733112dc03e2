"""The interfaces between a run, its source and its sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from loader_ws_trades.errors import LoaderError
from loader_ws_trades.lifecycle import Activity, Deadline, Startup
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade

OnDeath = Callable[[BaseException], None]
Undelivered = tuple[str, int]
"""The symbol and the id of a trade."""


class LaneKeeper(Protocol):
    """Has the pairs of a run that loads several. A source calls it in its own threads."""

    def add(self, symbols: Sequence[str]) -> list[Lane]:
        """Load these pairs too; the lanes of those whose topic accepts them. The others end with an error of their own.

        May wait for the brokers.

        Raises:
            RunError: if these do not answer.
        """

    def end(self, lane: Lane, status: str, message: str) -> None:
        """Take no more trades of a pair, and name what it lacks. Its last event follows once its tail is delivered."""


class FrameReceiver(Protocol):
    """Where connections deliver their frames. Thread-safe."""

    def connect(self, slot: int, symbols: Sequence[str]) -> int:
        """A number, for `take`, for a connection opened in a slot of a set of connections; it carries these pairs."""

    def add_streams(self, connection: int, symbols: Sequence[str]) -> None:
        """Note that an open connection carries these pairs too, from now on."""

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take frames of a connection; returns whether any was a trade. May block."""

    def in_order(self, connection: int) -> bool:
        """Whether nothing is missing before the newest trade seen of any pair of a connection."""


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
    resumes: bool = True
    """Whether a later run fetches what this one leaves behind."""


class Source(Protocol):
    """Where trades come from, in threads of its own. Subclasses inherit the methods that do nothing here."""

    origin: str = "stream"
    """The `source` of its trades for `RECORD_HEADERS`; what fills gaps comes from REST."""
    ends: bool = False
    """Whether it ends by itself, so that someone waits for that."""

    def status(self) -> SourceStatus:
        """How it is doing; may be called in any thread."""

    def check(self) -> None:
        """Check that it can be read, before the run reports that it has started."""
        return

    def prepare(self, receiver: Ingest, lanes: LaneKeeper) -> None:
        """Find the position to start from; runs in a thread of its own, which is abandoned if the run ends."""

    def start(self, receiver: Ingest, on_death: OnDeath) -> None:
        """Start reading."""

    def tick(self, delivery_time: float) -> None:  # noqa: ARG002 - for subclasses
        """Do what is due; called by the main thread every two seconds or more often.

        Args:
            delivery_time: seconds that the sink takes to deliver a trade.
        """
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
    def served_late(self) -> int:
        """How many of the delivered trades may have been so for a while when that was noticed: up to two turns."""

    @property
    def delivery_time(self) -> float:
        """Seconds that an acknowledgement takes, lately, without the time for which a trade is held on purpose."""

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

    def put(self, trades: Sequence[Trade], lane: Lane) -> int:
        """Take trades of a pair in order, without blocking; returns how many were taken."""

    def poll(self, timeout: float) -> None:
        """Serve delivery reports; raises if the run cannot continue."""

    def wake(self) -> None:
        """End the wait of `poll`; safe in any thread and in a signal handler."""

    def drain(self) -> None:
        """Deliver accepted trades without waiting to batch them with more."""

    def give_up(self, deadline: Deadline) -> list[Undelivered]:
        """Drop undelivered trades; returns which they were."""

    def admit(self, lanes: Sequence[Lane], startup: Startup) -> dict[Lane, LoaderError]:
        """Check that the trades of these pairs can be written, wherever each goes; why not, where they cannot."""
