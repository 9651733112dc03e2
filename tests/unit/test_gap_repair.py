"""Gap repair: every gap ends filled, named as a hole or named as unrepaired; the test moves the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.pipeline.events import Event, Gap, Position
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.look_back import LookBack
from loader_ws_trades.pipeline.trade import Trade
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline, SmallSink
from tests.unit.test_config import REQUIRED

NOW = 1_700_000_000_000  # ms
PAGE = 1000
GIVEN = REQUIRED | {"symbol": "POLUSDT"}
MANY = 5000  # requests, or looks at what is missing, after which a gap does not end


class Watched(Lane):
    """A lane that is not looked at without end."""

    looks = 0

    def gap(self) -> Gap | None:
        self.looks += 1
        assert self.looks < MANY, "the gap does not end"
        return super().gap()


class Stage:
    """A stream that the test speaks for, a REST that it scripts, and the repair between them."""

    def __init__(self, clock: FakeClock, **limits: str) -> None:
        self.clock = clock
        self.began = clock.now
        self.has: set[int] = set()  # ids that REST has
        self.times: dict[int, int] = {}  # ms; of ids whose trades did not happen at NOW
        self.takes = 0.0  # seconds for an answer
        self.fails: Callable[[int], UnavailableError | None] = lambda _: None  # by the number of the request, from 1
        self.awaits: Callable[[], None] = lambda: None
        self.newest: Callable[[], Trade] = lambda: self.trade(max(self.has))
        self.rows: Iterable[int] | None = None  # what it answers whatever is asked
        self.asked: list[tuple[float, int]] = []  # when, and from which id on
        self.sink = SmallSink()
        self.named: list[tuple[float, Event, str]] = []
        self.stopping = clock.event()
        pipeline = Pipeline(
            "POLUSDT",
            sink=self.sink,
            lane=Watched,
            on_events=lambda events, why: self.named.extend((self.passed, event, why) for event in events),
        )
        self.ingest, self.lane, self.outlet = pipeline.ingest, pipeline.lane, pipeline.outlet
        self.outlet.gap_seen = clock.event()
        settings = load(GIVEN | limits)
        self.repair = Repair(
            settings,
            fetch=lambda _, first: self.fetch(first),
            ingest=self.ingest,
            stopping=self.stopping,
            await_weight=lambda: self.awaits(),  # noqa: PLW0108 - the test puts another one there
            on_turn=lambda: self.look_back.turn(),  # noqa: PLW0108 - it is made below
        )
        self.look_back = LookBack(
            settings,
            self.repair,
            newest=lambda _: self.newest(),
            last_ids=dict,
            stopping=self.stopping,
        )

    @property
    def out(self) -> list[int]:
        """The ids that came out, in order."""
        return self.sink.ids

    @property
    def passed(self) -> float:
        """Seconds since the beginning."""
        return round(self.clock.now - self.began, 6)

    def trade(self, trade_id: int) -> Trade:
        return Trade(trade_id, "1", "1", self.times.get(trade_id, NOW), False, "POLUSDT")

    def frame(self, trade_id: int) -> bytes:
        return f'{{"e":"trade","s":"POLUSDT","t":{trade_id},"p":"1","q":"1","T":{NOW},"m":false}}'.encode()

    def stream(self, *ids: int) -> None:
        self.lane.take_trades([self.trade(trade_id) for trade_id in ids])

    def fetch(self, first: int) -> list[Trade]:
        self.asked.append((self.passed, first))
        assert len(self.asked) < MANY, "the gap does not end"
        self.clock.advance(self.takes)
        if error := self.fails(len(self.asked)):
            raise error
        rows = [trade_id for trade_id in sorted(self.has) if trade_id >= first] if self.rows is None else self.rows
        return [self.trade(trade_id) for trade_id in rows][:PAGE]

    def fill(self, *streamed: int) -> None:
        self.stream(*streamed)
        self.repair_all()
        assert self.lane.sequencer.in_order or self.stopping.is_set()

    def repair_all(self) -> None:
        """Repair without time for gaps to close by themselves, until nothing is missing or the run ends."""
        self.repair.note_gaps(grace=0.0)
        while self.repair.turn():
            pass

    def run_repair(self, *, resumed: Position | None) -> None:
        """Repair until the run ends, first what is missing since the position that it resumed from."""
        self.look_back.add({self.lane: resumed} if resumed else {})
        self.repair.run()

    def gaps(self) -> list[tuple[float, Event]]:
        return [(at, event) for at, event, _ in self.named]


@pytest.fixture
def stage(clock: FakeClock) -> Stage:
    return Stage(clock)


def away(**how: Any) -> UnavailableError:
    return UnavailableError("REST is away", **how)


# -- repaired


def test_missing_trades_are_fetched_and_published_before_held_ones(stage: Stage) -> None:
    stage.has = set(range(1, 2000))
    stage.fill(1, 1500, 1501)
    assert stage.out == list(range(1, 1502))
    assert stage.asked == [(0, 2), (0, 1002)]
    assert not stage.named


@pytest.mark.parametrize("rows", [range(1, 100), range(5000, 6000), range(10**9, 10**9 + 500)])
def test_rows_of_other_ids_neither_fill_a_gap_nor_reset_the_ids(stage: Stage, rows: range) -> None:
    stage.times = dict.fromkeys(rows, NOW + 60_000)
    stage.rows = rows
    stage.fill(1000, 1004)
    assert stage.out == [1000, 1004]
    assert stage.gaps() == [(60, Gap(1001, 1003))], "and no reset"


# -- a hole


EVERY_TENTH = range(10, 110, 10)
HOUR = 3600.0
HOLES = {
    # ids that REST has, ids of the stream, ages in seconds (0 unless given), and when which gap is named
    "an id that REST does not have": ({1, 2, 4, 5}, (1, 5), {}, [(60, Gap(3, 3))]),
    "nothing after the gap at REST": (set(), (1, 5, 9), {}, [(60, Gap(2, 4)), (60, Gap(6, 8))]),
    "several ids that an answer lacks": (
        set(range(1, 200)) - set(EVERY_TENTH),
        (1, 150),
        {},
        [(60, Gap(hole, hole)) for hole in EVERY_TENTH],
    ),
    "an old hole, seen by a second answer that begins at its neighbour": (
        {1, 2, 4, 5},
        (1, 2, 5),
        dict.fromkeys((1, 2, 4), 60.001),
        [(6, Gap(3, 3))],
    ),
    "an old hole of several ids": ({1, 2, 11, 12}, (1, 2, 12), dict.fromkeys((1, 2, 11), 60.001), [(6, Gap(3, 10))]),
    "an old hole within an answer": ({1, 2, 4, 5}, (1, 5), dict.fromkeys((1, 2, 4), HOUR), [(5, Gap(3, 3))]),
    "an old hole by the newest trade of the stream": (
        {1, 2, 4},
        (1, 4, 5),
        dict.fromkeys((1, 2, 4), HOUR),
        [(5, Gap(3, 3))],
    ),
    "a young left neighbour": ({1, 2, 4, 5}, (1, 5), {1: HOUR, 2: 60, 4: HOUR}, [(60, Gap(3, 3))]),
    "a young right neighbour": ({1, 2, 4, 5}, (1, 5), {1: HOUR, 2: HOUR, 4: 60}, [(60, Gap(3, 3))]),
    "an answer without the neighbours": ({1, 4, 5}, (1, 2, 5), dict.fromkeys((1, 2, 4), HOUR), [(60, Gap(3, 3))]),
}


@pytest.mark.parametrize(("has", "streamed", "ages", "gaps"), HOLES.values(), ids=HOLES)
def test_hole_is_named_at_its_deadline_or_after_two_answers_if_old(
    stage: Stage, has: set[int], streamed: tuple[int, ...], ages: dict[int, float], gaps: list[tuple[float, Gap]]
) -> None:
    stage.has = has
    age(stage, ages)
    stage.fill(*streamed)
    assert stage.gaps() == gaps
    assert stage.out == sorted(trade_id for trade_id in has | set(streamed) if trade_id <= streamed[-1])
    assert stage.asked[-1][0] == gaps[-1][0], "the last answer came at the deadline"


def age(stage: Stage, ages: Mapping[int, float]) -> None:
    """Let trades have happened so many seconds before the others."""
    stage.times |= {trade_id: NOW - round(seconds * 1000) for trade_id, seconds in ages.items()}


def test_errors_do_not_restart_the_deadline_of_a_hole(clock: FakeClock) -> None:
    stage = Stage(clock, repair_deadline="1")
    stage.has = {1, 3}
    stage.takes = 0.3
    stage.fails = lambda number: away() if number % 2 == 0 else None
    stage.fill(1, 3)
    assert stage.out == [1, 3]
    assert [event for _, event in stage.gaps()] == [Gap(2, 2)]
    assert len(stage.asked) < 10


def test_published_trades_do_not_restart_the_deadline_of_a_hole(stage: Stage) -> None:
    stage.has = {1, 3, 4, 5, 7}
    stage.clock.after(30, lambda: stage.has.add(2))
    stage.fill(1, 7)
    assert stage.out == [1, 2, 3, 4, 5, 7]
    assert stage.gaps() == [(60, Gap(6, 6))], "the first answer lacked it too"


def test_id_that_goes_missing_later_has_its_own_deadline(stage: Stage) -> None:
    stage.has = {1, 3, 4}
    stage.clock.after(20.5, lambda: stage.stream(6))
    stage.clock.after(20.5, lambda: stage.has.add(6))
    stage.fill(1, 4)
    assert stage.gaps() == [(60, Gap(2, 2)), (81, Gap(5, 5))]


def test_ids_added_to_a_gap_have_the_deadline_of_the_answer_that_first_lacked_them(stage: Stage) -> None:
    stage.stream(1, 60_000)  # further ahead than what is held
    stage.clock.after(20.5, lambda: stage.stream(60_009))
    stage.repair_all()
    assert stage.gaps() == [(60, Gap(2, 60_000)), (81, Gap(60_001, 60_009))]


def test_id_that_newer_answers_do_not_cover_is_not_given_up(stage: Stage) -> None:
    stage.has = {1, 3}
    stage.fails = lambda number: away(retry_after=100) if number == 2 else None
    stage.clock.after(90, lambda: stage.has.add(2))
    stage.fill(1, 3)
    assert (stage.out, stage.named) == ([1, 2, 3], [])


def test_ids_after_a_reset_have_deadlines_of_their_own(stage: Stage) -> None:
    stage.has = {1001, 1003}
    stage.fill(1001, 1003)
    stage.times = {1: NOW + 10**7, 2: NOW + 10**7, 3: NOW + 10**7, 5: NOW + 10**7}
    stage.has = {1, 2, 3, 5}
    stage.stream(1, 2, 3)
    stage.named.clear()
    stage.began = stage.clock.now
    stage.fill(5)
    assert stage.gaps() == [(60, Gap(4, 4))]


@pytest.mark.parametrize("gone", [2, 4])
def test_neighbour_that_a_later_answer_lacks_does_not_stop_repair(stage: Stage, gone: int) -> None:
    stage.has = {1, 2, 4, 5, 6}
    age(stage, dict.fromkeys((1, 2, 4, 5), HOUR))
    stage.clock.after(3, lambda: stage.has.discard(gone))
    stage.fill(1, 6)
    assert stage.out == [1, 2, 4, 5, 6]
    assert [event for _, event in stage.gaps()] == [Gap(3, 3)]


# -- unrepaired


def test_gap_without_an_answer_is_unrepaired_exactly_at_the_outage_limit(stage: Stage) -> None:
    stage.fails = lambda _: away(retry_after=200)
    stage.fill(1, 3, 5)
    assert [at for at, _ in stage.asked] == [0, 200, 300]
    assert stage.named == [(300, Gap(2, 2), "unrepaired"), (300, Gap(4, 4), "unrepaired")]
    assert stage.out == [1, 3, 5]


def test_location_that_is_not_served_has_the_deadline_of_a_hole(stage: Stage) -> None:
    stage.fails = lambda _: away(lasting=True)
    stage.fill(1, 3)
    assert stage.gaps() == [(60, Gap(2, 2))]


def test_pause_longer_than_the_outage_limit_does_not_hold_the_stream(clock: FakeClock) -> None:
    stage = Stage(clock, repair_outage_limit="5")
    stage.fails = lambda _: away(retry_after=120)

    def paused() -> None:
        if stage.asked:
            raise away(retry_after=120 - stage.passed)

    stage.awaits = paused
    stage.fill(1, 3)
    assert stage.gaps() == [(5, Gap(2, 2))]
    assert len(stage.asked) == 1


def test_any_answer_restarts_the_outage_limit(stage: Stage) -> None:
    stage.has = {1, 3}
    stage.fails = lambda number: None if number == 3 else away(retry_after=150)
    stage.clock.after(320, lambda: stage.has.add(2))
    stage.clock.after(320, lambda: setattr(stage, "fails", lambda _: None))
    stage.fill(1, 3)
    assert [at for at, _ in stage.asked] == [0, 150, 300, 301, 451]
    assert (stage.out, stage.named) == ([1, 2, 3], [])


def test_outage_limit_is_shared_by_all_gaps(stage: Stage) -> None:
    stage.fails = lambda _: away(retry_after=300)
    stage.fill(1, 3)
    stage.clock.advance(100)
    stage.fill(5)
    assert stage.gaps() == [(300, Gap(2, 2)), (400, Gap(4, 4))], "the second one waited for nothing"


@pytest.mark.parametrize(("quiet", "waits"), [(300, 0), (301, 300)])
def test_outage_long_ago_does_not_count(stage: Stage, quiet: float, waits: float) -> None:
    stage.fails = lambda _: away(retry_after=300)
    stage.fill(1, 3)
    stage.clock.advance(quiet)
    stage.fill(5)
    assert stage.gaps() == [(300, Gap(2, 2)), (300 + quiet + waits, Gap(4, 4))]


def test_waiting_for_request_weight_stops_the_outage_limit(stage: Stage) -> None:
    stage.awaits = lambda: stage.clock.advance(60)
    stage.fails = lambda _: away(retry_after=100)
    stage.fill(1, 3)
    assert [at for at, _ in stage.asked] == [60, 220, 380, 540]
    assert stage.gaps() == [(540, Gap(2, 2))]


# -- limits and ends


@pytest.mark.parametrize("missing", [100, 101])
def test_gap_beyond_resume_limit_is_named_and_not_requested(clock: FakeClock, missing: int) -> None:
    stage = Stage(clock, resume_limit="100")
    stage.has = set(range(1, 1000))
    stage.fill(1, missing + 2)
    if missing == 100:
        assert (len(stage.asked), stage.named) == (1, [])
    else:
        assert (stage.asked, stage.gaps()) == ([], [(0, Gap(2, 102))])
    assert stage.out[-1] == missing + 2


def test_end_of_the_run_ends_a_wait_and_names_nothing(stage: Stage, logged: pytest.LogCaptureFixture) -> None:
    stage.has = {1, 3}
    stage.clock.after(7.5, stage.stopping.set)
    stage.fill(1, 3)
    assert (stage.passed, stage.named) == (7.5, [])
    assert not any("retrying in" in line for line in logged.messages)


def test_request_aborted_by_the_end_of_the_run_is_not_an_error(stage: Stage, logged: pytest.LogCaptureFixture) -> None:
    def end(_: int) -> UnavailableError:
        stage.stopping.set()
        return UnavailableError("the run is ending")

    stage.fails = end
    stage.fill(1, 3)
    assert (len(stage.asked), stage.named) == (1, [])
    assert not any("ending" in line for line in logged.messages)


def test_trades_since_the_checkpoint_are_requested_until_rest_answers(stage: Stage) -> None:
    stage.has = set(range(1, 101))
    tries: list[float] = []

    def newest() -> Trade:
        tries.append(stage.passed)
        if len(tries) < 3:
            raise away(retry_after=40)
        return stage.trade(100)

    stage.newest = newest
    stage.stream(1)
    stage.clock.after(150, stage.stopping.set)
    stage.run_repair(resumed=Position(1, NOW))
    assert stage.out == list(range(1, 101))
    assert tries == [0, 42, 84], "every 40 s, at the next look"


@pytest.mark.parametrize(
    ("limits", "turns"),
    [({}, 4), ({"stream_check_interval": "5"}, 10), ({"symbol": "", "symbols": "POLUSDT,BTCUSDT"}, 10)],
    ids=["one pair", "one pair that is checked often", "several pairs"],
)
def test_without_a_gap_one_pair_is_looked_at_every_three_seconds(
    clock: FakeClock, limits: dict[str, str], turns: int
) -> None:
    stage = Stage(clock, **limits)
    taken = list[float]()
    stage.look_back.turn = lambda: taken.append(stage.passed)  # type: ignore[method-assign]
    clock.after(9.5, stage.stopping.set)
    stage.run_repair(resumed=None)
    assert len(taken) == turns


@pytest.mark.parametrize("newest", [101, 102, 10**12])
def test_newest_trade_beyond_resume_limit_gives_nothing_up(clock: FakeClock, newest: int) -> None:
    stage = Stage(clock, resume_limit="100")
    stage.has = set(range(1, 102)) if newest == 101 else {1, 2, 3}
    stage.newest = lambda: stage.trade(newest)
    stage.stream(1)
    stage.clock.after(10, lambda: stage.stream(2, 3))
    stage.clock.after(20, stage.stopping.set)
    stage.run_repair(resumed=Position(1, NOW))
    assert stage.out == sorted(stage.has)
    assert stage.named == []


def test_unconfirmed_newest_trade_gives_nothing_up(stage: Stage) -> None:
    stage.has = {1}
    stage.newest = lambda: stage.trade(50)
    stage.stream(1)
    stage.clock.after(100, lambda: stage.stream(*range(2, 61)))
    stage.clock.after(110, stage.stopping.set)
    stage.run_repair(resumed=Position(1, NOW))
    assert stage.out == list(range(1, 61))
    assert stage.named == []


def test_unconfirmed_newest_trade_starts_no_deadline_for_later_gaps(stage: Stage) -> None:
    stage.has = {1}
    stage.newest = lambda: stage.trade(50)
    stage.stream(1)
    stage.clock.after(100, lambda: stage.stream(51))
    stage.clock.after(100, stage.outlet.gap_seen.set)
    stage.clock.after(200, stage.stopping.set)
    stage.run_repair(resumed=Position(1, NOW))
    [(at, gap)] = stage.gaps()
    assert gap == Gap(2, 50)
    assert 160 <= at <= 162


def test_newest_trade_is_given_up_where_rest_returns_trades_around_the_gap(stage: Stage) -> None:
    stage.has = {1, 3}
    stage.newest = lambda: stage.trade(3)
    stage.stream(1)
    stage.clock.after(100, stage.stopping.set)
    stage.run_repair(resumed=Position(1, NOW))
    assert stage.out == [1, 3]
    assert [gap for _, gap in stage.gaps()] == [Gap(2, 2)]


def test_what_is_expected_for_certain_is_named_if_rest_does_not_have_it(stage: Stage) -> None:
    stage.has = {1, 2}
    stage.stream(1)
    stage.lane.expect(4)
    stage.repair_all()
    assert stage.out == [1, 2]
    assert [gap for _, gap in stage.gaps()] == [Gap(3, 4)]


@pytest.mark.parametrize("resuming", [True, False])
def test_location_that_is_not_served_is_asked_once_for_trades_since_the_checkpoint(
    stage: Stage, resuming: bool
) -> None:
    tries: list[float] = []

    def newest() -> Trade:
        tries.append(stage.passed)
        raise away(lasting=True)

    stage.newest = newest
    stage.clock.after(150, stage.stopping.set)
    stage.run_repair(resumed=Position(1, NOW) if resuming else None)
    assert len(tries) == resuming


# -- several connections


@pytest.mark.parametrize(("brings", "after", "asked"), [((2, 3), 0.3, False), ((3,), 0.3, True), ((), 0, True)])
def test_gap_counts_once_every_open_connection_has_delivered_a_higher_id(
    stage: Stage, brings: tuple[int, ...], after: float, asked: bool
) -> None:
    stage.has = {1, 2, 3}
    first, second = stage.ingest.connect(), stage.ingest.connect()
    for connection, ids in ((first, (1, 3)), (second, (1,))):
        stage.ingest.take([stage.frame(number) for number in ids], connection)
    if brings:
        stage.clock.after(after, lambda: stage.ingest.take([stage.frame(number) for number in brings], second))
    stage.clock.after(5, stage.stopping.set)
    stage.run_repair(resumed=None)
    assert stage.out == [1, 2, 3]
    assert [first for _, first in stage.asked] == [2] * asked
    if asked:
        assert 0.25 <= stage.asked[0][0] <= 0.4 if brings else 1.2 <= stage.asked[0][0] <= 1.5


def test_closed_connection_does_not_delay_a_gap(stage: Stage) -> None:
    stage.has = {1, 2, 3}
    first, second = stage.ingest.connect(), stage.ingest.connect()
    stage.ingest.take([stage.frame(1), stage.frame(3)], first)
    stage.ingest.disconnect(second)
    stage.clock.after(5, stage.stopping.set)
    stage.run_repair(resumed=None)
    assert stage.asked == [(0.25, 2)]


# -- what it tells


def two_connections(stage: Stage, last: int, lost: set[int], late: float, second_loses: frozenset[int]) -> None:
    """One connection prompt and lossy, the other late: trades 1 to `last`, one every 10 ms; then the run ends."""
    numbers = stage.ingest.connect(), stage.ingest.connect()
    stage.has = set(range(1, last + 1))
    for trade_id in range(1, last + 1):
        for number, delay, misses in zip(numbers, (0.0, late), (lost, second_loses), strict=True):
            if trade_id not in misses:
                frame = [stage.frame(trade_id)]
                stage.clock.after(trade_id / 100 + delay, partial(stage.ingest.take, frame, number))
    stage.clock.after(last / 100 + 2, stage.stopping.set)


@pytest.mark.parametrize(
    ("late", "second_loses", "asked"),
    [
        pytest.param(0.3, frozenset(), [], id="the other brings them"),
        pytest.param(0.3, frozenset({110}), [110], id="both lose one"),
        pytest.param(30.0, frozenset(), [20], id="the other is too late: a gap waits for it for a second"),
    ],
)
def test_gaps_that_overlap_are_left_to_the_other_connection(
    stage: Stage, late: float, second_loses: frozenset[int], asked: list[int]
) -> None:
    # A gap every 200 ms: before one is closed, the next one is open.
    lost = {trade_id + more for trade_id in range(20, 400, 20) for more in (0, 1)} | second_loses
    two_connections(stage, 500, lost, late, second_loses)
    stage.run_repair(resumed=None)
    assert stage.out == list(range(1, 501))
    assert [first for _, first in stage.asked][: len(asked) or None] == asked
    if late > 1:
        assert stage.asked[0][0] == pytest.approx(0.22 + 0.25 + 1.0, abs=0.1)


def test_unrepaired_gaps_do_not_flood_the_log(stage: Stage, logged: pytest.LogCaptureFixture) -> None:
    stage.fails = lambda number: away(retry_after=300 if number == 1 else 0)
    stage.stream(1)
    for trade_id in range(3, 203, 2):
        stage.fill(trade_id)
    for kind in ("are left unrepaired", "Repairing a gap", "Gap closed"):
        assert sum(kind in line for line in logged.messages) == 30, kind
