"""The faults of the sandbox's streams, seen by clients that are not the library they are served with."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import accumulate, pairwise
from typing import Any

import pytest
from urllib3 import HTTPConnectionPool
from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketTimeoutException,
    create_connection,
)

from loader_ws_trades.sandbox import (
    Cut,
    Delay,
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
    Malformed,
    Market,
    Replay,
    ServerShutdown,
    Shuffle,
    Skip,
)
from loader_ws_trades.sandbox.faults.malformed import KINDS as MALFORMED
from tests.integration.test_sandbox_exchange import next_frame, raw_client, read_until_closed
from tests.tools.waiting import wait_for

FIRST = 1_000_000
PATH = "/ws/btcusdt@trade"
UNHURRIED = Limits(client_frames=None)


@contextmanager
def connected(exchange: Exchange, url: str | None = None) -> Iterator[WebSocket]:
    client: WebSocket = create_connection(
        url or f"{exchange.ws_url}/btcusdt@trade", timeout=10, skip_utf8_validation=True
    )
    try:
        yield client
    finally:
        client.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def exchange_with(*faults: Fault, rate: float = 2000, **options: Any) -> Iterator[Exchange]:
    """An exchange whose only market waits for its first subscriber, so that ids are known beforehand."""
    with Exchange([Market.generated(rate=rate, start="subscriber")], faults=faults, **options) as exchange:
        yield exchange


def ids(client: WebSocket, count: int) -> list[int]:
    return [json.loads(client.recv())["t"] for _ in range(count)]


def ids_to_the_end(client: WebSocket) -> list[int]:
    """Read until the connection ends, however it does."""
    found = []
    for _ in range(1_000_000):
        try:
            frame = next_frame(client)
        except (WebSocketConnectionClosedException, ConnectionResetError):
            break
        if frame.opcode == ABNF.OPCODE_CLOSE:
            break
        if frame.opcode == ABNF.OPCODE_TEXT:
            found.append(json.loads(frame.data).get("t"))
    return [one for one in found if one is not None]


def rows(exchange: Exchange, path: str, **parameters: object) -> list[dict[str, Any]]:
    with HTTPConnectionPool(exchange.host, exchange.port) as pool:
        fields = {"symbol": "BTCUSDT"} | {name: str(value) for name, value in parameters.items()}
        answer = pool.request("GET", f"/api/v3/{path}", fields=fields, retries=False, timeout=10)
        assert answer.status == 200, answer.data
        found: list[dict[str, Any]] = answer.json()
        return found


def is_silent(client: WebSocket, seconds: float = 0.2) -> bool:
    client.settimeout(seconds)
    try:
        next_frame(client)
    except WebSocketTimeoutException:
        return True
    else:
        return False
    finally:
        client.settimeout(10)


def bytes_to_the_end(sock: socket.socket) -> tuple[bytes, OSError | None]:
    """Read until the connection ends or nothing more comes in time; what came, and why it ended otherwise."""
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except OSError as error:
        return found, error
    return found, None


def payloads(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut bytes into the payloads of whole frames, and what is left."""
    found = []
    while len(data) >= 4:
        length, begin = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4], "big"), 4)
        if len(data) < begin + length:
            break
        found.append(data[begin : begin + length])
        data = data[begin + length :]
    return found, data


# Cuts.


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011])
def test_a_connection_is_closed_with_a_code_before_a_trade(code: int) -> None:
    with exchange_with(Cut(code, at_id=FIRST + 300)) as exchange, connected(exchange) as client:
        assert ids(client, 300)[-1] == FIRST + 299
        assert read_until_closed(client) == code
        with connected(exchange) as another:
            assert ids(another, 10)[0] > FIRST + 299


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_ends_without_a_close_frame(reset: bool) -> None:
    with exchange_with(Cut(reset=reset, after=100)) as exchange, closing(raw_client(exchange, PATH)) as sock:
        found, error = bytes_to_the_end(sock)
        assert isinstance(error, ConnectionResetError) == reset
        whole, rest = payloads(found)
        assert [json.loads(one)["t"] for one in whole] == list(range(FIRST, FIRST + 100))
        assert rest == b""


def test_a_connection_ends_in_the_middle_of_a_frame() -> None:
    with (
        exchange_with(Cut(within_frame=True, at_id=FIRST + 50)) as exchange,
        closing(raw_client(exchange, PATH)) as sock,
    ):
        found, error = bytes_to_the_end(sock)
        assert error is None
        whole, rest = payloads(found)
        assert [json.loads(one)["t"] for one in whole] == list(range(FIRST, FIRST + 50))
        assert rest.startswith(b"\x81\x7e")
        assert len(rest) > 20


def test_a_fault_may_concern_one_connection_alone() -> None:
    with exchange_with(Cut(1008, connection=2, after=20)) as exchange:
        with connected(exchange) as first, connected(exchange) as second:
            found = ids_to_the_end(second)
            assert found == list(range(found[0], found[0] + 20))
            assert ids(first, 200) == list(range(FIRST, FIRST + 200))
        with connected(exchange) as third:
            assert len(ids(third, 200)) == 200


def test_a_fault_may_concern_each_new_connection_until_a_time() -> None:
    with exchange_with(Cut(1008, connection=2, each=True, after=20, until=1.0)) as exchange:
        with connected(exchange) as first:
            for _ in range(3):
                with connected(exchange) as client:
                    assert len(ids_to_the_end(client)) == 20
            assert len(ids(first, 200)) == 200
        wait_for(lambda: time.monotonic() > exchange.counters.sessions[0].opened + 1.0, "the time to pass")
        with connected(exchange) as last:
            assert len(ids(last, 200)) == 200


def test_a_connection_may_lose_what_another_brings() -> None:
    with exchange_with(Skip(5, connection=1, each=True, after=10)) as exchange:
        with connected(exchange) as client:
            assert ids(client, 12) == [*range(FIRST, FIRST + 10), FIRST + 15, FIRST + 16]
        with connected(exchange) as client:
            found = ids(client, 12)
            assert [one - found[0] for one in found] == [*range(10), 15, 16]


def test_a_fault_strikes_at_its_time() -> None:
    with exchange_with(Cut(1001, at=0.3), Cut(1008, connection=2, at=0.2)) as exchange:
        with connected(exchange) as client:
            assert read_until_closed(client) == 1001
        with connected(exchange) as client:
            assert read_until_closed(client) == 1008
        assert [fault for _, fault in exchange.struck] == [Cut(1001, at=0.3), Cut(1008, connection=2, at=0.2)]
        assert 0.3 <= exchange.struck[0][0] <= exchange.struck[1][0]


def test_a_fault_can_be_inflicted_by_hand() -> None:
    with exchange_with() as exchange, connected(exchange) as client:
        ids(client, 10)
        exchange.inflict(Cut(1011))
        assert read_until_closed(client) == 1011
    with pytest.raises(RuntimeError, match="stopped"):
        exchange.inflict(Cut())


def test_what_falls_due_while_the_exchange_is_stopped_strikes_at_the_next_start() -> None:
    exchange = Exchange([Market.generated(rate=2000)], faults=[HandshakeStatus(503, at=0.1)])
    exchange.start()
    exchange.stop()
    began = time.monotonic()
    wait_for(lambda: time.monotonic() > began + 0.2, "the moment to pass")
    with exchange, pytest.raises(WebSocketBadStatusException), connected(exchange):
        pass


# Delays.


def test_trades_arrive_late_and_in_order() -> None:
    with exchange_with(Delay(0.2, p99=0.3, connection=2)) as exchange, connected(exchange) as prompt:
        with connected(exchange) as late:
            found = ids(late, 500)
            behind = exchange.markets[0].position(found[-1])
        assert found == list(range(found[0], found[0] + 500))
        assert exchange.markets[0].issued - behind > 100, "at 2,000 trades/s"
        assert ids(prompt, 500) == list(range(FIRST, FIRST + 500))


def test_some_trades_arrive_late_and_others_pass_them() -> None:
    with exchange_with(Delay(0.1, share=10, overtaking=True, connection=1)) as exchange, connected(exchange) as client:
        found = ids(client, 2000)
    late = sum(trade_id < highest for trade_id, highest in zip(found, accumulate(found, max), strict=True))
    assert 100 < late < 300
    assert len(set(found)) == len(found)


def test_healing_sends_what_was_late() -> None:
    with exchange_with(Delay(30.0, connection=1)) as exchange, connected(exchange) as client:
        assert is_silent(client)
        exchange.heal()
        assert ids(client, 500) == list(range(FIRST, FIRST + 500))


# Silence.


def test_half_a_frame_and_then_nothing() -> None:
    with exchange_with(HalfOpen(at_id=FIRST + 50), ping_interval=0.05) as exchange:
        with closing(raw_client(exchange, PATH)) as sock, connected(exchange) as other:
            assert ids(other, 40)
            sock.settimeout(0.3)
            found, error = bytes_to_the_end(sock)
            assert isinstance(error, TimeoutError)
            whole, rest = payloads(found)
            texts = [json.loads(one) for one in whole if one.startswith(b"{")]
            assert [one["t"] for one in texts] == list(range(FIRST, FIRST + 50))
            assert len(rest) > 20
            assert exchange.clients == 2
        with connected(exchange) as sound:
            assert len(ids(sound, 100)) == 100


def test_the_other_half_may_come_after_all() -> None:
    with exchange_with(HalfOpen(0.2, at_id=FIRST + 50)) as exchange, connected(exchange) as client:
        assert ids(client, 2000) == list(range(FIRST, FIRST + 2000))


def test_nothing_comes_not_even_pings_or_the_answer_to_a_close_frame() -> None:
    with exchange_with(ping_interval=0.05, pong_timeout=0.2) as exchange, connected(exchange) as client:
        ids(client, 100)
        exchange.inflict(Freeze())
        client.send_close()
        client.settimeout(0.5)
        opcodes: set[int] = set()
        with pytest.raises(WebSocketTimeoutException):
            opcodes.update(next_frame(client).opcode for _ in range(100_000))
        assert ABNF.OPCODE_CLOSE not in opcodes
        assert exchange.clients == 1
        client.shutdown()  # type: ignore[no-untyped-call]
        wait_for(lambda: exchange.clients == 0, "the exchange to see that the client has gone")


def test_trades_stop_and_pings_go_on() -> None:
    with exchange_with(ping_interval=0.03, limits=UNHURRIED) as exchange, connected(exchange) as client:
        ids(client, 100)
        exchange.inflict(Freeze(pings=True))
        opcodes: list[int] = []
        for _ in range(100_000):
            opcodes.append(next_frame(client).opcode)
            if opcodes[-10:] == [ABNF.OPCODE_PING] * 10:
                break
        assert opcodes[-10:] == [ABNF.OPCODE_PING] * 10


@pytest.mark.parametrize("pings", [False, True])
@pytest.mark.parametrize("lasting", [0.2, 3600])
def test_what_a_passing_silence_kept_back_comes_after_it(lasting: float, pings: bool) -> None:
    freeze = Freeze(lasting, pings=pings, at_id=FIRST + 100)
    with exchange_with(freeze) as exchange, connected(exchange) as client:
        assert ids(client, 100) == list(range(FIRST, FIRST + 100))
        if lasting > 1:
            assert is_silent(client)
            exchange.heal()
        assert ids(client, 1000) == list(range(FIRST + 100, FIRST + 1100))


# Trades.


def test_skipped_ids_are_not_on_the_stream_but_in_rest() -> None:
    with exchange_with(Skip(5, at_id=FIRST + 20)) as exchange, connected(exchange) as one, connected(exchange) as other:
        wanted = [number for number in range(FIRST, FIRST + 100) if not FIRST + 20 <= number < FIRST + 25]
        assert ids(one, 95) == wanted
        later = ids(other, 50)
        assert later == [number for number in range(later[0], later[-1] + 1) if number in set(wanted) | set(later)]
        assert [row["id"] for row in rows(exchange, "historicalTrades", fromId=FIRST + 18, limit=9)] == list(
            range(FIRST + 18, FIRST + 27)
        )
        assert exchange.markets[0].holes == []


def test_a_hole_is_nowhere() -> None:
    hole = range(FIRST + 20, FIRST + 25)
    with exchange_with(Hole(5, at_id=FIRST + 20)) as exchange, connected(exchange) as client:
        wanted = [number for number in range(FIRST, FIRST + 1500) if number not in hole]
        assert ids(client, len(wanted)) == wanted
        # A page is full all the same: who asks for 1000 rows and gets fewer takes it for the end.
        page = [row["id"] for row in rows(exchange, "historicalTrades", fromId=FIRST + 10, limit=1000)]
        assert page == wanted[10:1010]
        assert [row["id"] for row in rows(exchange, "historicalTrades", fromId=FIRST + 22, limit=1)] == [FIRST + 25]
        market = exchange.markets[0]
        assert market.holes == list(hole)
        assert market.ids(0, 30) == wanted[:25]
        with pytest.raises(ValueError, match="issued already"):
            exchange.inflict(Hole(5, at_id=FIRST + 30))


def test_a_hole_may_be_made_now() -> None:
    with exchange_with() as exchange, connected(exchange) as client:
        before = ids(client, 100)
        exchange.inflict(Hole(3))
        seen = before + ids(client, 2000)
        missing = sorted(set(range(FIRST, seen[-1] + 1)) - set(seen))
        assert missing == exchange.markets[0].holes
        assert len(missing) == 3


def test_trades_come_twice() -> None:
    with exchange_with(Duplicate(3, at_id=FIRST + 2)) as exchange, connected(exchange) as client:
        assert [one - FIRST for one in ids(client, 10)] == [0, 1, 2, 2, 3, 3, 4, 4, 5, 6]


@pytest.mark.parametrize(("query", "later"), [("", 1500), ("?timeUnit=MICROSECOND", 1_500_000)])
def test_the_second_of_two_may_be_dated_later(query: str, later: int) -> None:
    with (
        exchange_with(Duplicate(1, later=1.5, at_id=FIRST + 1)) as exchange,
        connected(exchange, f"{exchange.ws_url}/btcusdt@trade{query}") as client,
    ):
        _, first, second, _ = (json.loads(client.recv()) for _ in range(4))
    assert second == first | {"T": first["T"] + later}


def test_trades_come_out_of_order_within_windows() -> None:
    def shuffled(seed: int) -> list[int]:
        fault = Shuffle(100, window=10, seed=seed, at_id=FIRST + 5)
        with exchange_with(fault) as exchange, connected(exchange) as client:
            return ids(client, 200)

    seen = shuffled(1)
    assert sorted(seen) == list(range(FIRST, FIRST + 200))
    windows = [seen[start : start + 10] for start in range(5, 105, 10)]
    for number, window in enumerate(windows):
        begin = FIRST + 5 + 10 * number
        assert sorted(window) == list(range(begin, begin + 10))
        assert window != sorted(window)
    assert seen[105:] == list(range(FIRST + 105, FIRST + 200))
    assert shuffled(1) == seen
    assert shuffled(2) != seen


def test_a_new_connection_begins_with_a_replay() -> None:
    with exchange_with(Replay(50, connection=2)) as exchange:
        with connected(exchange) as first:
            before = ids(first, 300)
            with connected(exchange) as second:
                replayed = ids(second, 100)
            with connected(exchange) as third:
                assert ids(third, 1)[0] > replayed[50]
            before += ids(first, 300)
        assert replayed == list(range(replayed[0], replayed[0] + 100))
        assert before == list(range(FIRST, FIRST + 600))


IS_OF_KIND: dict[str, Callable[[Any], bool]] = {
    "json": lambda frame: frame is None,
    "types": lambda frame: (frame["e"], frame["s"]) == ("trade", "BTCUSDT"),
    "symbol": lambda frame: frame["e"] == "trade" and frame["s"] != "BTCUSDT",
    "event": lambda frame: frame["e"] != "trade",
    "ack": lambda frame: list(frame) == ["result", "id"],
    "error": lambda frame: "code" in frame or "error" in frame,
}


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("target", [PATH, "/stream?streams=btcusdt@trade"])
def test_malformed_frames_come_between_good_ones(kind: str, target: str) -> None:
    malformed, cut = Malformed(20, what=(kind,), at_id=FIRST + 10), Cut(after=50)
    with exchange_with(malformed, cut) as exchange, closing(raw_client(exchange, target)) as sock:
        whole, _ = payloads(bytes_to_the_end(sock)[0])
    good = [*whole[:10], *whole[11:51:2], *whole[50:]]
    assert [unwrapped(one)["t"] for one in good] == list(range(FIRST, FIRST + 50))
    assert all(IS_OF_KIND[kind](unwrapped(one)) for one in whole[10:50:2])


def unwrapped(payload: bytes) -> Any:
    try:
        frame = json.loads(payload)
    except ValueError:
        return None
    return frame.get("data", frame)


def test_malformed_frames_are_of_all_kinds_in_turn() -> None:
    with exchange_with(Malformed(12, after=0), Malformed(12, after=0), Duplicate(12, after=0)) as exchange:
        exchange.inflict(Cut(after=12))
        with closing(raw_client(exchange, PATH)) as sock:
            whole, _ = payloads(bytes_to_the_end(sock)[0])
    assert len(whole) == 12 * 4
    for number, kind in enumerate(MALFORMED):
        assert IS_OF_KIND[kind](unwrapped(whole[4 * number]))


def test_a_huge_frame() -> None:
    with exchange_with(HugeFrame(at_id=FIRST + 10)) as exchange, connected(exchange) as client:
        assert len(ids(client, 10)) == 10
        huge = client.recv()
        assert len(huge) == 64 * 1024 * 1024
        assert json.loads(huge)["e"] == "trade"
        assert ids(client, 100) == list(range(FIRST + 10, FIRST + 110))


def test_who_sends_a_huge_frame_still_listens() -> None:
    limits = Limits(client_frames=None)
    with exchange_with(ping_interval=0.05, pong_timeout=0.5, limits=limits) as exchange, connected(exchange) as client:
        ids(client, 10)
        exchange.inflict(HugeFrame())
        client.ping("hello")
        frames = (next_frame(client) for _ in range(100_000))
        assert any(frame.opcode == ABNF.OPCODE_PONG and frame.data == b"hello" for frame in frames)


@pytest.mark.parametrize("size", [1, 65536])
def test_a_message_of_endless_fragments(size: int) -> None:
    with exchange_with() as exchange, closing(raw_client(exchange, PATH)) as sock:
        exchange.inflict(Fragments(size))
        found = b""
        while b'"padding"' not in found:
            found += sock.recv(65536)
        found = found[found.index(b'{"e":"trade","padding":"') - 2 :]
        while len(found) < 3_000_000:
            found += sock.recv(65536)
        (first, *others), _ = fragments(found)
        assert first == (0x01, 24)
        assert set(others) == {(0x00, size)}
    wait_for(lambda: exchange.clients == 0, "the client to be gone")


def fragments(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """First byte and length of each frame."""
    found, place = [], 0
    while place + 10 <= len(data):
        first, length = data[place], data[place + 1]
        begin = 2
        if length >= 126:
            size = 2 if length == 126 else 8
            begin, length = 2 + size, int.from_bytes(data[place + 2 : place + 2 + size], "big")
        found.append((first, length))
        place += begin + length
    return found, place


def test_ids_restart_from_a_low_number_and_times_go_on() -> None:
    with exchange_with(IdReset(7, at_id=FIRST + 100)) as exchange, connected(exchange) as client:
        frames = [json.loads(client.recv()) for _ in range(3000)]
        assert [one["t"] for one in frames] == [*range(FIRST, FIRST + 100), *range(7, 2907)]
        assert all(earlier["T"] <= later["T"] for earlier, later in pairwise(frames))
        found = [row["id"] for row in rows(exchange, "historicalTrades", fromId=0, limit=1000)]
        assert found == list(range(7, 1007))
        assert rows(exchange, "historicalTrades", fromId=FIRST) == []
        aggregates = rows(exchange, "aggTrades", fromId=0, limit=10)
        assert aggregates[0]["f"] == 7
        assert aggregates[0]["a"] == 1
        before, after = exchange.markets[0].sequences
        assert (before.first_id, before.last_id, after.first_id) == (FIRST, FIRST + 99, 7)
        assert exchange.markets[0].holes == []


def test_ids_may_restart_more_than_once() -> None:
    with exchange_with(IdReset(100, at_id=FIRST + 50), IdReset(95)) as exchange, connected(exchange) as client:
        assert ids(client, 100) == [*range(95, 145), *range(100, 150)]
        exchange.inflict(IdReset(5))
        wait_for(lambda: ids(client, 1) == [5], "the restart")
        assert ids(client, 100) == list(range(6, 106))
        assert [one.first_id for one in exchange.markets[0].sequences] == [95, 100, 5]


# Rotation.


@pytest.mark.parametrize(
    ("target", "frame"),
    [
        ("/ws/btcusdt@trade", {"e": "serverShutdown"}),
        ("/stream?streams=btcusdt@trade", {"stream": "!serverShutdown", "data": {"e": "serverShutdown"}}),
    ],
)
def test_a_shutdown_is_announced_and_comes(target: str, frame: dict[str, Any]) -> None:
    with exchange_with(ServerShutdown(0.3, at_id=FIRST + 50)) as exchange:
        base = f"ws://{exchange.host}:{exchange.port}{target}"
        with connected(exchange, base) as client:
            for _ in range(50):
                client.recv()
            event = json.loads(client.recv())
            moment = event.get("data", event).pop("E")
            assert event == frame
            assert abs(moment / 1000 - time.time()) < 60
            with connected(exchange, base) as successor:
                assert read_until_closed(client) == 1001
                assert len([successor.recv() for _ in range(100)]) == 100
        assert exchange.counters.most_open == 2


def test_a_shutdown_may_come_at_once() -> None:
    with exchange_with(ServerShutdown(after=50, code=1012)) as exchange, connected(exchange) as client:
        ids(client, 50)
        assert json.loads(client.recv())["e"] == "serverShutdown"
        assert read_until_closed(client) == 1012


# Handshakes.


@pytest.mark.parametrize(("status", "retry_after"), [(403, None), (429, 7), (418, 120), (451, None), (503, None)])
def test_a_handshake_is_refused(status: int, retry_after: int | None) -> None:
    with exchange_with(HandshakeStatus(status, retry_after=retry_after, times=2)) as exchange:
        for _ in range(2):
            with pytest.raises(WebSocketBadStatusException) as refusal, connected(exchange):
                pass
            assert refusal.value.status_code == status
            assert refusal.value.resp_headers is not None
            assert refusal.value.resp_headers.get("retry-after") == (retry_after and str(retry_after))
        with connected(exchange) as client:
            assert len(ids(client, 10)) == 10
        assert [attempt.status for attempt in exchange.counters.attempts] == [status, status, 101]
        assert exchange.counters.most_attempts(60) == 3


def test_a_handshake_is_redirected() -> None:
    with exchange_with(HandshakeStatus(302)) as exchange, HTTPConnectionPool(exchange.host, exchange.port) as pool:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        answer = pool.request("GET", PATH, headers=headers, retries=False, timeout=10)
        assert (answer.status, answer.headers["Location"]) == (302, f"{exchange.rest_url}/moved")


def test_a_handshake_is_not_answered() -> None:
    with exchange_with(HandshakeSilence(connection=2)) as exchange:
        with connected(exchange) as client:
            ids(client, 10)
        with pytest.raises(WebSocketTimeoutException):
            create_connection(f"{exchange.ws_url}/btcusdt@trade", timeout=0.2)
        with connected(exchange) as client:
            ids(client, 10)
        assert [attempt.status for attempt in exchange.counters.attempts] == [101, None, 101]


def test_refusals_may_last_a_while() -> None:
    with exchange_with(HandshakeStatus(503, lasting=0.4)) as exchange:

        def succeeds() -> bool:
            try:
                with connected(exchange):
                    return True
            except WebSocketBadStatusException:
                return False

        assert not succeeds()
        wait_for(succeeds, "the refusals to end")
        assert exchange.counters.refused > 1


# The end of it.


def test_all_faults_can_be_ended() -> None:
    faults: list[Callable[[], Fault]] = [Freeze, HalfOpen, Fragments, lambda: Freeze(3600)]
    with exchange_with(HandshakeStatus(403, at=3600), rate=5000) as exchange, connected(exchange) as client:
        for fault in faults:
            with connected(exchange) as victim:
                ids(victim, 10)
                exchange.inflict(fault())
        exchange.inflict(HandshakeStatus(403, lasting=3600), Skip(10**9), Cut(at=3600))
        exchange.heal()
        ids_to_the_end(client)
        with connected(exchange) as sound:
            found = ids(sound, 1000)
            assert found == list(range(found[0], found[0] + 1000))


def test_healing_lets_go_what_was_kept_back() -> None:
    freeze, shuffle = Freeze(3600, at_id=FIRST + 10), Shuffle(10**6, window=10**6, at_id=FIRST + 10)
    with exchange_with(freeze, shuffle) as exchange, connected(exchange) as client:
        assert len(ids(client, 10)) == 10
        assert is_silent(client)
        exchange.heal()
        assert ids(client, 1000) == list(range(FIRST + 10, FIRST + 1010))


def test_flat_out_faults_strike_at_their_trade() -> None:
    market = Market.generated(rate=math.inf, start="subscriber")
    faults = [Skip(3, at_id=FIRST + 1000), Duplicate(2, at_id=FIRST + 5000), Cut(1008, after=70_000)]
    with Exchange([market], faults=faults) as exchange, connected(exchange) as client:
        found = ids_to_the_end(client)
    assert set(range(FIRST, FIRST + 70_000)) - set(found) == {FIRST + 1000, FIRST + 1001, FIRST + 1002}
    assert found == sorted(found)
    assert len(found) == 70_000 - 3 + 2
