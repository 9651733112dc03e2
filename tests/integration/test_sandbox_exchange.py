"""The simulated exchange behaves as Binance documents: streams, limits, REST."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from urllib3 import BaseHTTPResponse, HTTPConnectionPool
from websocket import ABNF, WebSocket, WebSocketBadStatusException, WebSocketTimeoutException

from loader_ws_trades.sandbox import Exchange, Limits, Market, crowd
from tests.tools.recorded import frames as recorded_frames
from tests.tools.recorded import frames_file
from tests.tools.stream_client import (
    TARGET,
    connected,
    frames,
    ids,
    ids_to_the_end,
    next_frame,
    raw_socket,
    received,
)
from tests.tools.waiting import wait_for

FIRST, PAST = 1_000_000, 5000
UNLIMITED = Limits(client_frames=None)


# Streams.


def test_raw_stream_of_a_recording_is_the_recording(tmp_path: Path) -> None:
    recorded = frames_file(tmp_path)
    with Exchange([Market.recorded(recorded, speed=math.inf, start="subscriber")]) as exchange:
        with connected(exchange, "/ws/polusdt@trade") as client:
            assert [json.loads(client.recv()) for _ in range(5000)] == recorded_frames(recorded)[:5000]
        assert exchange.counters.connections == 1


@pytest.mark.parametrize(
    ("target", "wrapped", "unit"),
    [
        ("/ws/{}", False, 1000),
        ("/ws/{}/ethusdt@trade", False, 1000),
        ("/ws/{}?timeUnit=MICROSECOND", False, 1),
        ("/stream?streams={}", True, 1000),
        ("/stream?streams={}/ethusdt@trade&timeUnit=MICROSECOND", True, 1),
    ],
)
def test_generated_trades_in_all_forms(target: str, wrapped: bool, unit: int) -> None:
    market = Market.generated("币安人生USDT", rate=5000, start="subscriber")
    name = "币安人生usdt@trade"
    with Exchange([market]) as exchange, connected(exchange, target.format(quote(name))) as client:
        messages = [json.loads(client.recv()) for _ in range(1500)]
    if wrapped:
        assert all((list(one), one["stream"]) == (["stream", "data"], name) for one in messages)
        messages = [one["data"] for one in messages]
    assert list(messages[0]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    for message, trade in zip(messages, market.trades(0, 1500), strict=True):
        moment = trade.time // unit
        assert message == {
            "e": "trade",
            "E": moment,
            "s": "币安人生USDT",
            "t": trade.id,
            "p": trade.price,
            "q": trade.quantity,
            "T": moment,
            "m": trade.is_buyer_maker,
            "M": True,
        }


@pytest.mark.parametrize("first_id", [8, 999_500])
def test_frames_are_well_formed_where_ids_grow_by_a_digit(first_id: int) -> None:
    market = Market.generated(rate=math.inf, first_id=first_id, start="subscriber", count=5000)
    with Exchange([market]) as exchange, raw_socket(exchange) as sock:
        sock.settimeout(1)
        found, rest = frames(received(sock))
    assert [json.loads(payload)["t"] for _, payload in found] == list(range(first_id, first_id + 5000))
    assert {first for first, _ in found} == {0x81}
    assert not rest


def test_flat_out_nothing_is_missing_however_slowly_it_is_read() -> None:
    market = Market.generated(rate=math.inf, start="subscriber", count=120_000)
    with Exchange([market]) as exchange, raw_socket(exchange) as sock:
        wait_for(lambda: market.issued > 10_000, "trades issued")
        seen = [0]

        def at_rest() -> int:
            seen.append(market.issued)
            return seen[-1] if seen[-1] == seen[-2] else 0

        assert wait_for(at_rest, "the market to wait for its reader") < 120_000
        sock.settimeout(1)
        found, _ = frames(received(sock))
        assert [json.loads(payload)["t"] for _, payload in found] == list(range(FIRST, FIRST + 120_000))
        assert exchange.counters.cut_off == 0


def test_a_client_that_does_not_read_is_disconnected() -> None:
    market = Market.generated(rate=100_000)
    with Exchange([market], limits=Limits(backlog=1_000_000)) as exchange, raw_socket(exchange):
        wait_for(lambda: exchange.counters.cut_off and exchange.clients == 0, "the client to be disconnected")


def test_a_market_continues_while_the_exchange_is_stopped() -> None:
    market = Market.generated(rate=2000)
    exchange = Exchange([market])
    with exchange, connected(exchange) as client:
        before = ids(client, 100)
    port, stopped = exchange.port, market.issued
    wait_for(lambda: market.issued > stopped + 100, "trades that nobody receives")
    with exchange, connected(exchange) as client:
        assert ids(client, 1)[0] > before[-1] + 100
    assert exchange.port == port
    with exchange, pytest.raises(OSError, match="in use"):
        Exchange([], port=port).start()


# Connections.


@pytest.mark.parametrize("name", ["nosuch@trade", "BTCUSDT@trade", "btcusdt@depth"])
def test_an_unknown_stream_is_silent_but_for_pings(name: str) -> None:
    market = Market.generated(rate=5000)
    exchange = Exchange([market], ping_interval=0.03, limits=UNLIMITED)
    with exchange, connected(exchange, f"/ws/{name}") as client:
        assert {next_frame(client).opcode for _ in range(5)} == {ABNF.OPCODE_PING}


def test_the_newest_pong_answers_earlier_pings() -> None:
    exchange = Exchange([], ping_interval=0.05, pong_timeout=1.0, limits=UNLIMITED)
    with exchange, connected(exchange) as client:
        for count in range(30):
            payload = next_frame(client).data
            if count % 3 == 2:
                client.pong(payload)
        assert exchange.clients == 1


@pytest.mark.parametrize("payload", [None, b"12345"])
def test_a_client_without_the_right_pong_is_closed_with_1008(payload: bytes | None) -> None:
    with Exchange([], ping_interval=0.1, pong_timeout=0.3, limits=UNLIMITED) as exchange, connected(exchange) as client:
        if payload is not None:
            client.pong(payload)
        assert ids_to_the_end(client) == ([], 1008)


def test_the_sixth_frame_in_a_second_is_closed_with_1008() -> None:
    with Exchange([]) as exchange, connected(exchange) as client:
        for _ in range(5):
            client.ping()
        assert [next_frame(client).opcode for _ in range(5)] == [ABNF.OPCODE_PONG] * 5
        client.pong()
        assert ids_to_the_end(client) == ([], 1008)


def test_a_connection_is_closed_at_its_maximum_age() -> None:
    with Exchange([], limits=Limits(connection_age=0.2)) as exchange, connected(exchange) as client:
        assert ids_to_the_end(client) == ([], 1001)


def test_handshakes_are_rejected_beyond_the_limit_and_for_other_paths() -> None:
    with Exchange([], limits=Limits(connection_attempts=2)) as exchange, ExitStack() as stack:
        stack.enter_context(connected(exchange))
        statuses = []
        for target in ("/nothing", TARGET):
            with pytest.raises(WebSocketBadStatusException) as rejection, connected(exchange, target):
                pass
            statuses.append(rejection.value.status_code)
        assert statuses == [404, 429]
        assert 0 < int((rejection.value.resp_headers or {})["retry-after"]) <= 300
        assert (exchange.counters.connections, exchange.counters.refused) == (1, 2)


def ask(client: WebSocket, request: object) -> Any:
    client.send(request if isinstance(request, str) else json.dumps(request))
    answers = (json.loads(client.recv()) for _ in range(10_000))
    return next(answer for answer in answers if answer.get("e") != "trade" and "stream" not in answer)


def test_subscribe_list_and_unsubscribe() -> None:
    limits = Limits(client_frames=None, message_spacing=None, streams=2)
    exchange = Exchange([Market.generated(rate=100, start="subscriber")], limits=limits)
    with exchange, connected(exchange, "/ws") as client:
        names = ["btcusdt@trade", "nosuch@trade"]
        assert ask(client, {"method": "SUBSCRIBE", "params": names, "id": 1}) == {"result": None, "id": 1}
        assert ids(client, 20) == list(range(FIRST, FIRST + 20))
        assert ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": "x"}) == {"result": names, "id": "x"}
        assert ask(client, {"method": "UNSUBSCRIBE", "params": names, "id": 3}) == {"result": None, "id": 3}
        client.settimeout(0.2)
        with pytest.raises(WebSocketTimeoutException):
            client.recv()


def test_too_many_streams_end_the_connection() -> None:
    limits = Limits(streams=2)
    with Exchange([Market.generated(start="subscriber")], limits=limits) as exchange:
        with connected(exchange, "/stream?streams=a@trade/b@trade") as client:
            too_many = {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 2}
            assert ask(client, {"method": "SUBSCRIBE", "params": ["c@trade"], "id": 2}) == too_many
            assert ids_to_the_end(client) == ([], 1008)
        with connected(exchange, "/stream?streams=a@trade/b@trade/c@trade") as client:
            assert ids_to_the_end(client) == ([], 1008)


def test_messages_in_quick_succession_end_the_connection() -> None:
    with Exchange([]) as exchange, connected(exchange, "/ws") as client:
        assert ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": 1}) == {"result": [], "id": 1}
        client.send("{}")
        assert ids_to_the_end(client) == ([], 1008)


def test_many_markets_by_url_and_by_subscription() -> None:
    markets = crowd(50, 5000.0)
    wanted = [market.stream for market in markets]
    with (
        Exchange(markets) as exchange,
        connected(exchange, f"/stream?streams={quote('/'.join(wanted[:49]))}") as client,
    ):
        assert ask(client, {"method": "SUBSCRIBE", "params": wanted[49:], "id": 1}) == {"result": None, "id": 1}
        found: dict[str, list[dict[str, Any]]] = {}
        deadline = time.monotonic() + 20
        while len(found) < len(wanted) and time.monotonic() < deadline:
            message = json.loads(client.recv())
            found.setdefault(message["stream"], []).append(message["data"])
        for market in markets:
            frames = found[market.stream]
            trades = market.trades(market.position(frames[0]["t"]), market.issued)[: len(frames)]
            rows = [(one["s"], one["t"], one["p"], one["q"], one["T"], one["m"]) for one in frames]
            assert rows == [(market.symbol, *trade[:3], trade.time // 1000, trade.is_buyer_maker) for trade in trades]


def test_a_long_url_is_rejected() -> None:
    with Exchange([]) as exchange, pytest.raises(WebSocketBadStatusException, match="414"), ExitStack() as stack:
        stack.enter_context(connected(exchange, f"/stream?streams={'/'.join(['btcusdt@trade'] * 575)}"))


# REST.


class Client:
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
        found: list[dict[str, Any]] = answer.json()
        return found


@contextmanager
def rest_client(**limits: Any) -> Iterator[Client]:
    markets = [Market.generated(past=PAST, count=PAST, seed=3), Market.generated("币安人生USDT", status="HALT")]
    exchange = Exchange(markets, limits=Limits(**limits))
    with exchange, HTTPConnectionPool(exchange.host, exchange.port) as pool:
        yield Client(exchange, pool)


def test_historical_trades_page_through_all_of_history() -> None:
    with rest_client() as client:
        rows: list[dict[str, Any]] = []
        while page := client.rows("historicalTrades", fromId=FIRST + len(rows) if rows else 5, limit=1000):
            rows += page
        assert list(rows[0]) == ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
        for row, trade in zip(rows, client.market.trades(0, PAST), strict=True):
            price, quantity, quote_quantity = (int(row[name].replace(".", "")) for name in ("price", "qty", "quoteQty"))
            assert quote_quantity * 10**8 == price * quantity
            assert row == {
                "id": trade.id,
                "price": trade.price,
                "qty": trade.quantity,
                "quoteQty": row["quoteQty"],
                "time": trade.time // 1000,
                "isBuyerMaker": trade.is_buyer_maker,
                "isBestMatch": True,
            }
        for path in ("historicalTrades", "trades"):
            assert [row["id"] for row in client.rows(path)] == list(range(FIRST + PAST - 500, FIRST + PAST))
            assert [row["id"] for row in client.rows(path, limit=1)] == [FIRST + PAST - 1]


def test_aggregates_cover_each_trade_once_and_map_times_to_trades() -> None:
    with rest_client() as client:
        rows: list[dict[str, Any]] = []
        while page := client.rows("aggTrades", fromId=rows[-1]["a"] + 1 if rows else 0, limit=1000):
            rows += page
        assert list(rows[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]
        trades = client.market.trades(0, PAST)
        assert [trade.id for trade in trades] == [one for row in rows for one in range(row["f"], row["l"] + 1)]
        for row in rows:
            members = trades[row["f"] - FIRST : row["l"] + 1 - FIRST]
            shared = {(trade.price, trade.time // 1000, trade.is_buyer_maker) for trade in members}
            assert shared == {(row["p"], row["T"], row["m"])}
            assert int(row["q"].replace(".", "")) == sum(int(trade.quantity.replace(".", "")) for trade in members)
        for wanted in trades[::500]:
            moment = wanted.time // 1000
            same = [trade.id for trade in trades if trade.time // 1000 == moment]
            within = client.rows("aggTrades", startTime=moment, endTime=moment)
            assert (within[0]["f"], within[-1]["l"]) == (same[0], same[-1])
            assert client.rows("aggTrades", startTime=moment, limit=1)[0]["f"] == same[0]
            assert client.rows("aggTrades", endTime=moment, limit=1)[0]["l"] == same[-1]
        assert client.rows("aggTrades", limit=1)[-1]["l"] == FIRST + PAST - 1
        assert client.rows("aggTrades", startTime=rows[-1]["T"] + 1) == []


def test_exchange_info_and_time() -> None:
    with rest_client() as client:
        [info] = client.get("exchangeInfo", symbol="币安人生USDT").json()["symbols"]
        assert (info["symbol"], info["status"]) == ("币安人生USDT", "HALT")
        client.market.status = "BREAK"
        assert [one["status"] for one in client.get("exchangeInfo").json()["symbols"]] == ["BREAK", "HALT"]
        [info] = client.get("exchangeInfo", symbolStatus="HALT", showPermissionSets="false").json()["symbols"]
        assert (info["symbol"], info["permissionSets"]) == ("币安人生USDT", [])
        [info] = client.get("exchangeInfo", symbols='["BTCUSDT"]').json()["symbols"]
        assert 5_000 < len(json.dumps(info)) < 7_000
        assert 10**12 < client.get("time").json()["serverTime"] < 10**13
        assert client.get("nothing").status == 404


def test_tickers_name_the_first_and_the_last_trade_of_a_day() -> None:
    markets = [
        Market.generated("OLDUSDT", rate=0.05, past=9000, count=9000),
        Market.generated("NEWUSDT", start="subscriber"),
    ]
    with Exchange(markets) as exchange, HTTPConnectionPool(exchange.host, exchange.port) as pool:
        client = Client(exchange, pool)
        old, new = client.get("ticker/24hr", type="MINI").json()
        assert (new["symbol"], new["firstId"], new["lastId"], new["count"]) == ("NEWUSDT", -1, -1, 0)
        assert (old["lastId"], old["count"]) == (1_008_999, 1_008_999 - old["firstId"] + 1)
        assert 0.9 * 0.05 * 86_400 < old["count"] < 1.1 * 0.05 * 86_400, "only trades of 24 h"
        full = client.get("ticker/24hr", symbol="OLDUSDT").json()
        assert (full["lastPrice"], full["lastQty"]) == markets[0].trades(8999, 9000)[0][1:3]
        named = client.get("ticker/24hr", symbols='["NEWUSDT","OLDUSDT"]', type="MINI").json()
        assert [row["symbol"] for row in named] == ["NEWUSDT", "OLDUSDT"]
        for count, weight in ((1, 2), (20, 2), (21, 40), (100, 40), (101, 80), (None, 80)):
            before = exchange.counters.weight
            parameters = {} if count is None else {"symbols": json.dumps(["OLDUSDT"] * count)}
            assert client.get("ticker/24hr", **parameters).status == 200
            assert exchange.counters.weight - before == weight, count


def test_bad_requests_get_the_codes_of_the_exchange() -> None:
    symbol: dict[str, object] = {"symbol": "BTCUSDT"}
    cases: list[tuple[str, dict[str, object], int]] = [
        ("trades", {"symbol": "NOSUCH"}, -1121),
        ("exchangeInfo", {"symbol": "NOSUCH"}, -1121),
        ("exchangeInfo", {"symbols": '["BTCUSDT","NOSUCH"]'}, -1121),
        ("exchangeInfo", symbol | {"symbolStatus": "TRADING"}, -1128),
        ("exchangeInfo", {"symbolStatus": "trading"}, -1130),
        ("trades", {}, -1102),
        ("trades", {"symbol": ""}, -1105),
        ("trades", {"symbol": "btcusdt"}, -1100),
        ("historicalTrades", symbol | {"fromId": -1}, -1100),
        ("trades", symbol | {"limit": 1001}, -1130),
        ("trades", symbol | {"limit": 0}, -1130),
        ("aggTrades", symbol | {"fromId": 1, "startTime": 1}, -1128),
        ("ticker/24hr", {"symbols": '["BTCUSDT","NOSUCH"]'}, -1121),
        ("ticker/24hr", {"symbols": "BTCUSDT"}, -1100),
        ("ticker/24hr", symbol | {"type": "mini"}, -1130),
        ("ticker/24hr", symbol | {"symbols": "[]"}, -1128),
    ]
    with rest_client() as client:
        for path, parameters, code in cases:
            answer = client.get(path, **parameters)
            assert (answer.status, answer.json()["code"]) == (400, code), (path, parameters)


def test_weights_are_those_of_the_exchange() -> None:
    with rest_client() as client:
        answers = [client.get("time"), client.get("exchangeInfo"), client.get("trades", symbol="NOSUCH")]
        answers += [client.get(path, symbol="BTCUSDT") for path in ("trades", "historicalTrades", "aggTrades")]
        assert [answer.headers["X-MBX-USED-WEIGHT-1M"] for answer in answers] == ["1", "21", "46", "71", "96", "100"]
        assert client.exchange.used_weight() == client.exchange.counters.weight == 100


def test_too_much_weight_is_rejected_and_then_banned() -> None:
    # A window so long that it will not end within the test.
    with rest_client(weight=50, weight_window=1e9, refusals=2, ban=100.0) as client:
        answers = [client.get("trades", symbol="BTCUSDT") for _ in range(6)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429, 418, 418]
        assert all(answer.json()["code"] == -1003 for answer in answers[2:])
        assert int(answers[2].headers["Retry-After"]) > 0
        assert [int(answer.headers["Retry-After"]) for answer in answers[4:]] == [100, 100]
    with rest_client(weight=30, weight_window=0.5, refusals=10**9) as client:
        for status in (429, 200):
            wait_for(lambda: client.get("trades", symbol="BTCUSDT").status == status, f"status {status}")  # noqa: B023
        assert client.exchange.counters.peak_weight >= 25
