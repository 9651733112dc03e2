"""What a bounded run finds before it loads: nothing of the pair is a fault, nothing in a time is none."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.trade import Refusal, Trade
from loader_ws_trades.run import backfill
from loader_ws_trades.run.backfill import FromRest
from loader_ws_trades.run.bounded import Stretch

BEGAN = 1_700_000_000_000
HOLE = range(150, 160)


class Rest:
    """An exchange with the ids 100 to 199, one a second, with a hole."""

    weight_used = 0

    def __init__(self, *_: object, **_named: object) -> None:
        self.trades = [Trade(t, "1", "1", BEGAN + 1000 * t, True, "POLUSDT") for t in range(100, 200) if t not in HOLE]

    def check_symbol(self, symbol: str) -> None: ...

    def newest_id(self, _symbol: str) -> int:
        return 199

    def trades_from(self, _symbol: str, first_id: int) -> tuple[list[Trade], list[Refusal]]:
        return [trade for trade in self.trades if trade.trade_id >= first_id], []

    def first_id_at(self, _symbol: str, moment: int) -> int | None:
        return next((trade.trade_id for trade in self.trades if trade.timestamp >= moment), None)


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stretch | None]:
    monkeypatch.setattr(backfill, "Rest", Rest)
    settings = load({"symbol": "POLUSDT"}, needed=("symbol",))
    return lambda **bounds: FromRest(settings, Bounds(**bounds)).survey()


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (100, 199, (100, 199)),
        (0, 120, (100, 120)),
        (120, None, (120, 199)),
        (120, 500, (120, 199)),
        (0, None, (100, 199)),
        (150, 159, (150, 159)),
        (152, 170, (152, 170)),
        (199, 199, (199, 199)),
    ],
)
def test_a_range_of_ids_is_what_the_exchange_has_of_it(
    survey: Callable[..., Stretch | None], first: int, last: int | None, found: tuple[int, int]
) -> None:
    stretch = survey(from_id=first, to_id=last)
    assert stretch is not None
    assert stretch[:2] == found, "ids of a hole are missing, those before the first trade are none"


@pytest.mark.parametrize(("first", "last"), [(0, 99), (10, 20), (99, 99), (200, 300), (200, None)])
def test_a_range_of_ids_outside_what_the_exchange_has_is_a_fault(
    survey: Callable[..., Stretch | None], first: int, last: int | None
) -> None:
    with pytest.raises(ConfigurationError, match="199" if first >= 200 else "from the id 100 on"):
        survey(from_id=first, to_id=last)


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (0, None, (100, 199)),
        (110, 120, (110, 119)),
        (0, 100, None),
        (200, None, None),
        (150, 160, None),
        (300, 400, None),
    ],
)
def test_a_time_in_which_nothing_was_printed_is_none(
    survey: Callable[..., Stretch | None],
    caplog: pytest.LogCaptureFixture,
    since: int,
    until: int | None,
    found: tuple[int, int] | None,
) -> None:
    with caplog.at_level(logging.INFO, "loader_ws_trades"):
        stretch = survey(since=BEGAN + 1000 * since, until=None if until is None else BEGAN + 1000 * until)
    assert (stretch and stretch[:2]) == found
    assert ("printed in that time" in caplog.text) == (found is None)
