"""Each fault of the simulated exchange does what it says: the fault matrix relies on it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise
from typing import Any

import pytest
from urllib3 import BaseHTTPResponse, HTTPConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from websocket import ABNF, WebSocketException, WebSocketTimeoutException

from loader_ws_trades.sandbox import (
    Cut,
    Delay,
    Delist,
    Duplicate,
    Exchange,
    Fault,
    Fragments,
    Freeze,
    HalfOpen,
    HandshakeSilence,
    HandshakeStatus,
    Hole,
    HugeFrame,
    IdReset,
    Limits,
    List,
    Malformed,
    Market,
    Random,
    Replay,
    RestCut,
    RestDrip,
    RestLag,
    RestOtherRows,
    RestSilence,
    RestStatus,
    RestTruncated,
    ServerShutdown,
    Shuffle,
    Silent,
    Skip,
)
from loader_ws_trades.sandbox.faults.malformed import KINDS as MALFORMED
from loader_ws_trades.sandbox.faults.random_faults import KINDS as DRAWN
from tests.tools.stream_client import (
    TARGET,
    connected,
    frames,
    ids,
    ids_to_the_end,
    next_frame,
    raw_socket,
    read,
    received,
)
from tests.tools.waiting import wait_for

FIRST = 1_000_000
COMBINED = "/stream?streams=btcusdt@trade"


@contextmanager
def exchange_with(*faults: Fault, rate: float = 2000, **options: Any) -> Iterator[Exchange]:
    """An exchange whose only market waits for its first subscriber, so that ids are known in advance."""
    with Exchange([Market.generated(rate=rate, start="subscriber")], faults=faults, **options) as exchange:
        yield exchange


def get(exchange: Exchange, path: str = "time", *, timeout: float = 10, **parameters: Any) -> BaseHTTPResponse:
    with HTTPConnectionPool(exchange.host, exchange.port) as pool:
        fields = {name: str(value) for name, value in parameters.items()}
        return pool.request("GET", f"/api/v3/{path}", fields=fields, retries=False, timeout=timeout)


def rest_ids(exchange: Exchange, path: str = "historicalTrades", **parameters: Any) -> list[int]:
    return [row["id"] for row in get(exchange, path, symbol="BTCUSDT", **parameters).json()]


# Trades.

NEXT = range(FIRST, FIRST + 2000)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([Skip(5, at_id=FIRST + 20)], [*NEXT[:20], *NEXT[25:]]),
        ([Hole(5, at_id=FIRST + 20)], [*NEXT[:20], *NEXT[25:]]),
        ([Duplicate(2, at_id=FIRST + 2)], [*NEXT[:3], NEXT[2], NEXT[3], NEXT[3], *NEXT[4:]]),
        ([IdReset(7, at_id=FIRST + 100)], [*NEXT[:100], *range(7, 2000)]),
        ([IdReset(100, at_id=FIRST + 50), IdReset(95)], [*range(95, 145), *range(100, 2000)]),
        ([Freeze(0.2, at_id=FIRST + 100)], NEXT),
        ([Freeze(0.2, pings=True, at_id=FIRST + 100)], NEXT),
        ([HalfOpen(0.2, at_id=FIRST + 50)], NEXT),
    ],
    ids=["skip", "hole", "duplicates", "reset", "two resets", "freeze", "freeze with pings", "half open"],
)
def test_ids_on_the_stream(faults: list[Fault], expected: list[int]) -> None:
    with exchange_with(*faults) as exchange, connected(exchange) as client:
        messages = read(client, 1900)
    assert [one["t"] for one in messages] == list(expected)[:1900]
    assert all(earlier["T"] <= later["T"] for earlier, later in pairwise(messages))


def test_rest_has_skipped_ids_but_no_hole_and_nothing_before_a_reset() -> None:
    faults = [Skip(5, at_id=FIRST + 10), Hole(5, at_id=FIRST + 20)]
    with exchange_with(*faults) as exchange, connected(exchange) as client:
        ids(client, 1300)
        # A page is full all the same: a client takes fewer rows than it asked for as the end.
        page = rest_ids(exchange, fromId=FIRST, limit=1000)
        assert page == [*NEXT[:20], *NEXT[25:1005]]
        market = exchange.markets[0]
        assert market.holes == list(NEXT[20:25])
        with pytest.raises(ValueError, match="already been issued"):
            exchange.inflict(Hole(5, at_id=FIRST + 30))
        exchange.inflict(IdReset(7))
        wait_for(lambda: len(rest_ids(exchange, fromId=0, limit=50)) == 50, "trades after the reset")
        assert rest_ids(exchange, fromId=0, limit=50) == list(range(7, 57))
        assert get(exchange, "aggTrades", symbol="BTCUSDT", fromId=0, limit=1).json()[0]["f"] == 7
        assert [one.first_id for one in market.sequences] == [FIRST, 7]


@pytest.mark.parametrize(("query", "later"), [("", 1500), ("?timeUnit=MICROSECOND", 1_500_000)])
def test_a_duplicate_may_have_a_later_time(query: str, later: int) -> None:
    with exchange_with(Duplicate(1, later=1.5, at_id=FIRST)) as exchange, connected(exchange, TARGET + query) as client:
        first, second = read(client, 2)
    assert second == first | {"T": first["T"] + later}


def test_trades_are_shuffled_within_windows() -> None:
    def shuffled(seed: int) -> list[int]:
        fault = Shuffle(100, window=10, seed=seed, at_id=FIRST + 5)
        with exchange_with(fault) as exchange, connected(exchange) as client:
            return ids(client, 200)

    seen = shuffled(1)
    for begin in range(5, 105, 10):
        window = seen[begin : begin + 10]
        assert sorted(window) == list(NEXT[begin : begin + 10]) != window
    assert seen[:5] + seen[105:] == [*NEXT[:5], *NEXT[105:200]]
    assert shuffled(1) == seen != shuffled(2)


def test_a_new_connection_starts_with_a_replay() -> None:
    with exchange_with(Replay(50, connection=2)) as exchange, connected(exchange) as first:
        ids(first, 300)
        with connected(exchange) as second, connected(exchange) as third:
            replayed = ids(second, 100)
            assert replayed == list(range(replayed[0], replayed[0] + 100))
            assert ids(third, 1)[0] > replayed[49]


IS_OF_KIND: dict[str, Callable[[Any], bool]] = {
    "json": lambda frame: frame is None,
    "types": lambda frame: (frame["e"], frame["s"]) == ("trade", "BTCUSDT"),
    "symbol": lambda frame: frame["e"] == "trade" and frame["s"] != "BTCUSDT",
    "event": lambda frame: frame["e"] != "trade",
    "ack": lambda frame: list(frame) == ["result", "id"],
    "error": lambda frame: "code" in frame or "error" in frame,
}


@pytest.mark.parametrize("target", [TARGET, COMBINED])
def test_malformed_frames_of_all_kinds_precede_good_ones(target: str) -> None:
    def decoded(payload: bytes) -> Any:
        with contextlib.suppress(ValueError):
            message = json.loads(payload)
            return message.get("data", message)

    with (
        exchange_with(Malformed(78, at_id=FIRST + 10), Cut(after=88)) as exchange,
        raw_socket(exchange, target) as sock,
    ):
        payloads = [decoded(payload) for _, payload in frames(received(sock))[0]]
    assert [one["t"] for one in payloads[:10] + payloads[11::2]] == list(NEXT[:88])
    for number, malformed in enumerate(payloads[10::2]):
        assert IS_OF_KIND[MALFORMED[number % 6]](malformed), malformed


# Connections.


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        *((Cut(code, at_id=FIRST + 60), code) for code in (1000, 1001, 1008, 1011)),
        (Cut(after=60), 1006),
        (Cut(reset=True, after=60), 0),
        (Cut(within_frame=True, at_id=FIRST + 60), 1006),
        (ServerShutdown(after=60, code=1012), 1012),
    ],
    ids=str,
)
def test_a_cut_ends_the_connection_at_its_trade(fault: Fault, code: int) -> None:
    with exchange_with(fault) as exchange:
        with connected(exchange) as client:
            assert ids_to_the_end(client) == (list(NEXT[:60]), code)
        with connected(exchange) as another:
            assert ids(another, 1)[0] >= FIRST + 60


@pytest.mark.parametrize(
    ("fault", "half"), [(Cut(after=50), False), (Cut(within_frame=True, after=50), True), (HalfOpen(after=50), True)]
)
def test_half_a_frame(fault: Fault, half: bool) -> None:
    with exchange_with(fault) as exchange, raw_socket(exchange) as sock:
        sock.settimeout(1.0)
        whole, rest = frames(received(sock))
    assert [json.loads(payload)["t"] for _, payload in whole] == list(NEXT[:50])
    assert rest.startswith(b"\x81\x7e") == (len(rest) > 20) == half


def test_a_frozen_connection_is_open_and_silent() -> None:
    with exchange_with(ping_interval=0.05, pong_timeout=0.2) as exchange:
        with connected(exchange) as client:
            ids(client, 100)
            exchange.inflict(Freeze())
            client.send_close()
            client.settimeout(0.5)
            opcodes: set[int] = set()
            with pytest.raises(WebSocketTimeoutException):
                opcodes.update(next_frame(client).opcode for _ in range(100_000))
            assert ABNF.OPCODE_CLOSE not in opcodes
            assert exchange.clients == 1
        wait_for(lambda: exchange.clients == 0, "the exchange to see that the client has gone")


def test_a_frozen_stream_still_pings() -> None:
    with (
        exchange_with(ping_interval=0.03, limits=Limits(client_frames=None)) as exchange,
        connected(exchange) as client,
    ):
        ids(client, 100)
        exchange.inflict(Freeze(pings=True))
        opcodes: list[int] = []
        while opcodes[-10:] != [ABNF.OPCODE_PING] * 10:
            opcodes.append(next_frame(client).opcode)
            assert len(opcodes) < 100_000


@pytest.mark.parametrize("target", [TARGET, COMBINED])
def test_a_shutdown_is_announced_before_it_happens(target: str) -> None:
    with exchange_with(ServerShutdown(0.3, at_id=FIRST + 50)) as exchange, connected(exchange, target) as client:
        read(client, 50)
        event = json.loads(client.recv())
        if target == COMBINED:
            assert event.pop("stream") == "!serverShutdown"
            event = event["data"]
        assert abs(event.pop("E") / 1000 - time.time()) < 60
        assert event == {"e": "serverShutdown"}
        with connected(exchange) as successor:
            assert ids_to_the_end(client)[1] == 1001
            assert len(ids(successor, 100)) == 100
        assert exchange.counters.most_open == 2


def test_a_huge_frame_is_sent_and_the_exchange_still_listens() -> None:
    with exchange_with(HugeFrame(at_id=FIRST + 10)) as exchange, connected(exchange) as client:
        assert len(ids(client, 10)) == 10
        client.ping("hello")
        huge = client.recv()
        assert len(huge) == 64 * 1024 * 1024
        assert json.loads(huge)["e"] == "trade"
        assert any((frame := next_frame(client)).opcode == ABNF.OPCODE_PONG for _ in range(1000))
        assert frame.data == b"hello"


@pytest.mark.parametrize("size", [1, 65536])
def test_a_message_of_endless_fragments(size: int) -> None:
    with exchange_with(Fragments(size, after=0)) as exchange, raw_socket(exchange) as sock:
        (first, *others), _ = frames(received(sock, 1_000_000))
    assert (first[0], len(first[1])) == (0x01, 24)
    assert {(start, len(payload)) for start, payload in others} == {(0x00, size)}


def test_faults_of_one_connection_and_at_a_time() -> None:
    scenario = [Cut(1008, connection=2, after=20), Cut(1001, connection=3, at=0.2)]
    with exchange_with(*scenario) as exchange, connected(exchange) as first:
        for code in (1008, 1001):
            with connected(exchange) as client:
                found, end = ids_to_the_end(client)
                assert found == list(range(found[0], found[0] + len(found)))
                assert (end, code == 1001 or len(found) == 20) == (code, True)
        assert ids(first, 200) == list(NEXT[:200])
        assert [fault for _, fault in exchange.struck] == scenario
        exchange.inflict(Cut(1011))
        assert ids_to_the_end(first)[1] == 1011


def test_a_fault_may_affect_each_new_connection_until_a_time() -> None:
    faults = [
        Cut(1008, connection=2, each=True, after=20, until=3.0),
        Skip(5, connection=1, each=True, after=10, until=3.0),
    ]
    with exchange_with(*faults) as exchange, connected(exchange) as first:
        assert ids(first, 12) == [*NEXT[:10], *NEXT[15:17]]
        for _ in range(2):
            with connected(exchange) as client:
                found, code = ids_to_the_end(client)
                assert ([one - found[0] for one in found], code) == ([*range(10), *range(15, 20)], 1008)
        wait_for(lambda: time.monotonic() > exchange.counters.sessions[0].opened + 3.0, "the time to pass")
        with connected(exchange) as last:
            found = ids(last, 200)
            assert found == list(range(found[0], found[0] + 200))


def test_delayed_trades_arrive_late_and_in_order() -> None:
    with exchange_with(Delay(0.2, p99=0.3, connection=2)) as exchange, connected(exchange) as prompt:
        with connected(exchange) as late:
            found = ids(late, 500)
            behind = exchange.markets[0].position(found[-1])
        assert found == list(range(found[0], found[0] + 500))
        assert exchange.markets[0].issued - behind > 100, "at 2,000 trades/s"
        assert ids(prompt, 500) == list(NEXT[:500])


def test_delayed_trades_may_be_overtaken() -> None:
    with exchange_with(Delay(0.1, share=10, overtaking=True, connection=1)) as exchange, connected(exchange) as client:
        found = ids(client, 2000)
    late = sum(trade_id < highest for trade_id, highest in zip(found, accumulate(found, max), strict=True))
    assert 0 < late < 300, "200, unless the exchange stalls for longer than the delay"
    assert len(set(found)) == len(found)


# Handshakes.


@pytest.mark.parametrize(
    ("fault", "header", "value"),
    [
        (HandshakeStatus(403, times=2), "retry-after", None),
        (HandshakeStatus(429, retry_after=7, times=2), "retry-after", "7"),
        (HandshakeStatus(418, retry_after="9" * 5000, times=2), "retry-after", "9" * 5000),
        (HandshakeStatus(302, times=2), "location", "/moved"),
    ],
    ids=["403", "429", "418", "302"],
)
def test_a_handshake_is_rejected(fault: HandshakeStatus, header: str, value: str | None) -> None:
    with exchange_with(fault) as exchange:
        for _ in range(2):
            with socket.create_connection((exchange.host, exchange.port), timeout=10) as sock:
                upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                sock.sendall(
                    f"GET {TARGET} HTTP/1.1\r\nHost: a\r\n{upgrade}Sec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode()
                )
                status, _, head = received(sock).decode("latin-1").partition("\r\n")
            found = re.search(f"^{header}: (.*)\r$", head, re.MULTILINE | re.IGNORECASE)
            assert status.split()[1] == str(fault.status)
            assert (found and found[1].removeprefix(exchange.rest_url)) == value
        with connected(exchange):
            assert [one.status for one in exchange.counters.attempts] == [fault.status, fault.status, 101]


def test_a_handshake_is_not_answered() -> None:
    with exchange_with(HandshakeSilence(connection=2)) as exchange, connected(exchange):
        with pytest.raises(WebSocketTimeoutException), connected(exchange, timeout=0.2):
            pass
        with connected(exchange):
            assert [one.status for one in exchange.counters.attempts] == [101, None, 101]


# REST.


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        *((RestStatus(status, times=2), status, code) for status, code in ((451, 0), (500, -1007), (503, -1008))),
        *((RestStatus(status, retry_after="soon", times=2), status, -1003) for status in (429, 418)),
        (RestStatus(502, times=2), 502, None),
    ],
    ids=str,
)
def test_rest_answers_with_a_status(fault: RestStatus, status: int, code: int | None) -> None:
    with exchange_with(fault) as exchange:
        for _ in range(2):
            answer = get(exchange)
            assert answer.status == status
            assert answer.headers.get("Retry-After") == fault.retry_after
            # A gateway in front of the exchange does not answer in JSON.
            assert answer.data.startswith(b"<html>") if code is None else answer.json()["code"] == code
        assert get(exchange).status == 200
        assert exchange.counters.answers == {("/api/v3/time", status): 2, ("/api/v3/time", 200): 1}


def test_which_rest_requests_a_fault_affects() -> None:
    for faults, statuses in (
        ([RestStatus(500), RestStatus(429, times=2)], [500, 429, 429, 200]),
        ([RestStatus(503, every=3, times=2, path="time")], [200, 200, 503, 200, 200, 503, 200, 200, 200]),
        ([RestStatus(503, path="trades")], [200, 200]),
    ):
        with exchange_with(*faults) as exchange:
            assert [get(exchange).status for _ in statuses] == statuses
    with exchange_with(RestStatus(503, lasting=0.3)) as exchange:
        assert get(exchange).status == 503
        wait_for(lambda: get(exchange).status == 200, "the fault to end")


@pytest.mark.parametrize(
    ("fault", "error", "timeout"),
    [(RestSilence(), ReadTimeoutError, 0.3), (RestCut(), ProtocolError, 30), (RestTruncated(), HTTPError, 30)],
    ids=str,
)
def test_rest_does_not_answer_in_full(fault: Fault, error: type[Exception], timeout: float) -> None:
    with exchange_with(fault) as exchange:
        with pytest.raises(error):
            get(exchange, timeout=timeout)
        assert get(exchange).status == 200


@pytest.mark.parametrize(("body", "first"), [(False, b"H"), (True, b"HTTP/1.1 200 OK\r\n")])
def test_rest_answers_byte_by_byte(body: bool, first: bytes) -> None:
    with exchange_with(RestDrip(0.001, body=body), RestDrip(0.05)) as exchange:
        for heal in (False, True):
            with socket.create_connection((exchange.host, exchange.port), timeout=10) as sock:
                sock.sendall(b"GET /api/v3/time HTTP/1.1\r\nHost: test\r\n\r\n")
                pieces = [sock.recv(65536)]
                if heal:
                    exchange.heal()
                while pieces[-1] and not pieces[-1].endswith(b"}"):
                    pieces.append(sock.recv(65536))
            if heal:
                assert pieces[-1] == b"", "the answer is cut off"
            else:
                assert pieces[0].startswith(first)
                assert len(pieces) > 5
                assert json.loads(b"".join(pieces).split(b"\r\n\r\n")[1])["serverTime"]
        assert get(exchange).status == 200


def test_rest_answers_with_other_rows() -> None:
    with exchange_with(RestOtherRows(7, path="historicalTrades")) as exchange, connected(exchange) as client:
        ids(client, 100)
        assert [rest_ids(exchange, fromId=FIRST, limit=3) for _ in range(2)] == [[7, 8, 9], list(NEXT[:3])]


def test_rest_lags_behind_the_stream() -> None:
    with exchange_with(RestLag(100, lasting=0.5)) as exchange, connected(exchange) as client:
        newest = ids(client, 100)[-1]
        assert rest_ids(exchange, fromId=newest) == []
        assert get(exchange, "aggTrades", symbol="BTCUSDT").json() == []
        assert rest_ids(exchange, "trades")[-1] >= newest
        wait_for(lambda: rest_ids(exchange, fromId=newest), "the lag to end")


# All of them.


BOTH = "/stream?streams=btcusdt@trade/ethusdt@trade"


def two_markets(*faults: Fault) -> Exchange:
    markets = [Market.generated(one, rate=500, start="subscriber") for one in ("BTCUSDT", "ETHUSDT")]
    return Exchange(markets, faults=faults)


def test_a_fault_may_affect_one_market_of_several() -> None:
    faults = [Skip(5, at_id=FIRST + 20, symbol="ETHUSDT"), Cut(1008, at_id=FIRST + 300, symbol="ETHUSDT")]
    with two_markets(*faults) as exchange, connected(exchange, BOTH) as client:
        frames: list[dict[str, Any]] = []
        with contextlib.suppress(WebSocketException, ValueError):
            while len(frames) < 2000:
                frames.append(json.loads(client.recv())["data"])
        found = {name: [one["t"] for one in frames if one["s"] == name] for name in ("BTCUSDT", "ETHUSDT")}
        assert found["BTCUSDT"] == list(range(FIRST, FIRST + len(found["BTCUSDT"])))
        assert found["ETHUSDT"] == [*range(FIRST, FIRST + 20), *range(FIRST + 25, FIRST + 300)]


def test_one_stream_of_several_falls_silent() -> None:
    with two_markets() as exchange, connected(exchange, BOTH) as client:
        read(client, 50)
        exchange.inflict(Silent(symbol="ETHUSDT", lasting=1.0))
        read(client, 200)
        assert {one["s"] for one in read(client, 100)} == {"BTCUSDT"}
        wait_for(lambda: "ETHUSDT" in {one["s"] for one in read(client, 100)}, "trades after the silence")


def test_a_market_is_listed_and_delisted() -> None:
    with two_markets(List(symbol="NEWUSDT", rate=500)) as exchange:
        assert [market.symbol for market in exchange.markets] == ["BTCUSDT", "ETHUSDT", "NEWUSDT"]
        new = exchange.markets[2]
        with connected(exchange, "/ws/newusdt@trade") as client:
            found = ids(client, 100)
            assert found == list(range(found[0], found[0] + 100))
            assert new.first_id == 0
            exchange.inflict(Delist(symbol="NEWUSDT"), Delist(symbol="ETHUSDT", status="BREAK"))
            issued = new.issued
            client.settimeout(0.3)
            with pytest.raises(WebSocketTimeoutException):
                ids(client, 10**6)
            assert new.issued == issued
        with HTTPConnectionPool(exchange.host, exchange.port) as pool:
            info = pool.request("GET", "/api/v3/exchangeInfo").json()["symbols"]
            assert [(one["symbol"], one["status"]) for one in info] == [("BTCUSDT", "TRADING"), ("ETHUSDT", "BREAK")]
            assert pool.request("GET", "/api/v3/trades?symbol=NEWUSDT").json()["code"] == -1121
        with pytest.raises(ValueError, match="has ETHUSDT already"):
            exchange.inflict(List(symbol="ETHUSDT"))


def test_heal_ends_all_faults_and_sends_what_was_held_back() -> None:
    held = [
        Delay(3600, at_id=FIRST + 10),
        Freeze(3600, at_id=FIRST + 10),
        Shuffle(10**6, window=10**6, at_id=FIRST + 10),
    ]
    with exchange_with(*held, HandshakeStatus(403, at=3600)) as exchange, connected(exchange) as client:
        assert len(ids(client, 10)) == 10
        for fault in (Freeze(connection=2), HalfOpen(connection=3), Fragments(connection=4)):
            exchange.inflict(fault)
            with connected(exchange):
                wait_for(lambda: exchange.struck[-1][1] == fault, "the fault")  # noqa: B023
        exchange.inflict(HandshakeStatus(403, lasting=3600), Cut(at=3600))
        exchange.heal()
        assert ids(client, 1000) == list(NEXT[10:1010])
        with connected(exchange) as sound:
            found = ids(sound, 500)
            assert found == list(range(found[0], found[0] + 500))


def test_the_exchange_survives_all_kinds_at_once() -> None:
    everything = Random(seed=1, every=0.02, kinds=tuple(DRAWN))
    with exchange_with(everything, limits=Limits(connection_attempts=None)) as exchange:

        def enough() -> bool:
            # Whatever happens to the client: the exchange raises an error of its own when it is stopped.
            with contextlib.suppress(OSError, ValueError, WebSocketException), connected(exchange) as client:
                client.settimeout(0.05)
                for _ in range(50):
                    client.recv()
            return len(exchange.struck) > 80

        wait_for(enough, "many faults")
        struck = [fault for _, fault in exchange.struck]
        assert struck == [everything, *(fault for _, fault in islice(everything.plan(), len(struck) - 1))]
        exchange.heal()
        with connected(exchange) as client:
            found = ids(client, 500)
        assert found == list(range(found[0], found[0] + 500))


def test_counters_tell_what_clients_did() -> None:
    with exchange_with() as exchange:
        for _ in range(5):
            get(exchange)
        with connected(exchange), connected(exchange), connected(exchange):
            pass
        counters = exchange.counters
        wait_for(lambda: len([one for one in counters.sessions if one.closed]) == 3, "all to be closed")
        with connected(exchange):
            wait_for(lambda: [one.number for one in counters.sessions] == [1, 2, 3, 4], "the fourth session")
            assert counters.sessions[-1].closed is None
        assert [request.path for request in counters.history] == ["/api/v3/time"] * 5
        assert (counters.most_requests(60), counters.most_requests(1e-9)) == (5, 1)
        assert (counters.most_open, counters.most_attempts(60)) == (3, 4)
