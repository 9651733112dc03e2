"""`backfill` from REST: what it finds of a range, what it loads, and when it believes that an id does not exist."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loader_ws_trades.binance.rest import ROWS
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade
from loader_ws_trades.run import backfill
from loader_ws_trades.run.backfill import RestProvider
from loader_ws_trades.run.bounded import TradeRange
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline, SmallSink

BEGAN = 1_700_000_000_000
HOLE = range(150, 160)


class Rest:
    """An exchange with the ids 100 to 199, one a second, with a hole."""

    weight_used = 0

    def __init__(self, *_: object, **_named: object) -> None:
        self.ids = [trade_id for trade_id in range(100, 200) if trade_id not in HOLE]
        self.period = 1000  # ms from one id to the next
        self.asked: list[int] = []
        self.script: Callable[[int], None] = lambda _: None  # called with the number of each request, from 1

    def trade(self, trade_id: int) -> Trade:
        return Trade(trade_id, "1", "1", BEGAN + self.period * trade_id, True, "POLUSDT")

    def check_symbol(self, symbol: str) -> None: ...

    def newest_trade(self, _symbol: str) -> Trade:
        return self.trade(self.ids[-1])

    def trades_from(self, _symbol: str, first_id: int) -> tuple[list[Trade], list[RejectedFrame]]:
        self.asked.append(first_id)
        self.script(len(self.asked))
        return [self.trade(trade_id) for trade_id in self.ids if trade_id >= first_id][:ROWS], []

    def first_id_at(self, _symbol: str, moment: int) -> int | None:
        return next((trade_id for trade_id in self.ids if self.trade(trade_id).timestamp >= moment), None)


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TradeRange | None]:
    monkeypatch.setattr(backfill, "Rest", Rest)
    settings = load({"symbol": "POLUSDT"}, needed=("symbol",))
    return lambda **bounds: RestProvider(settings, Bounds(**bounds)).survey()


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (100, 199, (100, 199)),
        (0, 120, (100, 120)),
        (120, 500, (120, 199)),
        (0, None, (100, 199)),
        (150, 159, (150, 159)),
        (152, 170, (152, 170)),
    ],
)
def test_a_range_of_ids_is_what_the_exchange_has_of_it(
    survey: Callable[..., TradeRange | None], first: int, last: int | None, found: tuple[int, int]
) -> None:
    stretch = survey(from_id=first, to_id=last)
    assert stretch is not None
    assert stretch[:2] == found, "ids of a hole are missing, those before the first trade are none"


@pytest.mark.parametrize(("first", "last"), [(0, 99), (10, 20), (99, 99), (200, 300), (200, None)])
def test_a_range_of_ids_outside_what_the_exchange_has_is_a_fault(
    survey: Callable[..., TradeRange | None], first: int, last: int | None
) -> None:
    with pytest.raises(ConfigurationError, match="199" if first >= 200 else "only from id 100"):
        survey(from_id=first, to_id=last)


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (0, None, (100, 199)),
        (110, 120, (110, 119)),
        (0, 100, None),
        (200, None, None),
        (150, 160, None),
    ],
)
def test_time_range_without_trades_is_empty(
    survey: Callable[..., TradeRange | None],
    logged: pytest.LogCaptureFixture,
    since: int,
    until: int | None,
    found: tuple[int, int] | None,
) -> None:
    stretch = survey(since=BEGAN + 1000 * since, until=None if until is None else BEGAN + 1000 * until)
    assert (stretch and stretch[:2]) == found
    assert ("There were no trades" in logged.text) == (found is None)


class Load:
    """A load of ranges from a scripted REST, with a fake clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, **limits: str) -> None:
        self.clock = clock
        self.began = clock.now
        self.rest = Rest()
        monkeypatch.setattr(backfill, "Rest", lambda *_, **_named: self.rest)
        self.provider = RestProvider(load({"symbol": "POLUSDT", **limits}, needed=("symbol",)), Bounds(from_id=0))
        self.stopping = self.provider._stopping = clock.event()
        self.named: list[tuple[float, str]] = []
        self.sink = SmallSink()
        pipeline = Pipeline(
            "POLUSDT",
            sink=self.sink,
            on_events=lambda events, _: self.named.extend((self.passed, str(event)) for event in events),
        )
        self.ingest, self.lane = pipeline.ingest, pipeline.lane

    @property
    def out(self) -> list[int]:
        return self.sink.ids

    @property
    def passed(self) -> float:
        return round(self.clock.now - self.began, 3)

    def run(self, *ranges: tuple[int, int]) -> None:
        self.provider.survey()
        self.rest.asked.clear()
        self.provider.load([Gap(*wanted) for wanted in ranges], self.ingest)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Load:
    return Load(monkeypatch, clock, repair_outage_limit="60", repair_deadline="30")


def test_ranges_are_loaded_page_by_page(stage: Load) -> None:
    stage.rest.ids = list(range(10_000))
    stage.run((5, 9), (1000, 3499), (9000, 9000))
    assert stage.out == [*range(5, 10), *range(1000, 3500), 9000]
    assert stage.rest.asked == [5, 1000, 2000, 3000, 9000]
    assert (stage.passed, stage.named, stage.lane.repaired) == (0.0, [], 2506)


@pytest.mark.parametrize(
    ("wanted", "holes", "seconds"),
    [
        ((100, 499), [(200, 204), (300, 300), (401, 450)], 1.0),  # of one page
        ((0, 2999), [(999, 1005), (2500, 2510)], 2.0),
        ((1000, 2999), [(1000, 2999)], 1.0),  # all of a range, as when it is run again
        ((1000, 2999), [(2900, 2999)], 1.0),
    ],
)
def test_old_holes_are_named_after_two_answers(
    stage: Load, wanted: tuple[int, int], holes: list[tuple[int, int]], seconds: float
) -> None:
    absent = {trade_id for first, last in holes for trade_id in range(first, last + 1)}
    stage.rest.ids = [trade_id for trade_id in range(5000) if trade_id not in absent]
    stage.run(wanted)
    assert stage.out == [trade_id for trade_id in range(wanted[0], wanted[1] + 1) if trade_id not in absent]
    assert [name for _, name in stage.named] == [str(Gap(*hole)) for hole in holes]
    assert stage.passed == seconds


def test_ids_that_one_answer_did_not_have_are_no_hole(stage: Load) -> None:
    whole = list(range(2000))
    stage.rest.ids = [trade_id for trade_id in whole if trade_id != 50]

    def second(request: int) -> None:
        if request == 2:
            stage.rest.ids = whole

    stage.provider.survey()
    stage.rest.script = second
    stage.run((0, 99))
    assert (stage.out, stage.named) == (list(range(100)), [])


@pytest.mark.parametrize(("after", "named"), [(9.0, []), (11.0, [(10.0, "80-99")])])
def test_missing_recent_ids_are_requested_until_they_are_old_enough(
    stage: Load, after: float, named: list[tuple[float, str]]
) -> None:
    stage.rest.ids, stage.rest.period = list(range(80)), 1
    stage.clock.after(after, lambda: stage.rest.ids.extend(range(80, 200)))
    stage.run((0, 99))
    assert stage.named == named
    assert stage.out == list(range(80 if named else 100))


def away(lasting: bool) -> Callable[[int], None]:
    def fail(_request: int) -> None:
        raise UnavailableError("REST is away", lasting=lasting)

    return fail


@pytest.mark.parametrize(("lasting", "seconds"), [(False, 60.0), (True, 30.0)])
def test_rest_that_stays_away_ends_the_load(stage: Load, lasting: bool, seconds: float) -> None:
    stage.provider.survey()
    stage.rest.script = away(lasting)
    with pytest.raises(RunError, match="REST is away; run again"):
        stage.provider.load([Gap(100, 199)], stage.ingest)
    assert stage.passed == seconds
    assert (stage.out, stage.named) == ([], []), "the next run finds them missing"


def test_load_continues_after_a_rest_outage_and_stops_without_an_error(stage: Load) -> None:
    stage.provider.survey()
    stage.rest.script = away(False)
    stage.clock.after(20.0, lambda: setattr(stage.rest, "script", lambda _: None))
    stage.provider.load([Gap(100, 140)], stage.ingest)
    assert stage.out == list(range(100, 141))
    stage.rest.script = away(False)
    stage.clock.after(20.0, stage.provider.close)
    stage.provider.load([Gap(141, 145)], stage.ingest)
    assert (stage.out[-1], stage.named) == (140, [])


def test_a_service_that_is_denied_is_a_fault_before_the_load(stage: Load) -> None:
    stage.rest.script = away(True)
    with pytest.raises(ConfigurationError, match="REST is away"):
        stage.provider.survey()
