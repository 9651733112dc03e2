"""The faults of the sandbox's REST, and what the exchange can tell about its clients."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from urllib3 import BaseHTTPResponse, HTTPConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from websocket import WebSocketBadStatusException

from loader_ws_trades.sandbox import (
    Exchange,
    Fault,
    HandshakeStatus,
    Limits,
    Market,
    RestCut,
    RestDrip,
    RestLag,
    RestOtherRows,
    RestSilence,
    RestStatus,
    RestTruncated,
)
from tests.integration.test_sandbox_faults import connected, ids
from tests.tools.waiting import wait_for


class Client:
    """Asks one exchange."""

    def __init__(self, exchange: Exchange, pool: HTTPConnectionPool) -> None:
        self.exchange = exchange
        self.timeout = 10.0
        self._pool = pool

    def get(self, path: str = "time", **parameters: object) -> BaseHTTPResponse:
        fields = {name: str(value) for name, value in parameters.items()}
        return self._pool.request("GET", f"/api/v3/{path}", fields=fields, retries=False, timeout=self.timeout)

    def ids(self, path: str, **parameters: object) -> list[int]:
        return [row["id"] for row in self.get(path, symbol="BTCUSDT", limit=1000, **parameters).json()]


@contextmanager
def client_of(*faults: Fault, rate: float = 1000, limits: Limits | None = None) -> Iterator[Client]:
    market = Market.generated(rate=rate, past=5000)
    with (
        Exchange([market], faults=faults, limits=limits) as exchange,
        HTTPConnectionPool(exchange.host, exchange.port) as pool,
    ):
        yield Client(exchange, pool)


@pytest.mark.parametrize(
    ("status", "retry_after", "code"),
    [(429, 3, -1003), (418, 120, -1003), (451, None, 0), (500, None, -1007), (503, None, -1008)],
)
def test_the_next_answers_are_of_another_status(status: int, retry_after: int | None, code: int) -> None:
    with client_of(RestStatus(status, retry_after=retry_after, times=2)) as client:
        for _ in range(2):
            answer = client.get()
            assert (answer.status, answer.json()["code"]) == (status, code)
            assert answer.headers.get("Retry-After") == (retry_after and str(retry_after))
        assert client.get().status == 200
        assert client.exchange.counters.answers == {("/api/v3/time", status): 2, ("/api/v3/time", 200): 1}


def test_what_stands_before_the_exchange_does_not_answer_in_json() -> None:
    with client_of(RestStatus(502)) as client:
        answer = client.get()
        assert (answer.status, answer.headers["Content-Type"]) == (502, "text/html")
        assert answer.data.startswith(b"<html>")


def test_refusals_may_last_a_while_and_concern_one_path() -> None:
    with client_of(RestStatus(429, retry_after=1, path="historicalTrades", lasting=0.3)) as client:
        assert client.get("historicalTrades", symbol="BTCUSDT").status == 429
        assert client.get("trades", symbol="BTCUSDT").status == 200
        wait_for(lambda: client.get("historicalTrades", symbol="BTCUSDT").status == 200, "the refusals to end")


def test_of_several_faults_the_first_is_met_first() -> None:
    with client_of(RestStatus(500), RestStatus(429, times=2)) as client:
        assert [client.get().status for _ in range(4)] == [500, 429, 429, 200]


def test_every_so_many_th_request_is_refused() -> None:
    with client_of(RestStatus(503, every=3, path="time", times=2)) as client:
        assert [client.get().status for _ in range(4)] == [200, 200, 503, 200]
        assert client.get("trades", symbol="BTCUSDT").status == 200, "another path is not counted"
        assert [client.get().status for _ in range(5)] == [200, 503, 200, 200, 200]


@pytest.mark.parametrize("text", ["soon", "10000000000", "1e400", "-1", "", "\xb2", "9" * 5000])
def test_retry_after_may_be_any_text(text: str) -> None:
    with client_of(RestStatus(429, retry_after=text)) as client:
        assert client.get().headers["Retry-After"] == text


@pytest.mark.parametrize("text", ["soon", "1e400", "9" * 5000])
def test_retry_after_of_a_handshake_may_be_any_text(text: str) -> None:
    with (
        client_of(HandshakeStatus(429, retry_after=text)) as client,
        pytest.raises(WebSocketBadStatusException) as error,
        connected(client.exchange),
    ):
        pass
    assert error.value.resp_headers == error.value.resp_headers | {"retry-after": text}  # type: ignore[operator]


def test_retry_after_is_one_line_of_a_head() -> None:
    for fault in (RestStatus, HandshakeStatus):
        with pytest.raises(ValueError, match="retry_after must be one line of Latin-1"):
            fault(429, retry_after="1\r\nX: 2")


def test_no_answer() -> None:
    with client_of(RestSilence()) as client:
        client.timeout = 0.2
        with pytest.raises(ReadTimeoutError):
            client.get()
        client.timeout = 10.0
        assert client.get().status == 200
        assert client.exchange.counters.answers["/api/v3/time", None] == 1


def test_the_connection_is_cut_in_place_of_an_answer() -> None:
    with client_of(RestCut()) as client:
        with pytest.raises(ProtocolError):
            client.get()
        assert client.get().status == 200


def test_an_answer_is_truncated() -> None:
    with client_of(RestTruncated(path="historicalTrades", times=2)) as client:
        for _ in range(2):
            with pytest.raises(HTTPError):
                client.get("historicalTrades", symbol="BTCUSDT")
        assert len(client.ids("historicalTrades")) == 1000
        assert client.exchange.counters.answers["/api/v3/historicalTrades", 200] == 3


def test_a_truncated_body_breaks_off() -> None:
    with client_of(RestTruncated()) as client:
        with socket.create_connection((client.exchange.host, client.exchange.port), timeout=10) as sock:
            sock.sendall(b"GET /api/v3/historicalTrades?symbol=BTCUSDT&limit=100 HTTP/1.1\r\nHost: test\r\n\r\n")
            answer = b""
            while data := sock.recv(65536):
                answer += data
        head, body = answer.split(b"\r\n\r\n")
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        assert len(body) == length // 2
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


def pieces(client: Client) -> Iterator[bytes]:
    """What comes of an answer, as it comes, until its end or that of the connection."""
    with socket.create_connection((client.exchange.host, client.exchange.port), timeout=10) as sock:
        sock.sendall(b"GET /api/v3/time HTTP/1.1\r\nHost: test\r\n\r\n")
        while data := sock.recv(65536):
            yield data
            if data.endswith(b"}"):
                return


def test_an_answer_drips() -> None:
    with client_of(RestDrip(0.001)) as client:
        answer = list(pieces(client))
        assert len(answer) > 20
        assert b"".join(answer).startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.get().status == 200


def test_a_body_drips() -> None:
    with client_of(RestDrip(0.001, body=True)) as client:
        head, *body = pieces(client)
        assert head.endswith(b"\r\n\r\n")
        assert len(body) > 5
        assert json.loads(b"".join(body))["serverTime"]


def test_an_answer_that_drips_is_cut_off_when_all_is_healed() -> None:
    with client_of(RestDrip(0.05)) as client:
        answer = pieces(client)
        assert next(answer) == b"H"
        client.exchange.heal()
        assert not b"".join(answer).endswith(b"}")
        assert client.get().status == 200


def test_rows_are_of_other_ids() -> None:
    with client_of(RestOtherRows(7, path="Trades", times=3)) as client:
        right = client.ids("trades")
        assert right[-1] > 1000
        for path in ("historicalTrades", "historicalTrades"):
            assert client.ids(path, fromId=right[0])[:5] == [7, 8, 9, 10, 11]
        assert client.get("historicalTrades", symbol="NONE").json()["code"] == -1121, "no rows"
        assert client.ids("historicalTrades", fromId=right[0])[0] == right[0]


def test_the_database_lags() -> None:
    with client_of() as client:
        market = client.exchange.markets[0]
        client.exchange.inflict(RestLag(2.0))
        newest = market.last_id or 0
        known = client.ids("historicalTrades")
        # At 1,000 trades a second it is about 2,000 behind, less what has come while it was asked.
        assert 0 < newest - known[-1] < 3000
        assert known == list(range(known[0], known[0] + 1000))
        assert client.ids("historicalTrades", fromId=newest) == []
        assert client.ids("trades")[-1] >= newest
        assert client.get("aggTrades", symbol="BTCUSDT").json()[-1]["l"] < newest
        wait_for(lambda: client.ids("historicalTrades", fromId=newest), "the database to catch up")
        client.exchange.heal()
        newest = market.last_id or 0
        assert client.ids("historicalTrades", fromId=newest)[0] == newest


def test_a_lag_may_pass() -> None:
    with client_of(RestLag(100, lasting=0.3)) as client:
        newest = client.exchange.markets[0].last_id or 0
        assert client.ids("historicalTrades", fromId=newest) == []
        wait_for(lambda: client.ids("historicalTrades", fromId=newest), "the lag to pass")


def test_the_greatest_weight_of_a_window_is_told() -> None:
    with client_of(limits=Limits(weight=60, weight_window=0.3, refusals=10**9)) as client:
        counters = client.exchange.counters
        for _ in range(2):
            client.get("trades", symbol="BTCUSDT")
        wait_for(lambda: client.exchange.used_weight() == 0, "the next window")
        client.get("trades", symbol="BTCUSDT")
        assert counters.weight == 75
        assert 25 <= counters.peak_weight <= 50
        wait_for(lambda: client.get("trades", symbol="BTCUSDT").status == 429, "a refusal")
        assert counters.peak_weight > 60


def test_requests_and_connections_are_told() -> None:
    with client_of() as client:
        began = time.monotonic()
        for _ in range(5):
            client.get()
        counters = client.exchange.counters
        assert counters.most_requests(60) == 5
        assert counters.most_requests(1e-9) == 1
        assert [request.path for request in counters.history] == ["/api/v3/time"] * 5
        with ExitStack() as stack:
            for _ in range(3):
                ids(stack.enter_context(connected(client.exchange)), 10)
        wait_for(lambda: all(session.closed for session in counters.sessions), "all to be closed")
        with connected(client.exchange) as last:
            ids(last, 10)
            assert counters.sessions[-1].closed is None
        assert counters.most_open == 3
        assert [session.number for session in counters.sessions] == [1, 2, 3, 4]
        assert all(began < session.opened < (session.closed or 1e99) for session in counters.sessions)
        assert counters.most_attempts(60) == 4
