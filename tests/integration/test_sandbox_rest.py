"""The sandbox's REST answers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from urllib3 import BaseHTTPResponse, HTTPConnectionPool

from loader_ws_trades.sandbox import Exchange, Limits, Market
from tests.tools.waiting import wait_for

PAST = 5000


class Client:
    """Asks one exchange over one connection."""

    def __init__(self, exchange: Exchange, pool: HTTPConnectionPool) -> None:
        self.exchange = exchange
        self.pool = pool
        self.market = exchange.markets[0]

    def get(self, path: str, **parameters: object) -> BaseHTTPResponse:
        fields = {name: str(value) for name, value in parameters.items()}
        return self.pool.request("GET", f"/api/v3/{path}", fields=fields, retries=False, timeout=10)

    def rows(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        answer = self.get(path, symbol="BTCUSDT", **parameters)
        assert answer.status == 200, answer.data
        rows: list[dict[str, Any]] = answer.json()
        return rows


def clients(*markets: Market, **limits: Any) -> Iterator[Client]:
    with (
        Exchange(markets, limits=Limits(**limits)) as exchange,
        HTTPConnectionPool(exchange.host, exchange.port) as pool,
    ):
        yield Client(exchange, pool)


def quiet(past: int = PAST) -> Market:
    return Market.generated(past=past, count=past, seed=3)


@pytest.fixture
def client() -> Iterator[Client]:
    yield from clients(quiet(), Market.generated("币安人生USDT", past=3, count=3, status="HALT"))


@pytest.fixture
def poor_client() -> Iterator[Client]:
    # A window so long that it will not end within the test, unless the test begins at its very end.
    yield from clients(quiet(), weight=50, weight_window=1e9, refusals=2, ban=100.0)


@pytest.fixture
def hasty_client() -> Iterator[Client]:
    # No ban, however often it asks: only the end of the window is waited for.
    yield from clients(quiet(), weight=30, weight_window=0.5, refusals=10**9)


def test_historical_trades_begin_with_the_id_asked_for(client: Client) -> None:
    rows = client.rows("historicalTrades", fromId=1_000_100, limit=1000)
    assert list(rows[0]) == ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
    assert [(row["id"], row["price"], row["qty"], row["time"], row["isBuyerMaker"]) for row in rows] == [
        (trade.id, trade.price, trade.quantity, trade.time // 1000, trade.is_buyer_maker)
        for trade in client.market.trades(100, 1100)
    ]
    assert all(row["isBestMatch"] is True for row in rows)


def test_the_quote_quantity_is_exact(client: Client) -> None:
    for row in client.rows("historicalTrades", fromId=1_000_000):
        price, quantity, quote = (int(row[name].replace(".", "")) for name in ("price", "qty", "quoteQty"))
        assert quote * 10**8 == price * quantity


def test_all_of_history_can_be_paged_through(client: Client) -> None:
    ids: list[int] = []
    for _ in range(PAST // 1000):
        ids += [row["id"] for row in client.rows("historicalTrades", fromId=1_000_000 + len(ids), limit=1000)]
    assert ids == list(range(1_000_000, 1_000_000 + PAST))
    assert client.rows("historicalTrades", fromId=1_000_000 + PAST) == []
    assert client.pool.num_connections == 1


@pytest.mark.parametrize("path", ["historicalTrades", "trades"])
def test_without_an_id_the_newest_trades_are_given(client: Client, path: str) -> None:
    newest = 1_000_000 + PAST
    assert [row["id"] for row in client.rows(path)] == list(range(newest - 500, newest))
    assert [row["id"] for row in client.rows(path, limit=2)] == [newest - 2, newest - 1]


def test_an_id_before_the_first_gives_the_first(client: Client) -> None:
    assert client.rows("historicalTrades", fromId=5, limit=1)[0]["id"] == 1_000_000


def test_aggregates_cover_each_trade_once(client: Client) -> None:
    rows: list[dict[str, Any]] = []
    for _ in range(PAST):
        page = client.rows("aggTrades", fromId=rows[-1]["a"] + 1 if rows else 0, limit=1000)
        rows += page
        if not page:
            break
    assert list(rows[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]
    trades = client.market.trades(0, PAST)
    assert [trade.id for trade in trades] == [one for row in rows for one in range(row["f"], row["l"] + 1)]
    for row in rows:
        members = trades[row["f"] - 1_000_000 : row["l"] + 1 - 1_000_000]
        assert {(trade.price, trade.time // 1000, trade.is_buyer_maker) for trade in members} == {
            (row["p"], row["T"], row["m"])
        }
        units = sum(int(trade.quantity.replace(".", "")) for trade in members)
        assert int(row["q"].replace(".", "")) == units
    assert len(rows) < 0.9 * PAST


def test_aggregates_map_a_time_to_a_trade(client: Client) -> None:
    trades = client.market.trades(0, PAST)
    for wanted in trades[::250]:
        moment = wanted.time // 1000
        first = next(trade.id for trade in trades if trade.time // 1000 >= moment)
        last = [trade.id for trade in trades if trade.time // 1000 <= moment][-1]
        assert client.rows("aggTrades", startTime=moment, limit=1)[0]["f"] == first
        within = client.rows("aggTrades", startTime=moment, endTime=moment)
        assert (within[0]["f"], within[-1]["l"]) == (first, last)
        assert client.rows("aggTrades", endTime=moment, limit=1)[0]["l"] == last


def test_aggregates_of_no_time_are_the_newest(client: Client) -> None:
    rows = client.rows("aggTrades", limit=1000)
    assert len(rows) == 1000
    assert rows[-1]["l"] == 1_000_000 + PAST - 1
    assert client.rows("aggTrades", startTime=rows[-1]["T"] + 1) == []


def test_exchange_info_gives_the_status(client: Client) -> None:
    for symbol, status in (("BTCUSDT", "TRADING"), ("币安人生USDT", "HALT")):
        symbols = client.get("exchangeInfo", symbol=symbol).json()["symbols"]
        assert [(one["symbol"], one["status"]) for one in symbols] == [(symbol, status)]
    client.market.status = "BREAK"
    assert [one["status"] for one in client.get("exchangeInfo").json()["symbols"]] == ["BREAK", "HALT"]


def test_tickers_name_the_first_and_the_last_trade_of_a_day() -> None:
    day = 86_400
    markets = [
        quiet(),
        Market.generated("NEWUSDT", start="subscriber"),
        Market.generated("OLDUSDT", rate=0.05, past=9000, count=9000),
    ]
    for client in clients(*markets):
        rows = client.get("ticker/24hr", type="MINI").json()
        assert [(row["symbol"], row["firstId"], row["lastId"], row["count"]) for row in rows[:2]] == [
            ("BTCUSDT", 1_000_000, 1_000_000 + PAST - 1, PAST),
            ("NEWUSDT", -1, -1, 0),
        ]
        old = rows[2]
        assert old["lastId"] == 1_008_999
        assert old["count"] == old["lastId"] - old["firstId"] + 1
        assert 0.9 * 0.05 * day < old["count"] < 1.1 * 0.05 * day, "trades of 24 h alone"
        full = client.get("ticker/24hr", symbol="BTCUSDT").json()
        assert (full["lastPrice"], full["lastQty"]) == client.market.trades(PAST - 1, PAST)[0][1:3]
        named = client.get("ticker/24hr", symbols='["OLDUSDT","BTCUSDT"]', type="MINI").json()
        assert [row["symbol"] for row in named] == ["OLDUSDT", "BTCUSDT"]


@pytest.mark.parametrize(("count", "weight"), [(1, 2), (20, 2), (21, 40), (100, 40), (101, 80), (None, 80)])
def test_a_tickers_weight_grows_with_the_symbols(client: Client, count: int | None, weight: int) -> None:
    parameters = {} if count is None else {"symbols": json.dumps(["BTCUSDT"] * count)}
    assert client.get("ticker/24hr", **parameters).status == 200
    assert client.exchange.counters.weight == weight


def test_time(client: Client) -> None:
    answer = client.get("time")
    assert answer.headers["Content-Type"].startswith("application/json")
    first, second = answer.json()["serverTime"], client.get("time").json()["serverTime"]
    assert 10**12 < first <= second < 10**13


@pytest.mark.parametrize(
    ("path", "parameters", "code", "message"),
    [
        ("trades", {"symbol": "NOSUCH"}, -1121, "Invalid symbol."),
        ("exchangeInfo", {"symbol": "NOSUCH"}, -1121, "Invalid symbol."),
        ("trades", {}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
        ("trades", {"symbol": ""}, -1105, "Parameter 'symbol' was empty."),
        (
            "trades",
            {"symbol": "btcusdt"},
            -1100,
            r"Illegal characters found in parameter 'symbol'; legal range is '^[\w\-._&&[^a-z]]{1,50}$'.",
        ),
        (
            "historicalTrades",
            {"symbol": "BTCUSDT", "fromId": -1},
            -1100,
            "Illegal characters found in parameter 'fromId'; legal range is '^[0-9]{1,20}$'.",
        ),
        ("trades", {"symbol": "BTCUSDT", "limit": 1001}, -1130, "Data sent for parameter 'limit' is not valid."),
        ("trades", {"symbol": "BTCUSDT", "limit": 0}, -1130, "Data sent for parameter 'limit' is not valid."),
        ("trades", {"symbol": "BTCUSDT", "limit": ""}, -1105, "Parameter 'limit' was empty."),
        (
            "aggTrades",
            {"symbol": "BTCUSDT", "fromId": 1, "startTime": 1},
            -1128,
            "Combination of optional parameters invalid.",
        ),
        ("ticker/24hr", {"symbol": "NOSUCH"}, -1121, "Invalid symbol."),
        ("ticker/24hr", {"symbols": '["BTCUSDT","NOSUCH"]'}, -1121, "Invalid symbol."),
        ("ticker/24hr", {"symbols": "BTCUSDT"}, -1100, "Illegal characters found in parameter 'symbols'."),
        ("ticker/24hr", {"symbol": "BTCUSDT", "type": "mini"}, -1130, "Data sent for parameter 'type' is not valid."),
        (
            "ticker/24hr",
            {"symbol": "BTCUSDT", "symbols": "[]"},
            -1128,
            "Combination of optional parameters invalid.",
        ),
    ],
)
def test_bad_requests(client: Client, path: str, parameters: dict[str, object], code: int, message: str) -> None:
    answer = client.get(path, **parameters)
    assert (answer.status, answer.json()) == (400, {"code": code, "msg": message})


def test_an_unknown_path_is_not_found(client: Client) -> None:
    assert client.get("nothing").status == 404


def test_weight_is_counted_in_a_header(client: Client) -> None:
    answers = [client.get("time"), client.get("exchangeInfo"), client.get("trades", symbol="NOSUCH")]
    answers += [client.get(path, symbol="BTCUSDT") for path in ("trades", "historicalTrades", "aggTrades")]
    assert [answer.headers["X-MBX-USED-WEIGHT-1M"] for answer in answers] == ["1", "21", "46", "71", "96", "100"]
    assert client.exchange.used_weight() == client.exchange.counters.weight == 100
    assert client.exchange.counters.requests["/api/v3/trades"] == 2


def test_who_asks_too_much_is_refused_and_then_banned(poor_client: Client) -> None:
    answers = [poor_client.get("trades", symbol="BTCUSDT") for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429, 418, 418]
    assert all(answer.json()["code"] == -1003 for answer in answers[2:])
    assert int(answers[2].headers["Retry-After"]) > 0
    assert [int(answer.headers["Retry-After"]) for answer in answers[4:]] == [100, 100]


def test_weight_is_forgotten_with_its_window(hasty_client: Client) -> None:
    def ask() -> BaseHTTPResponse:
        return hasty_client.get("trades", symbol="BTCUSDT")

    refused = wait_for(lambda: next((one for one in (ask(), ask()) if one.status == 429), None), "a refusal")
    assert refused is not None
    assert refused.headers["Retry-After"] == "1"
    wait_for(lambda: ask().status == 200, "the next window")
