"""The live source: one symbol's trade stream, connected again whenever it ends."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial

from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.disconnects import REASONS, explain, is_location, refusal, retry_after, why_ended
from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.binance.transport import CONNECT_LIMIT
from loader_ws_trades.config.settings import Settings, named, redacted_url
from loader_ws_trades.errors import RunError
from loader_ws_trades.lifecycle import SLACK, Activity, AttemptLimit, Backoff, Deadline, Task, spawn
from loader_ws_trades.logs import Throttle
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

_ATTEMPTS = (300, 300.0)  # the exchange's limit: connection attempts, and the seconds they are counted over
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay between attempts
_LINES = (30, 600.0)  # log lines of a kind, and the seconds they are counted over: a connection may flap for days
# Seconds that a connection must last for the next delay to begin anew. Trades do not count: an exchange that cuts us
# off again and again must not see an attempt a second. Twice the cap: attempts then are as rare as at the cap.
_LASTED = 60.0
_NAME_LIMIT = 120.0  # seconds after which even the longest search for a host's name has failed
_QUIET_TAKEOVER = 30.0  # seconds after which a new connection takes over from the old one without a trade


class _Leg:
    """One thread's part in the feed: a connection, connected again until a successor takes over."""

    def __init__(self, number: int, predecessor: _Leg | None, age: float) -> None:
        self.number = number
        self.predecessor = predecessor
        self.task: Task | None = None
        self.connection: Connection | None = None
        self.serial = 0  # of the connection, for who takes the frames
        self.opened: float | None = None
        self.age = age
        self.until = math.inf
        self.does("not begun", 0.0)

    def does(self, what: str, limit: float) -> None:
        """Note what its thread does from now on, and for how many seconds that may go on."""
        self._activity = Activity(f"The thread feed-{self.number}", what, time.monotonic(), limit + SLACK)

    @property
    def activity(self) -> Activity:
        """What its thread does."""
        connection = self.connection  # before what it does: that is noted before a connection is taken away
        activity = self._activity
        return activity._replace(since=max(activity.since, connection.heard)) if connection else activity


class Feed:
    """The trade stream of `settings.symbol`.

    Raises:
        ConfigurationError: if it is to be had through a proxy that cannot be used.

    One thread holds the connection, and waits in it or for the next attempt; `close` ends both. In a rotation a second
    thread connects, and closes the first one's connection once it delivers: `tick` and `rotate`, called by the owner,
    see to that.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[..., Connection] = Connection,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._proxy = proxy_for(settings.stream_url, os.environ)
        self._stopping = stopping or threading.Event()
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        self._limit = AttemptLimit(*_ATTEMPTS, time.monotonic)
        self._told = Throttle(log, *_LINES, time.monotonic)
        self._lock = threading.Lock()  # guards `_leg`, and each leg's `connection` against `_stopping`
        self._leg: _Leg | None = None
        self._tasks: list[Task] = []
        self._down_since: float | None = None
        self._down_text = "no connection to the exchange yet"
        self._told_down = False
        self.connections = 0
        """How many were opened so far."""
        self.reconnects = dict.fromkeys(REASONS, 0)
        """How often another one was asked for, by what became of the one before, or of the attempt."""

    def start(
        self,
        take: Callable[[list[bytes], int], bool],
        in_order: Callable[[], bool],
        on_death: Callable[[BaseException], None],
        *,
        number: Callable[[], int],
    ) -> None:
        """Begin.

        Args:
            take: gets the frames of a read and their connection's number, and says whether a trade is among them.
            in_order: says whether no trade is missing before the newest one.
            on_death: gets what ended a thread.
            number: gives a connection its number.
        """
        self._number = number
        self._take = take
        self._in_order = in_order
        self._on_death = on_death
        self._down_since = time.monotonic()
        self._spawn(None)

    def close(self) -> None:
        """Stop reading, without waiting; what was read is still handed over. May be called again."""
        with self._lock:
            self._stopping.set()
            leg = self._leg
            while leg:
                if leg.connection:
                    leg.connection.close()
                    if leg.opened is None:
                        leg.connection.abort()
                leg = leg.predecessor

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for all threads to end; whether they have."""
        deadline = Deadline(timeout)
        return all(task.join(deadline.remaining) for task in self._tasks)

    def trouble(self) -> str | None:
        """Since when and why there is no connection; None while there is one."""
        return self._down_text if self._down_since is not None else None

    @property
    def opened(self) -> float | None:
        """When the present connection was opened (monotonic); None while there is none."""
        leg = self._leg
        while leg and leg.opened is None:
            leg = leg.predecessor
        return leg.opened if leg else None

    @property
    def lost(self) -> float | None:
        """Since when there is no connection (monotonic); None while there is one, or before the start."""
        return self._down_since

    def activities(self) -> list[Activity]:
        """What its threads do, while it is to read; may be asked in any thread."""
        newest = leg = self._leg
        found = []
        while leg and not self._stopping.is_set():
            if leg.task is None or not leg.task.join(0):
                found.append(leg.activity)
            elif leg is newest:
                found.append(leg.activity._replace(what="been dead", limit=0.0))
            leg = leg.predecessor
        return found

    def rotate(self, why: str, reason: str = "rotation") -> None:
        """Replace the connection by a new one, which is up and delivers before the old one is closed."""
        leg = self._leg
        if leg is None or leg.predecessor or leg.opened is None or self._stopping.is_set():
            return
        self._told.info("rotating", f"Rotating the connection: {why}", reason=reason)
        self.reconnects[reason] += 1
        self._spawn(leg)

    def tick(self) -> None:
        """Rotate when it is time to, let a successor that was given no trade take over, end what takes too long.

        Called now and again.

        Raises:
            RunError: when there was no connection for longer than the outage limit.
        """
        leg, now = self._leg, time.monotonic()
        if leg is None or self._stopping.is_set():
            return
        self._check_outage()
        if leg.predecessor is None and now > leg.until:
            self.rotate("its age")
        elif leg.predecessor and leg.opened is not None and now > leg.opened + _QUIET_TAKEOVER:
            self._take_over(leg)

    def keep_only(self, connection: int) -> None:
        """End all connections but the one with this number, without waiting; others take their place."""
        with self._lock:
            for leg in (self._leg, self._leg and self._leg.predecessor):
                if leg and leg.connection and leg.serial != connection:
                    leg.connection.close()

    def _spawn(self, predecessor: _Leg | None) -> None:
        number = predecessor.number + 1 if predecessor else 1
        # Up to a tenth sooner, so that a fleet that was started at once does not come back at once.
        leg = _Leg(number, predecessor, self._settings.max_connection_age * random.uniform(0.9, 1.0))
        with self._lock:
            self._leg = leg
        self._tasks = [task for task in self._tasks if not task.join(0)]
        leg.task = spawn(f"feed-{number}", lambda: self._run(leg), self._on_death)
        self._tasks.append(leg.task)

    def _take_over(self, leg: _Leg) -> None:
        with self._lock:
            old, leg.predecessor = leg.predecessor, None
            opened = old.opened if old else None
            if old and old.connection:
                old.connection.close()
        if old:
            lasted = f" after {format_duration(time.monotonic() - opened)}" if opened is not None else ""
            self._told.info("rotated", f"The new connection has taken over; the old one is closed{lasted}")

    def _run(self, leg: _Leg) -> None:
        while self._leg is leg and not self._stopping.is_set():
            pause = self._limit.wait_needed()
            leg.does("waited for its turn to connect", pause)
            if self._stopping.wait(pause):
                return
            self._limit.note()
            serial = self._number()
            connection = self._connect(
                self._settings.stream_url,
                partial(self._on_frames, leg, serial),
                lambda: self._on_open(leg),
                silence_limit=self._settings.feed_silence_limit,
                proxy=self._proxy,
            )
            leg.does("been connecting", CONNECT_LIMIT + _NAME_LIMIT)
            with self._lock:
                if self._stopping.is_set():
                    connection.release()
                    return
                leg.connection, leg.serial = connection, serial
            ending = connection.run()
            leg.does("been at the end of a connection", 0.0)
            with self._lock:
                leg.connection = None
            lasted = time.monotonic() - leg.opened if leg.opened is not None else None
            reason = why_ended(ending, opened=leg.opened is not None)
            leg.opened = None
            if self._stopping.is_set():
                return
            text = explain(ending) + (f", after {format_duration(lasted)}" if lasted is not None else "")
            is_down = self._note_down(text)
            if lasted is not None and lasted >= _LASTED:
                self._backoff.reset()
            if self._leg is leg:
                self.reconnects[reason] += 1
                self._await_next(leg, ending, text, is_down=is_down)
            elif is_down:
                self._told.warn("disconnected", f"No connection to the exchange: {text}; the next one is being made")

    def _on_open(self, leg: _Leg) -> None:
        leg.does("heard nothing, and handed nothing on,", self._settings.feed_silence_limit)
        now = time.monotonic()
        with self._lock:
            leg.opened, leg.until = now, now + leg.age
            down_since, self._down_since = self._down_since, None
            self._told_down = False
        down = now - down_since if self.connections and down_since is not None else 0.0
        how = f" again, after {format_duration(down)}" if down else ""
        line = f"Connected to {redacted_url(self._settings.stream_url)}{how}"
        self._told.info("connected", line, connections=self.connections + 1, down=round(down, 3))
        self.connections += 1

    def _on_frames(self, leg: _Leg, serial: int, frames: list[bytes]) -> None:
        # The old connection may have trades on their way that came before the new one's first.
        if self._take(frames, serial) and leg.predecessor and self._in_order():
            self._take_over(leg)

    def _note_down(self, reason: str) -> bool:
        """Whether there is no connection at all now; since when, and why, is kept."""
        with self._lock:
            if self.opened is not None:
                return False
            if self._down_since is None:
                self._down_since = time.monotonic()
            if not self._told_down:
                self._told_down = True
                now = datetime.now(timezone.utc).isoformat(timespec="seconds")
                self._down_text = f"no connection to the exchange since {now} ({reason})"
            return True

    def _await_next(self, leg: _Leg, ending: Exception | None, reason: str, *, is_down: bool) -> None:
        if not self.connections and (refused := refusal(ending)) and (is_location(ending) or self._grace_over()):
            raise refused
        delay = max(self._backoff.next(), retry_after(ending))
        what = (
            "No connection to the exchange" if is_down else "No second connection to the exchange, the old one goes on"
        )
        self._told.warn("disconnected", f"{what}: {reason}; next attempt in {delay:.1f} s", delay=round(delay, 3))
        leg.does("waited to connect again", delay)
        self._stopping.wait(delay)

    def _grace_over(self) -> bool:
        """Whether what may pass while an exchange starts has lasted for too long."""
        began = self._down_since
        return began is not None and time.monotonic() - began >= self._settings.startup_grace

    def _check_outage(self) -> None:
        down_since = self._down_since  # a thread of the feed may set it to None
        if down_since is not None and time.monotonic() - down_since > self._settings.feed_outage_limit:
            raise RunError(
                f"There was no connection to the exchange at {redacted_url(self._settings.stream_url)} for "
                f"{self._settings.feed_outage_limit:g} s ({self._down_text}); check "
                f"{named('binance_ws_url')} and the network"
            )
