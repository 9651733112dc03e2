"""The sandbox's streams, read by a client that is not the library they are served with."""

import json
import math
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import trustme
from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketTimeoutException,
    create_connection,
)

from loader_ws_trades.sandbox import Exchange, Faults, Limits, Market
from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from tests.tools.recorded import COUNT, frames, frames_file
from tests.tools.waiting import wait_for

UNHURRIED = Limits(client_frames=None)

Connect = Callable[..., WebSocket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def open_one(url: str, **options: Any) -> WebSocket:
            client: WebSocket = create_connection(url, timeout=10, **options)
            stack.callback(client.shutdown)
            return client

        yield open_one


@pytest.fixture
def serve() -> Iterator[Callable[..., Exchange]]:
    with ExitStack() as stack:
        yield lambda *markets, **options: stack.enter_context(Exchange(markets, **options))


Serve = Callable[..., Exchange]


def test_an_address_of_ipv6_stands_in_brackets(serve: Serve, connect: Connect) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    exchange = serve(Market.generated("BTCUSDT", rate=1000), host="::1")
    for url in (exchange.ws_url, exchange.combined_url, exchange.rest_url):
        assert f"://[::1]:{exchange.port}" in url
    assert read(connect(f"{exchange.ws_url}/btcusdt@trade"), 1)[0]["s"] == "BTCUSDT"
    with urlopen(f"{exchange.rest_url}/api/v3/time", timeout=10) as answer:  # noqa: S310 - it is the sandbox
        assert "serverTime" in json.load(answer)


def read(client: WebSocket, count: int) -> list[dict[str, Any]]:
    return [json.loads(client.recv()) for _ in range(count)]


def next_frame(client: WebSocket) -> ABNF:
    """Take the next frame, control frames too, and answer nothing."""
    frame: ABNF | None = client.recv_frame()  # type: ignore[no-untyped-call]
    assert frame is not None
    return frame


def read_until_closed(client: WebSocket) -> int:
    """Read without answering anything but the close frame, and return its code."""
    for _ in range(1_000_000):
        frame = next_frame(client)
        if frame.opcode == ABNF.OPCODE_CLOSE:
            assert isinstance(frame.data, bytes)
            client.send_close()
            return int.from_bytes(frame.data[:2], "big")
    raise AssertionError("a million frames and no close frame")


def raw_client(exchange: Exchange, target: str) -> socket.socket:
    sock = socket.create_connection((exchange.host, exchange.port), timeout=10)
    sock.sendall(
        f"GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return sock


def text_frames(sock: socket.socket, count: int) -> Iterator[bytes]:
    """Cut text frames out of what comes, strictly: each is final, not masked, and of the length that it says."""
    with sock.makefile("rb", buffering=1 << 16) as stream:
        for _ in range(count):
            first, length = stream.read(2)
            assert first == 0x81
            assert length < 127
            yield stream.read(int.from_bytes(stream.read(2), "big") if length == 126 else length)


def test_a_raw_stream_of_recorded_trades_is_the_recording(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    recorded = frames_file(tmp_path)
    exchange = serve(Market.recorded(recorded, speed=math.inf, start="subscriber"))
    client = connect(f"{exchange.ws_url}/polusdt@trade", skip_utf8_validation=True)
    assert [json.loads(client.recv()) for _ in range(COUNT)] == frames(recorded)
    assert (exchange.counters.frames, exchange.counters.connections) == (COUNT, 1)


def test_generated_trades_are_the_markets_own(serve: Serve, connect: Connect) -> None:
    market = Market.generated(rate=20_000, start="subscriber")
    exchange = serve(market)
    seen = read(connect(f"{exchange.ws_url}/btcusdt@trade"), 3000)
    assert list(seen[0]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    assert [
        (one["t"], one["p"], one["q"], one["T"], one["m"], one["s"], one["e"], one["M"], one["E"]) for one in seen
    ] == [
        (
            one.id,
            one.price,
            one.quantity,
            one.time // 1000,
            one.is_buyer_maker,
            "BTCUSDT",
            "trade",
            True,
            one.time // 1000,
        )
        for one in market.trades(0, 3000)
    ]


@pytest.mark.parametrize("first_id", [0, 8, 95, 999_500])
def test_frames_are_well_formed_where_ids_grow_by_a_digit(serve: Serve, first_id: int) -> None:
    exchange = serve(
        Market.generated("AB", rate=math.inf, first_id=first_id, start="subscriber", price="1", tick="0.0001")
    )
    with closing(raw_client(exchange, "/ws/ab@trade")) as sock:
        ids = [json.loads(payload)["t"] for payload in text_frames(sock, 20_000)]
    assert ids == list(range(first_id, first_id + 20_000))


def test_flat_out_nothing_is_missing_however_slowly_it_is_read(serve: Serve) -> None:
    market = Market.generated(rate=math.inf, start="subscriber")
    exchange = serve(market)
    with closing(raw_client(exchange, "/ws/btcusdt@trade")) as sock:
        wait_for(lambda: market.issued > 10_000, "trades issued")
        seen = [0]

        def at_rest() -> int:
            seen.append(market.issued)
            return seen[-1] if seen[-1] == seen[-2] else 0

        assert wait_for(at_rest, "the market to wait for its reader") < 100_000
        ids = [json.loads(payload)["t"] for payload in text_frames(sock, 150_000)]
        assert ids == list(range(1_000_000, 1_150_000))
    assert exchange.counters.cut_off == 0


def test_a_client_that_does_not_read_is_cut_off(serve: Serve) -> None:
    exchange = serve(Market.generated(rate=100_000), limits=Limits(backlog=1_000_000))
    with closing(raw_client(exchange, "/ws/btcusdt@trade")):
        wait_for(lambda: exchange.counters.cut_off, "the client to be cut off")
        wait_for(lambda: exchange.clients == 0, "the client to be gone")


def test_a_combined_stream_wraps_each_trade_with_its_streams_name(serve: Serve, connect: Connect) -> None:
    exchange = serve(*(Market.generated(symbol, rate=500) for symbol in ("BTCUSDT", "ETHUSDT")))
    seen = read(connect(f"{exchange.combined_url}?streams=btcusdt@trade/ethusdt@trade"), 500)
    assert all(list(one) == ["stream", "data"] for one in seen)
    assert all(one["stream"] == one["data"]["s"].lower() + "@trade" for one in seen)
    assert {one["stream"] for one in seen} == {"btcusdt@trade", "ethusdt@trade"}


def test_a_raw_path_may_name_several_streams(serve: Serve, connect: Connect) -> None:
    exchange = serve(*(Market.generated(symbol, rate=500) for symbol in ("BTCUSDT", "ETHUSDT")))
    seen = read(connect(f"{exchange.ws_url}/btcusdt@trade/ethusdt@trade"), 500)
    assert {one["s"] for one in seen} == {"BTCUSDT", "ETHUSDT"}


@pytest.mark.parametrize("path", ["/ws/btcusdt@trade?", "/stream?streams=btcusdt@trade&"])
def test_times_may_be_microseconds(serve: Serve, connect: Connect, path: str) -> None:
    market = Market.generated(rate=1000, start="subscriber")
    exchange = serve(market)
    client = connect(f"ws://{exchange.host}:{exchange.port}{path}timeUnit=MICROSECOND")
    seen = [one.get("data", one) for one in read(client, 200)]
    wanted = [trade.time for trade in market.trades(0, 200)]
    assert [one["T"] for one in seen] == wanted
    assert [one["E"] for one in seen] == wanted
    assert all(1e15 < moment < 1e16 for moment in wanted)


def test_symbols_need_not_be_ascii(serve: Serve, connect: Connect) -> None:
    exchange = serve(Market.generated("币安人生USDT", rate=500))
    raw = read(connect(f"{exchange.ws_url}/{quote('币安人生usdt@trade')}"), 3)
    combined = read(connect(f"{exchange.combined_url}?streams={quote('币安人生usdt@trade')}"), 3)
    assert {one["s"] for one in raw} == {one["data"]["s"] for one in combined} == {"币安人生USDT"}
    assert {one["stream"] for one in combined} == {"币安人生usdt@trade"}


def test_each_client_gets_all_trades_from_its_subscription_on(serve: Serve, connect: Connect) -> None:
    exchange = serve(Market.generated(rate=2000))
    clients = [connect(f"{exchange.ws_url}/btcusdt@trade") for _ in range(5)]
    seen = [[one["t"] for one in read(client, 1000)] for client in clients]
    assert all(ids == list(range(ids[0], ids[0] + 1000)) for ids in seen)
    assert all(later[0] >= earlier[0] for earlier, later in pairwise(seen))


def test_the_market_goes_on_while_no_exchange_is_up(connect: Connect) -> None:
    market = Market.generated(rate=2000)
    exchange = Exchange([market])
    with exchange:
        client = connect(f"{exchange.ws_url}/btcusdt@trade")
        before = read(client, 100)
        client.close()
    port, stopped = exchange.port, market.issued
    wait_for(lambda: market.issued > stopped + 100, "trades that nobody hears")
    with exchange:
        after = read(connect(f"{exchange.ws_url}/btcusdt@trade"), 100)
    assert exchange.port == port
    assert after[0]["t"] > before[-1]["t"] + 100
    assert exchange.counters.connections == 2


def test_a_bounded_market_falls_silent_and_stays_open(serve: Serve, connect: Connect) -> None:
    market = Market.generated(rate=5000, count=300, start="subscriber")
    exchange = serve(market, ping_interval=0.05, limits=UNHURRIED)
    client = connect(f"{exchange.ws_url}/btcusdt@trade")
    assert len(read(client, 300)) == 300
    assert [next_frame(client).opcode for _ in range(3)] == [ABNF.OPCODE_PING] * 3
    assert (market.issued, market.last_id) == (300, 1_000_299)


@pytest.mark.parametrize("name", ["nosuch@trade", "BTCUSDT@trade", "btcusdt@depth"])
def test_an_unknown_stream_is_silent_but_for_pings(serve: Serve, connect: Connect, name: str) -> None:
    exchange = serve(Market.generated(rate=5000), ping_interval=0.05, limits=UNHURRIED)
    client = connect(f"{exchange.ws_url}/{name}")
    for _ in range(5):
        assert next_frame(client).opcode == ABNF.OPCODE_PING


def test_a_client_that_answers_pings_stays(serve: Serve, connect: Connect) -> None:
    exchange = serve(Market.generated(rate=200), ping_interval=0.05, pong_timeout=0.3, limits=UNHURRIED)
    client = connect(f"{exchange.ws_url}/btcusdt@trade")
    assert any(client.recv() and exchange.counters.pings > 15 for _ in range(10_000))
    assert exchange.clients == 1


def test_the_newest_pong_answers_earlier_pings(serve: Serve, connect: Connect) -> None:
    exchange = serve(ping_interval=0.03, pong_timeout=0.3, limits=UNHURRIED)
    client = connect(f"{exchange.ws_url}/nosuch@trade")
    for count in range(30):
        payload = next_frame(client).data
        if count % 3 == 2:
            client.pong(payload)
    assert exchange.clients == 1


@pytest.mark.parametrize("payload", [None, b"", b"12345"])
def test_a_client_without_the_right_pong_is_cut(serve: Serve, connect: Connect, payload: bytes | None) -> None:
    exchange = serve(Market.generated(rate=100), ping_interval=0.1, pong_timeout=0.3, limits=UNHURRIED)
    client = connect(f"{exchange.ws_url}/btcusdt@trade")
    if payload is not None:
        client.pong(payload)
    assert read_until_closed(client) == 1008
    wait_for(lambda: exchange.clients == 0, "the client to be gone")


def test_a_client_may_send_five_frames_a_second(serve: Serve, connect: Connect) -> None:
    exchange = serve()
    client = connect(f"{exchange.ws_url}/nosuch@trade")
    for _ in range(5):
        client.ping()
    assert [next_frame(client).opcode for _ in range(5)] == [ABNF.OPCODE_PONG] * 5
    client.pong()
    assert read_until_closed(client) == 1008


def test_a_connection_has_a_greatest_age(serve: Serve, connect: Connect) -> None:
    exchange = serve(Market.generated(rate=100), limits=Limits(connection_age=0.3))
    assert read_until_closed(connect(f"{exchange.ws_url}/btcusdt@trade")) == 1001


def test_connection_attempts_are_limited(serve: Serve, connect: Connect) -> None:
    exchange = serve(limits=Limits(connection_attempts=2))
    for _ in range(2):
        connect(f"{exchange.ws_url}/nosuch@trade")
    with pytest.raises(WebSocketBadStatusException) as refusal:
        connect(f"{exchange.ws_url}/nosuch@trade")
    assert refusal.value.status_code == 429
    assert refusal.value.resp_headers is not None
    assert 0 < int(refusal.value.resp_headers["retry-after"]) <= 300
    assert (exchange.counters.connections, exchange.counters.refused) == (2, 1)


def test_other_paths_are_refused(serve: Serve, connect: Connect) -> None:
    exchange = serve()
    with pytest.raises(WebSocketBadStatusException) as refusal:
        connect(f"ws://{exchange.host}:{exchange.port}/nothing")
    assert refusal.value.status_code == 404


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011])
def test_all_clients_can_be_disconnected(serve: Serve, connect: Connect, code: int) -> None:
    exchange = serve(Market.generated(rate=100))
    clients = [connect(f"{exchange.ws_url}/btcusdt@trade") for _ in range(2)]
    exchange.disconnect(code)
    assert [read_until_closed(client) for client in clients] == [code, code]
    assert read(connect(f"{exchange.ws_url}/btcusdt@trade"), 1)


def test_clients_can_be_cut_off_without_a_close_frame(serve: Serve, connect: Connect) -> None:
    exchange = serve()
    client = connect(f"{exchange.ws_url}/nosuch@trade")
    exchange.disconnect(1006)
    with pytest.raises((WebSocketConnectionClosedException, ConnectionResetError)):
        client.recv()


def test_a_client_that_does_not_answer_the_close_frame_is_cut_off(serve: Serve, connect: Connect) -> None:
    exchange = serve()
    connect(f"{exchange.ws_url}/nosuch@trade")
    exchange.disconnect(1008)
    wait_for(lambda: exchange.clients == 0, "the client to be gone")


def test_a_client_may_close(serve: Serve, connect: Connect) -> None:
    exchange = serve(Market.generated(rate=100))
    client = connect(f"{exchange.ws_url}/btcusdt@trade")
    client.send_close(1000)
    assert read_until_closed(client) == 1000
    wait_for(lambda: exchange.clients == 0, "the client to be gone")


def ask(client: WebSocket, request: object) -> Any:
    client.send(request if isinstance(request, str) else json.dumps(request))
    while True:
        answer = json.loads(client.recv())
        if answer.get("e") != "trade":
            return answer


def test_streams_can_be_subscribed_to_later(serve: Serve, connect: Connect) -> None:
    exchange = serve(Market.generated(rate=100, start="subscriber"), limits=UNHURRIED)
    client = connect(exchange.ws_url)
    assert ask(client, {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "nosuch@trade"], "id": 1}) == {
        "result": None,
        "id": 1,
    }
    assert [one["t"] for one in read(client, 20)] == list(range(1_000_000, 1_000_020))
    assert ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": "x"}) == {
        "result": ["btcusdt@trade", "nosuch@trade"],
        "id": "x",
    }
    assert ask(client, {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 3}) == {"result": None, "id": 3}
    client.settimeout(0.3)
    with pytest.raises(WebSocketTimeoutException):
        client.recv()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("{", 3),
        ("[]", 2),
        ({"id": 1}, 2),
        ({"method": "BUY", "id": 1}, 2),
        ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": True}, 2),
        ({"method": "SUBSCRIBE", "params": "a@trade", "id": 1}, 2),
    ],
)
def test_what_cannot_be_understood_is_answered_with_an_error(
    serve: Serve, connect: Connect, request_: object, code: int
) -> None:
    answer = ask(connect(serve().ws_url), request_)
    assert answer["code"] == code
    assert answer["msg"].startswith("Invalid")


def test_a_connection_has_a_greatest_number_of_streams(serve: Serve, connect: Connect) -> None:
    client = connect(serve(limits=Limits(streams=2)).ws_url)
    request = {"method": "SUBSCRIBE", "params": ["a@trade", "b@trade", "c@trade"], "id": 19}
    assert ask(client, request) == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 19}
    assert ask(client, {"method": "LIST_SUBSCRIPTIONS", "id": 20}) == {"result": [], "id": 20}


def test_tls(serve: Serve, connect: Connect) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    exchange = serve(Market.generated(rate=1000, start="subscriber"), ssl=context)
    assert exchange.ws_url.startswith("wss://")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    seen = read(connect(f"{exchange.ws_url}/btcusdt@trade", sslopt={"context": trust}), 500)
    assert [one["t"] for one in seen] == list(range(1_000_000, 1_000_500))


def test_a_port_that_is_taken_is_an_error(serve: Serve) -> None:
    taken = serve()
    with pytest.raises(OSError, match="in use"):
        Exchange([], port=taken.port).start()


def test_faults_may_change_the_frames(serve: Serve, connect: Connect) -> None:
    class EverySecondBatch(Faults):
        def frames(self, client: Client, batch: Batch) -> bytes:
            return b"" if batch.ids[0] // 1024 % 2 else batch.data

    exchange = serve(Market.generated(rate=math.inf, first_id=0, start="subscriber"), faults=EverySecondBatch())
    seen = [one["t"] for one in read(connect(f"{exchange.ws_url}/btcusdt@trade"), 2048)]
    assert seen == [*range(1024), *range(2048, 3072)]
