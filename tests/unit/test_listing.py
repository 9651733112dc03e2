"""Look-ups of pairs: what REST is asked, what it costs, and what changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from loader_ws_trades.binance import rest, rest_client
from loader_ws_trades.binance.http_client import Response
from loader_ws_trades.binance.listing import Change, Listing
from loader_ws_trades.binance.rest import Rest, Ticker
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from tests.unit.clock import FakeClock
from tests.unit.test_config import of_many

LISTED = {"AUSDT": "TRADING", "BUSDT": "HALT", "CUSDT": "BREAK", "DBTC": "TRADING", "EUSDT": "TRADING"}
UNKNOWN = Response(400, {}, b'{"code":-1121,"msg":"Invalid symbol."}')


class Exchange:
    """Stands for `HttpClient`: answers about the pairs in `listed`, and notes what was asked."""

    def __init__(self, listed: Mapping[str, str]) -> None:
        self.listed = dict(listed)
        self.asked: list[dict[str, Any]] = []
        self.bounds: dict[str, int] = {}

    def close(self) -> None:
        """Do nothing."""

    def get(self, url: str, fields: Mapping[str, Any], **bounds: int) -> Response:
        self.asked.append(dict(fields))
        self.bounds = bounds
        if url.endswith("exchangeInfo"):
            rows: list[Any] = [{"symbol": name, "status": status} for name, status in self.listed.items()]
            return Response(200, {}, msgspec.json.encode({"symbols": rows}))
        assert url.endswith("ticker/24hr")
        names = msgspec.json.decode(fields.get("symbols", "null"))
        if names and not set(names) <= self.listed.keys():
            return UNKNOWN
        rows = [{"symbol": name, "firstId": 5, "lastId": 7, "count": 3} for name in names or self.listed]
        return Response(200, {}, msgspec.json.encode(rows))


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Exchange:
    made = Exchange(LISTED)
    monkeypatch.setattr(rest_client, "HttpClient", lambda *_: made)
    return made


@pytest.fixture
def client(exchange: Exchange, clock: FakeClock) -> Rest:
    return Rest("http://rest.invalid", clock.event())


def test_one_request_finds_the_status_of_all(client: Rest, exchange: Exchange) -> None:
    assert client.trading_symbols() == LISTED
    assert client.weight_used == 20
    assert len(exchange.asked) == 1
    assert exchange.bounds == {"most": 64 * 1024**2, "seconds": 60}


def test_all_unknown_pairs_are_named_at_once(client: Rest, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client.check_symbols(["XUSDT", "AUSDT", "YUSDT"])
    assert str(caught.value).startswith(
        "The exchange does not know XUSDT, YUSDT; check SYMBOLS (--symbols), whose pairs"
    )
    with pytest.raises(ConfigurationError, match=r"N0, N1, .*, N49 and 250 more; check"):
        client.check_symbols([f"N{number}" for number in range(300)])
    assert client.check_symbols(["AUSDT", "BUSDT", "CUSDT"]) == LISTED
    [line] = caplog.messages
    assert line.startswith(
        "2 of 3 pairs are not trading, so they have no trades until that changes: BUSDT (HALT), CUSDT"
    )


@pytest.mark.parametrize(("count", "weight"), [(1, 2), (20, 2), (21, 4), (780, 78), (781, 80), (1600, 80)])
def test_tickers_of_many_cost_little(client: Rest, exchange: Exchange, count: int, weight: int) -> None:
    exchange.listed = {f"N{number}": "TRADING" for number in range(2000)}
    names = [f"N{number}" for number in range(count)]
    assert client.tickers(names) == dict.fromkeys(names, Ticker(5, 7))
    assert client.weight_used == weight
    assert all(asked["type"] == "MINI" for asked in exchange.asked)


def test_tickers_of_all_and_of_none(client: Rest, exchange: Exchange) -> None:
    assert client.tickers([]) == {}
    assert not exchange.asked
    assert client.tickers(None).keys() == LISTED.keys()
    assert client.weight_used == rest.ALL_TICKERS_WEIGHT


def test_a_pair_that_was_delisted_does_not_fail_the_others(client: Rest) -> None:
    assert client.tickers(["AUSDT", "GONE"]) == {"AUSDT": Ticker(5, 7)}
    assert client.weight_used == 82


def test_an_answer_that_is_not_documented_is_unavailable(client: Rest, exchange: Exchange) -> None:
    exchange.get = lambda *_args, **_bounds: Response(200, {}, b'{"symbols": 1}')  # type: ignore[method-assign]
    for request in (client.trading_symbols, lambda: client.check_symbols(["A"]), lambda: client.tickers(None)):
        with pytest.raises(UnavailableError, match="not as documented"):
            request()


def test_pairs_join_when_they_trade_and_leave_when_they_are_not_listed() -> None:
    listing = Listing(of_many("*usdt,dbtc"))
    assert listing.update(LISTED) == Change(["AUSDT", "EUSDT", "DBTC"], [])
    assert listing.update(LISTED | {"BUSDT": "TRADING", "AUSDT": "BREAK"}) == Change(["BUSDT"], [])
    assert listing.pairs == ["AUSDT", "EUSDT", "DBTC", "BUSDT"], "a pair that pauses stays"


def names(count: int, *without: int) -> dict[str, str]:
    return {f"N{number}": "TRADING" for number in range(count) if number not in without}


def test_a_pair_leaves_after_three_look_ups_in_a_row_without_it() -> None:
    listing = Listing(of_many("*"))
    listing.update(names(20))
    for present in (names(20, 3), names(20, 3), names(20), names(20, 3), names(20, 3)):
        assert listing.update(present) == Change([], [])
    assert listing.update(names(20, 3)) == Change([], ["N3"])
    assert listing.update(names(20, 3)) == Change([], [])
    assert listing.update(names(20)) == Change(["N3"], []), "it is listed again"


def test_a_look_up_that_lost_more_than_a_tenth_ends_no_pair(caplog: pytest.LogCaptureFixture) -> None:
    listing = Listing(of_many("N1,N2,NEW*"))
    listing.update(names(20))
    for _ in range(5):
        assert listing.update(names(20, 1, 2, 3)) == Change([], [])
    assert "3 of 20 pairs are missing in the exchange's list" in caplog.text
    assert listing.update(names(20, 1, 2, 3) | {"NEW1": "TRADING"}) == Change(["NEW1"], []), "what is there is there"
    listed = names(20, 1, 2) | {"NEW1": "TRADING"}
    for expected in ([], [], ["N1", "N2"]):
        assert listing.update(listed).removed == expected
