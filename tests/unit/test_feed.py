"""The feed: attempts, delays, rotation, outage and end, with scripted connections and a fake clock.

A scripted connection runs in the feed's own thread and takes one step when the test says so; between two steps all
threads wait, so a test is deterministic.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, cast

import pytest
from websocket import WebSocketBadStatusException, WebSocketConnectionClosedException

from loader_ws_trades.binance import feed_context, feed_thread
from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.feed import Feed
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.lifecycle import SLACK, Activity
from tests.unit.clock import FakeClock

WAIT = 10.0  # real seconds after which a test fails
TRADE, NO_TRADE = b"trade", b"other"
LOST = WebSocketConnectionClosedException("lost")


class Scripted:
    """Stands for a `Connection`: what happens on it is said by the test."""

    def __init__(
        self, url: str, on_frames: Callable[[list[bytes]], None], on_open: Callable[[], None], clock: FakeClock
    ) -> None:
        self.url = url
        self._on_frames = on_frames
        self._on_open = on_open
        self._clock = clock
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._ending: Exception | None = None
        self.begun_at = clock.now
        self.sent: list[str] = []
        self.last_received = self.delivery_time = 0.0
        self.aborted = self._closed = False

    def run(self) -> Exception | None:
        while step := self._steps.get(timeout=WAIT):
            try:
                step()
            finally:
                self._done.put(None)
        return self._ending

    def _do(self, step: Callable[[], object]) -> None:
        self._steps.put(step)
        self._done.get(timeout=WAIT)

    def open(self) -> None:
        self._do(self._on_open)

    def bring(self, *frames: bytes) -> None:
        self._do(lambda: self._on_frames(list(frames)))

    def end(self, ending: Exception | None = LOST) -> None:
        self._ending = ending
        self._steps.put(None)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._steps.put(None)

    def send(self, text: str) -> None:
        self.sent.append(text)

    def note_delivery_time(self, seconds: float) -> None:
        self.delivery_time = seconds

    def is_closed(self) -> bool:
        return self._closed

    def abort(self) -> None:
        self.aborted = True


class Scene:
    """A feed, and the connections that it makes."""

    def __init__(self, clock: FakeClock, symbols: Sequence[str] = (), **given: str) -> None:
        given = {"symbols": "*"} | given if symbols else {"symbol": "BTCUSDT"} | given
        settings = load({"max_connection_age": "1h", **given}, needed=("symbol",))
        self.clock = clock
        self.is_in_order = True
        self.carried: list[list[str]] = []  # by connection
        self.joined: list[tuple[int, list[str]]] = []
        self._counter = itertools.count(1)
        self.open_numbers: list[int] = []
        self.gone: SimpleQueue[int] = SimpleQueue()  # connections that ended
        self.taken: list[bytes] = []
        self.numbers: list[int] = []  # of the connections that brought them
        self.deaths: SimpleQueue[BaseException] = SimpleQueue()
        self.begun: list[float] = []  # when each attempt began
        self._made: SimpleQueue[Scripted] = SimpleQueue()
        self.feed = Feed(
            settings, symbols, connect=cast("Callable[..., Connection]", self._make), stopping=clock.event()
        )

    def _make(self, url: str, on_frames: Any, on_open: Any, **_options: object) -> Scripted:
        made = Scripted(url, on_frames, on_open, self.clock)
        self.begun.append(made.begun_at)
        self._made.put(made)
        return made

    def start(self) -> Scripted:
        self.feed.start(self, self.deaths.put)
        return self.next()

    def connect(self, _slot: int, symbols: Sequence[str]) -> int:
        self.carried.append(list(symbols))
        self.open_numbers.append(next(self._counter))
        return self.open_numbers[-1]

    def disconnect(self, connection: int) -> None:
        self.open_numbers.remove(connection)
        self.gone.put(connection)

    def add_streams(self, connection: int, symbols: Sequence[str]) -> None:
        self.joined.append((connection, list(symbols)))

    def in_order(self, _connection: int) -> bool:
        return self.is_in_order

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        self.numbers += [connection] * len(frames)
        if b"bad" in frames:
            raise ZeroDivisionError
        self.taken += frames
        return TRADE in frames

    def next(self) -> Scripted:
        """The connection that is made next."""
        return self._made.get(timeout=WAIT)

    def none_made(self) -> bool:
        return self._made.empty()

    def opened(self) -> Scripted:
        """The first connection, open and delivering."""
        first = self.start()
        first.open()
        first.bring(TRADE)
        return first

    def ended(self, number: int) -> bool:
        """Whether the thread ends soon."""
        task = self.feed.groups[0].threads[number].task
        return task is not None and task.join(WAIT)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.feed.tick()


@pytest.fixture
def scene(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    # Each delay is its bound.
    monkeypatch.setattr(random.Random, "uniform", lambda _self, _low, high: high)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = []

    def make(*symbols: str, **given: str) -> Scene:
        made.append(Scene(clock, symbols, **given))
        return made[-1]

    yield make
    for each in made:
        each.feed.close()
        assert each.feed.join(WAIT)


def delays(
    scene: Scene, first: Scripted, count: int, live: Callable[[Scripted], object], ending: Exception = LOST
) -> list[float]:
    """The delays behind connections that each do what `live` does, and end then."""
    found, connection = [], first
    for _ in range(count):
        live(connection)
        connection.end(ending)
        ended_at = scene.clock.now
        connection = scene.next()
        found.append(connection.begun_at - ended_at)
    return found


def refused(status: int, **headers: str) -> WebSocketBadStatusException:
    return WebSocketBadStatusException("refused", status, None, headers, None)


def test_delays_between_attempts_grow_to_the_cap(scene: Callable[..., Scene]) -> None:
    made = scene()
    assert delays(made, made.start(), 9, lambda _: None) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_short_lived_connections_that_deliver_make_delays_grow(scene: Callable[..., Scene]) -> None:
    made = scene()

    def live(connection: Scripted) -> None:
        connection.open()
        connection.bring(TRADE)
        made.wait(59.9)
        connection.bring(TRADE, TRADE)

    assert delays(made, made.start(), 7, live) == [0.5, 1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize("brings", [(), (NO_TRADE,), (TRADE,)])
def test_delay_is_reset_by_lifetime_and_not_by_what_was_delivered(
    scene: Callable[..., Scene], brings: tuple[bytes, ...]
) -> None:
    made = scene()
    lasting = iter([0.0, 0.0, 60.0, 0.0, 60.0, 61.0])

    def live(connection: Scripted) -> None:
        connection.open()
        if brings:
            connection.bring(*brings)
        made.wait(next(lasting))

    assert delays(made, made.start(), 6, live) == [0.5, 1, 0.5, 1, 0.5, 0.5]


def test_retry_after_lengthens_the_delay(scene: Callable[..., Scene]) -> None:
    made = scene()
    first = made.start()
    first.end(refused(429, **{"retry-after": "77"}))
    assert made.next().begun_at - first.begun_at == 77


def test_attempts_stay_below_the_limit_of_the_exchange(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_context, "_ATTEMPTS", (5, 300.0))
    monkeypatch.setattr(feed_thread, "_DELAY_CAP", 1.0)
    made = scene()
    connection = made.start()
    begun = [connection.begun_at]
    for _ in range(11):
        connection.end()
        connection = made.next()
        begun.append(connection.begun_at)
    assert all(later - earlier >= 300 for earlier, later in zip(begun, begun[5:], strict=False))
    assert begun[4] - begun[0] < 5, "they are not spread when there are few"


def test_outage_ends_the_run_after_its_limit(scene: Callable[..., Scene]) -> None:
    made = scene(feed_outage_limit="100", max_connection_age="100h")
    first = made.opened()
    made.wait(5000)
    began = made.clock.now
    assert made.feed.trouble() is None
    first.end()
    connection = made.next()
    assert made.feed.lost == began
    assert "lost" in str(made.feed.trouble())
    made.wait(began + 100 - made.clock.now)
    made.clock.advance(0.001)
    with pytest.raises(RunError, match=r"for 100 s .*lost, after 1 h 23 min.*BINANCE_WS_URL"):
        made.feed.tick()
    connection.open()
    assert made.feed.trouble() is None
    made.feed.tick()


def test_failed_attempt_does_not_restart_the_outage(scene: Callable[..., Scene]) -> None:
    made = scene(feed_outage_limit="100")
    began, connection = made.clock.now, made.start()
    while made.clock.now <= began + 100:
        made.feed.tick()
        connection.end()
        connection = made.next()
    with pytest.raises(RunError):
        made.feed.tick()


def test_rotation_closes_the_old_connection_once_the_new_one_delivers(scene: Callable[..., Scene]) -> None:
    made = scene()
    old = made.opened()
    made.wait(3600 * 0.9 - 1)
    assert made.none_made()
    made.wait(3600 * 0.1 + 2)
    new = made.next()
    made.wait(1)
    assert made.none_made(), "one rotation at a time"
    new.open()
    assert not old.is_closed()
    old.bring(TRADE)
    new.bring(NO_TRADE)
    assert not old.is_closed(), "it has not delivered"
    new.bring(TRADE)
    assert old.is_closed()
    assert made.feed.join(0) is False
    assert made.feed.connections == 2
    assert made.feed.reconnects["rotation"] == 1
    assert sum(made.feed.reconnects.values()) == 1
    made.wait(60)
    assert not new.is_closed()
    assert made.none_made()


def test_rotation_waits_while_a_trade_is_missing(scene: Callable[..., Scene]) -> None:
    made = scene()
    old = made.opened()
    made.feed.rotate("a test")
    new = made.next()
    new.open()
    made.is_in_order = False
    new.bring(TRADE)
    made.wait(29.9)
    assert not old.is_closed(), "the old one may have it on its way"
    old.bring(TRADE)
    made.is_in_order = True
    new.bring(TRADE)
    assert old.is_closed()


@pytest.mark.parametrize("in_order", [True, False])
def test_rotation_ends_after_a_time_without_a_trade(scene: Callable[..., Scene], in_order: bool) -> None:
    made = scene()
    old = made.opened()
    assert made.feed.rotate("a test")
    new = made.next()
    made.wait(100)
    assert not made.feed.rotate("another"), "the first one is not over"
    new.open()
    made.is_in_order = in_order
    made.wait(30)
    assert not old.is_closed(), "the time begins when it is open, and is not over yet"
    made.wait(0.1)
    assert old.is_closed()
    assert not new.is_closed()


def test_rotation_that_cannot_connect_keeps_the_old_connection(scene: Callable[..., Scene]) -> None:
    made = scene(feed_outage_limit="10")
    old = made.opened()
    made.feed.rotate("a test")
    connection = made.next()
    for _ in range(5):
        connection.end()
        connection = made.next()
        made.feed.tick()
    assert made.feed.trouble() is None
    assert not old.is_closed()
    old.bring(TRADE)
    connection.open()
    connection.bring(TRADE)
    assert old.is_closed()


def test_rotation_survives_the_end_of_the_old_connection(scene: Callable[..., Scene]) -> None:
    made = scene(feed_outage_limit="100")
    old = made.opened()
    made.feed.rotate("a test")
    new = made.next()
    old.end()
    assert made.ended(0)
    assert made.none_made()
    assert made.feed.trouble() is not None
    new.open()
    assert made.feed.trouble() is None
    assert made.feed.reconnects["rotation"] == 1
    assert sum(made.feed.reconnects.values()) == 1


def test_rotation_needs_an_open_connection(scene: Callable[..., Scene]) -> None:
    made = scene()
    first = made.start()
    made.feed.rotate("a test")
    made.wait(1)
    assert made.none_made()
    first.open()
    made.feed.rotate("a test")
    made.next()


@pytest.mark.parametrize("kept", [1, 2])
def test_keep_only_replaces_all_other_connections(scene: Callable[..., Scene], kept: int) -> None:
    made = scene()
    old = made.opened()
    made.is_in_order = False
    made.feed.rotate("a test")
    new = made.next()
    new.open()
    new.bring(TRADE)
    old.bring(TRADE)
    made.feed.keep_only(kept)
    assert (old.is_closed(), new.is_closed()) == (kept != 1, kept != 2)
    if kept == 1:
        third = made.next()
        third.open()
        third.bring(TRADE)
    assert made.numbers == [1, 2, 1, 3][: 5 - kept]
    assert made.deaths.empty()


def test_close_ends_both_connections_of_a_rotation_and_aborts_the_connecting_one(
    scene: Callable[..., Scene],
) -> None:
    made = scene()
    old = made.opened()
    made.feed.rotate("a test")
    new = made.next()
    made.feed.close()
    made.feed.close()
    assert made.feed.join(WAIT)
    assert (old.is_closed(), old.aborted) == (True, False), "what it has read is handed over"
    assert (new.is_closed(), new.aborted) == (True, True)
    assert made.deaths.empty()
    assert made.none_made()


def test_close_while_connecting_makes_no_further_attempt(scene: Callable[..., Scene]) -> None:
    made = scene()
    first = made.start()
    made.feed.close()
    assert made.feed.join(WAIT)
    assert first.is_closed()
    assert first.aborted
    assert made.none_made()
    made.feed.tick()
    made.feed.rotate("a test")
    assert made.none_made()


def test_close_during_a_delay_makes_no_further_attempt(scene: Callable[..., Scene]) -> None:
    made = scene()
    first = made.start()
    made.clock.after(0.2, made.feed.close)
    first.end()
    assert made.feed.join(WAIT)
    assert made.none_made()


def test_error_of_the_receiver_ends_the_thread_and_is_reported(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.opened().bring(b"bad")
    assert isinstance(made.deaths.get(timeout=WAIT), ZeroDivisionError)
    assert made.ended(0)
    [activity] = made.feed.activities()
    assert activity.what == "been dead"
    assert made.none_made()


def test_activities_say_what_a_thread_does_since_when_and_how_long_it_may(scene: Callable[..., Scene]) -> None:
    made = scene(feed_silence_limit="60")
    first = made.start()
    assert made.feed.activities() == [
        Activity("The thread feed-1", "been connecting", made.clock.now, 30 + 120 + SLACK)
    ]
    made.clock.advance(5)
    first.open()
    reading = Activity("The thread feed-1", "neither received nor passed on anything", made.clock.now, 60 + SLACK)
    assert made.feed.activities() == [reading]
    first.last_received = made.clock.now + 7
    assert made.feed.activities() == [reading._replace(since=first.last_received)]
    made.feed.rotate("a test")
    made.next()
    assert [activity.what for activity in made.feed.activities()] == [reading.what, "been connecting"]
    made.feed.close()
    assert made.feed.activities() == []


@pytest.mark.parametrize("status", [200, 400, 404])
def test_rejection_for_the_startup_grace_is_a_configuration_error(scene: Callable[..., Scene], status: int) -> None:
    made = scene(startup_grace="10")
    began, connection = made.clock.now, made.start()
    while made.clock.now < began + 10:
        assert made.deaths.empty(), "an exchange may be starting"
        connection.end(refused(status))
        connection = made.next()
    connection.end(refused(status))
    assert isinstance(made.deaths.get(timeout=WAIT), ConfigurationError)
    assert made.clock.now <= began + 20


def test_location_that_is_not_served_is_a_configuration_error_at_once(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.start().end(refused(451))
    assert isinstance(made.deaths.get(timeout=WAIT), ConfigurationError)


@pytest.mark.parametrize("status", [404, 451])
def test_rejection_after_a_connection_is_retried(scene: Callable[..., Scene], status: int) -> None:
    made = scene(startup_grace="1")
    connection = made.opened()
    for _ in range(8):
        connection.end(refused(status))
        connection = made.next()
    connection.open()
    assert made.deaths.empty()


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_transient_rejection_is_retried(scene: Callable[..., Scene], status: int) -> None:
    made = scene(startup_grace="1")
    assert delays(made, made.start(), 4, lambda _: None, refused(status)) == [0.5, 1, 2, 4]
    assert made.deaths.empty()


# -- announced shutdowns


def test_announced_end_rotates_the_connection_at_once(scene: Callable[..., Scene]) -> None:
    made = scene()
    old = made.opened()
    made.feed.announce_end(1)
    made.wait(0)
    new = made.next()
    new.open()
    assert not old.is_closed(), "it serves until the new one delivers"
    new.bring(TRADE)
    assert old.is_closed()
    assert made.feed.reconnects["server_shutdown"] == 1


def test_announcement_of_a_closed_connection_is_ignored(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.opened().end()
    new = made.next()
    made.feed.announce_end(1)
    new.open()
    made.feed.announce_end(1)
    made.wait(0)
    assert made.none_made()


def test_announcement_of_a_connection_taking_over_is_remembered(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.opened()
    made.feed.announce_end(1)
    made.wait(0)
    second = made.next()
    second.open()
    made.feed.announce_end(2)
    made.wait(1)
    assert made.none_made(), "one replacement at a time"
    second.bring(TRADE)
    made.wait(10)
    third = made.next()
    third.open()
    third.bring(TRADE)
    assert second.is_closed()


def test_endless_announcements_are_followed_with_growing_pauses_and_a_cut_does_not_wait(
    scene: Callable[..., Scene],
) -> None:
    made = scene(max_connection_age="100h")
    connection, replaced = made.opened(), []
    until = made.clock.now + 3600
    while made.clock.now < until:
        made.feed.announce_end(made.open_numbers[-1])
        made.wait(1)
        if not made.none_made():
            replaced.append(made.clock.now)
            connection = made.next()
            connection.open()
            connection.bring(TRADE)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(replaced)]
    assert pauses[:6] == [10, 20, 40, 80, 160, 300]
    assert set(pauses[5:]) == {300}
    connection.end()
    assert made.next().begun_at - made.clock.now <= 0.5


def test_fifth_of_the_attempts_is_reserved_for_outages(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_context, "_ATTEMPTS", (10, 300.0))
    monkeypatch.setattr(feed_thread, "_DELAY_CAP", 1.0)
    made = scene(max_connection_age="100h")
    old, began = made.opened(), made.clock.now

    def end() -> None:
        old.end()
        assert made.gone.get(timeout=WAIT)

    made.feed.rotate("a test")
    made.clock.after(100, end)
    connection = made.next()
    while made.clock.now < began + 99:
        connection.end()
        connection = made.next()
    assert len(made.begun) == 9, "8 while one was open, and the next one when none was"
    assert connection.begun_at <= began + 102


# -- two connections


def two(scene: Callable[..., Scene], **given: str) -> tuple[Scene, Scripted, Scripted]:
    made = scene(feed_connections="2", **given)
    first, second = made.start(), made.next()
    for connection in (first, second):
        connection.open()
        connection.bring(TRADE)
    return made, first, second


def test_second_connection_is_opened_after_the_first(scene: Callable[..., Scene]) -> None:
    made = scene(feed_connections="2")
    first, second = made.start(), made.next()
    assert second.begun_at - first.begun_at == pytest.approx(1.0)


def test_two_connections_use_different_urls_and_each_attempt_the_next_one(scene: Callable[..., Scene]) -> None:
    made = scene(feed_connections="2", binance_ws_url="ws://a:1/ws,ws://b:2/ws?x=1,2")
    first, second = made.start(), made.next()
    assert {first.url, second.url} == {"ws://a:1/ws/btcusdt@trade", "ws://b:2/ws/btcusdt@trade?x=1,2"}
    first.end()
    assert made.next().url == second.url


def test_end_of_one_of_two_connections_is_not_an_outage(scene: Callable[..., Scene]) -> None:
    made, first, second = two(scene, feed_outage_limit="1")
    first.end()
    again = made.next()
    made.wait(5)
    assert made.feed.trouble() is None
    second.end()
    made.next()
    assert made.feed.trouble() is not None
    again.open()
    assert made.feed.trouble() is None
    assert made.open_numbers == [3]


def test_two_connections_are_never_rotated_at_once(scene: Callable[..., Scene]) -> None:
    random.seed(1)  # the ages vary by a tenth, so that in a few of many runs two rotations are closer than this asks
    made, first, second = two(scene)
    rotated = []
    for _ in range(4 * 60):
        made.wait(60)
        if not made.none_made():
            rotated.append(made.clock.now)
            new = made.next()
            new.open()
            made.wait(1)
            assert made.none_made(), "one at a time"
            new.bring(TRADE)
    assert len(rotated) >= 6
    assert min(later - earlier for earlier, later in itertools.pairwise(rotated)) > 1000
    assert first.is_closed()
    assert second.is_closed()


def test_flapping_connection_does_not_flood_the_log(
    scene: Callable[..., Scene], logged: pytest.LogCaptureFixture
) -> None:
    made = scene()
    connection = made.start()
    for _ in range(100):
        connection.open()
        connection.end()
        connection = made.next()
    assert len(logged.messages) <= 6 * 60
    assert sum("Connected to" in message for message in logged.messages) <= 6 * 30


def test_a_connection_is_replaced_by_its_number(scene: Callable[..., Scene]) -> None:
    made, first, second = two(scene)
    assert made.feed.rotate("a test", "silent", 2)
    new = made.next()
    assert not made.feed.rotate("a test", "silent", 2), "its successor is on its way"
    assert not made.feed.rotate("a test", "silent", 9), "there is none"
    new.open()
    assert not made.feed.rotate("a test", "silent", 3), "it has not taken over yet"
    new.bring(TRADE)
    assert (first.is_closed(), second.is_closed()) == (False, True)
    assert made.feed.reconnects["silent"] == 1


def test_each_connection_learns_how_long_deliveries_take(scene: Callable[..., Scene]) -> None:
    made = scene(feed_connections="2")
    connections = [made.start(), made.next()]
    made.feed.note_delivery_time(0.02)
    assert [each.delivery_time for each in connections] == [0.04, 0.04], "each brings half of the reads"
