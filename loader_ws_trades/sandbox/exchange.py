"""A simulated spot exchange: trade streams over WebSocket and REST on one port, in a thread of its own."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

from loader_ws_trades.sandbox.connection import Connection
from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.faults import Faults
from loader_ws_trades.sandbox.limits import Limits
from loader_ws_trades.sandbox.market import Market
from loader_ws_trades.sandbox.rest import Rest
from loader_ws_trades.sandbox.stream import Stream
from loader_ws_trades.sandbox.venue import Venue

_LEAVE_TIMEOUT = 2.0

T = TypeVar("T")


class Exchange:
    """Serves markets while it is entered; it may be stopped and started again on the same port.

    The markets go on while it is stopped. Request weight and connection attempts are counted anew with each start,
    `counters` goes on.
    """

    def __init__(
        self,
        markets: Iterable[Market],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ping_interval: float = 20.0,
        pong_timeout: float = 60.0,
        ssl: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        faults: Faults | None = None,
    ) -> None:
        """Take the markets to serve; port 0: any free one. Times in seconds."""
        self.markets = list(markets)
        self.host = host
        self.port = port
        """The port that is served; 0 before the first start, if it was 0."""
        self.counters = Counters()
        self._ping_interval = ping_interval
        self._pong_timeout = pong_timeout
        self._ssl = ssl
        self._limits = limits or Limits()
        self._faults = faults or Faults()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._venue: Venue
        self._stopping: asyncio.Event
        self._ended: Future[None]

    def __enter__(self) -> "Exchange":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ws_url(self) -> str:
        """Base URL of raw streams."""
        return f"{'wss' if self._ssl else 'ws'}://{self.host}:{self.port}/ws"

    @property
    def combined_url(self) -> str:
        """Base URL of combined streams."""
        return f"{'wss' if self._ssl else 'ws'}://{self.host}:{self.port}/stream"

    @property
    def rest_url(self) -> str:
        """Base URL of REST, to be followed by `/api/v3/...`."""
        return f"{'https' if self._ssl else 'http'}://{self.host}:{self.port}"

    @property
    def clients(self) -> int:
        """Number of connections that are open, those of REST clients included; 0 when stopped."""
        return self._call(lambda: len(self._venue.connections)) if self._thread else 0

    def used_weight(self, ip: str = "127.0.0.1") -> int:
        """Return the request weight that `ip` has used in the present window; 0 when stopped."""
        return self._call(lambda: self._venue.rest.weights(ip).used) if self._thread else 0

    def start(self) -> None:
        """Serve; raises `OSError` if the port cannot be had."""
        if self._thread is not None:
            raise RuntimeError("the exchange is already started")
        ready: Future[None] = Future()
        self._ended = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="exchange", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise

    def stop(self) -> None:
        """Close all connections (1001) and the port; raises what ended the exchange before its time."""
        if self._thread is None:
            return
        if not self._ended.done():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None
        self._ended.result()

    def disconnect(self, code: int = 1001, reason: str = "") -> None:
        """Close all connections with a close code; 1006: without a close frame."""

        def close() -> None:
            for connection in list(self._venue.connections):
                connection.close(code, reason)

        self._call(close)

    def _call(self, action: Callable[[], T]) -> T:
        """Do something in the event loop, and wait for it."""
        done: Future[T] = Future()

        def act() -> None:
            try:
                done.set_result(action())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(act)
        return done.result(timeout=10.0)

    def _run(self, ready: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                self._ended.set_exception(error)
            else:
                ready.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        streams = [Stream(market) for market in self.markets]
        self._venue = Venue(
            streams={stream.market.stream: stream for stream in streams},
            rest=Rest(self.markets, self._limits, self.counters),
            limits=self._limits,
            faults=self._faults,
            counters=self.counters,
            ping_interval=self._ping_interval,
            pong_timeout=self._pong_timeout,
        )
        server = await self._loop.create_server(lambda: Connection(self._venue), self.host, self.port, ssl=self._ssl)
        self.port = server.sockets[0].getsockname()[1]
        tasks = [asyncio.create_task(stream.run()) for stream in streams]
        ready.set_result(None)
        try:
            # A stream ends by failing alone.
            await asyncio.wait(
                [*tasks, stopping := asyncio.create_task(self._stopping.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            stopping.cancel()
        finally:
            server.close()
            await self._leave()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _leave(self) -> None:
        """See all clients off, in time."""
        for farewell in (Connection.close, Connection.abort):
            for connection in list(self._venue.connections):
                farewell(connection)
            if self._venue.connections:
                await asyncio.wait([asyncio.create_task(self._venue.emptied.wait())], timeout=_LEAVE_TIMEOUT)
