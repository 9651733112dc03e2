"""The feed with many pairs, against the simulated exchange."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from loader_ws_trades.binance.feed import Feed
from loader_ws_trades.config.loading import load
from loader_ws_trades.pipeline.trade import ACKNOWLEDGEMENT, RejectedFrame
from loader_ws_trades.sandbox.market.market import Market
from loader_ws_trades.sandbox.server import Exchange


class Receiver:
    """A `FrameReceiver` that counts the trades of each pair by connection."""

    def __init__(self) -> None:
        self.feed: Feed
        self.trades: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.carried: dict[int, list[str]] = {}
        self.unexpected: list[bytes] = []
        self._lock = threading.Lock()

    def connect(self, _slot: int, symbols: Sequence[str]) -> int:
        with self._lock:
            number = len(self.carried) + 1
            self.carried[number] = list(symbols)
            return number

    def add_streams(self, connection: int, symbols: Sequence[str]) -> None:
        self.carried[connection] += symbols

    def disconnect(self, connection: int) -> None:
        pass

    def in_order(self, _connection: int) -> bool:
        return True

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        for frame in frames:
            found = msgspec.json.decode(frame)
            if "data" in found:
                self.trades[connection, found["data"]["s"]] += 1
            elif not self.feed.note_answer(RejectedFrame(ACKNOWLEDGEMENT, repr(frame)), connection):
                self.unexpected.append(frame)
        return True


def until(feed: Feed, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        feed.tick()
        time.sleep(0.01)


def test_pairs_come_over_their_connections_and_join_by_messages() -> None:
    names = [f"A{number}USDT" for number in range(250)]
    late = ["币安USDT", "BUSDT"]
    deaths: list[BaseException] = []
    receiver = Receiver()
    with Exchange([Market.generated(name, rate=20, seed=place) for place, name in enumerate(names + late)]) as exchange:
        settings = load({"symbols": "*", "binance_ws_url": exchange.ws_url}, needed=())
        feed = receiver.feed = Feed(settings, names)
        feed.start(receiver, deaths.append)
        try:
            until(feed, lambda: {symbol for _, symbol in receiver.trades} == set(names))
            feed.add(*late)
            until(feed, lambda: {symbol for _, symbol in receiver.trades} == {*names, *late})
            feed.remove(late[0])
            until(feed, lambda: late[0] not in feed.groups[-1].threads[0].carried.pairs)  # type: ignore[union-attr]
        finally:
            feed.close()
            assert feed.join(10)
        assert exchange.counters.connections == 2
    assert not deaths
    assert not receiver.unexpected
    assert receiver.carried == {1: names[:200], 2: names[200:] + late} or receiver.carried == {
        2: names[:200],
        1: names[200:] + late,
    }
    assert all(symbol in receiver.carried[number] for number, symbol in receiver.trades)
