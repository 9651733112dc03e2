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

    def expect(self, newest: int) -> None:
        """Treat the ids up to `newest` as missing: somebody says that there are trades up to it."""

    def stop_expecting(self) -> bool:
        """Forget an id that was only announced, unless trades are held that show the gap; whether there was one."""

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

    def is_announced(self) -> bool:
        """Whether no trade shows the present gap, but only an id that was announced."""

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


class Link(NamedTuple):
    """A source's connection; times are monotonic."""

    opened: float | None = None
    """When the present one was opened."""
    lost: float | None = None
    """Since when there has been none; None while there is one, or where there is to be none."""
    reconnects: Mapping[str, int] = {}
    """How often another one was asked for, by the reason."""


class Source(Protocol):
    """Where trades come from, in threads of its own."""

    total: int | None
    """How many trades it brings, if it has an end and knows."""

    @property
    def state(self) -> str:
        """What it does at present, in a word."""

    @property
    def reconnects(self) -> int:
        """How often it has connected again."""

    @property
    def resumes(self) -> bool:
        """Whether a later run fetches what this one leaves behind."""

    @property
    def link(self) -> Link:
        """Its connection, if it holds one."""

    @property
    def rest_weight(self) -> int:
        """Request weight that REST has counted for us, or we for ourselves, in the last minute."""

    def activities(self) -> list[Activity]:
        """What its threads do that must not stand still, while it is to read; may be asked in any thread."""

    def check(self) -> None:
        """See whether it can be read from; before the run says that it has started."""

    def prepare(self, intake: Intake) -> None:
        """Find out where to begin; called in a thread of its own, and left alone there if the run is to end."""

    def start(self, intake: Intake, on_death: OnDeath) -> None:
        """Begin."""

    def tick(self) -> None:
        """Do what the time has come for; called by the main thread now and again."""

    def refused(self, refusal: Refusal, connection: int) -> bool:
        """Note a frame that was no trade; whether it is one that the source was ready for."""

    def keep_only(self, connection: int) -> None:
        """End all other connections, without waiting: this one has shown that the trade ids began anew."""

    def close(self) -> None:
        """Stop reading, without waiting; may be called again."""

    @property
    def done(self) -> bool:
        """Whether all that was to be read has been brought."""

    def finish(self, *, final: bool, patient: bool) -> bool:
        """End what still goes on after `close`; whether nothing more is to be expected.

        Args:
            final: whether no later run will bring what is missing, so that it must be named.
            patient: whether there is time to wait; without it, it ends now, whatever its threads do.
        """

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end of reading, and let go; whether it has come."""

    def trouble(self) -> str | None:
        """Why nothing can come at present, if so."""

    @property
    def unchecked(self) -> str | None:
        """Which trades may be missing before those that it brings, in a sentence, if any."""


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
