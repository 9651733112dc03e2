"""A simulated spot exchange: trade streams over WebSocket and REST on one port, in a thread of its own."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange.connection import Connection
from loader_ws_trades.sandbox.exchange.limits import Limits
from loader_ws_trades.sandbox.exchange.rest import Rest
from loader_ws_trades.sandbox.exchange.state import ExchangeState
from loader_ws_trades.sandbox.exchange.stream import Broadcast
from loader_ws_trades.sandbox.faults.fault import Fault
from loader_ws_trades.sandbox.faults.injector import FaultInjector
from loader_ws_trades.sandbox.market.market import Market

_CLOSE_TIMEOUT = 2.0

T = TypeVar("T")


class Exchange:
    """Serves markets as a context manager; it may be stopped and started again on the same port.

    Markets continue while it is stopped. Limits on request weight and connection attempts are reset by each start,
    `counters` are not.
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
        faults: Iterable[Fault] | FaultInjector = (),
        clock_offset: float = 0.0,
    ) -> None:
        """Take the markets to serve and the faults to come; port 0: any free one. Times in seconds.

        `serverTime` of REST is `clock_offset` ahead; trade times are not.
        """
        self.markets = list(markets)
        self.host = host
        self.port = port
        """The port that is served; if it was given as 0, it is 0 until the first start."""
        self.counters = Counters()
        self._ping_interval = ping_interval
        self._pong_timeout = pong_timeout
        self._ssl = ssl
        self._limits = limits or Limits()
        self._faults = faults if isinstance(faults, FaultInjector) else FaultInjector(faults)
        self._clock_offset = clock_offset
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._state: ExchangeState
        self._stopping: asyncio.Event
        self._ended: Future[None]
        self._error: BaseException | None = None

    def __enter__(self) -> "Exchange":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Base URL of raw streams."""
        return f"{'wss' if self._ssl else 'ws'}://{self._address}/ws"

    @property
    def combined_url(self) -> str:
        """Base URL of combined streams."""
        return f"{'wss' if self._ssl else 'ws'}://{self._address}/stream"

    @property
    def rest_url(self) -> str:
        """Base URL of REST, without `/api/v3/...`."""
        return f"{'https' if self._ssl else 'http'}://{self._address}"

    @property
    def clients(self) -> int:
        """Number of open connections, including those of REST clients; 0 when stopped."""
        return self._call(lambda: len(self._state.connections)) if self._thread else 0

    @property
    def subscribed(self) -> int:
        """Number of streams with a subscriber; 0 when stopped."""
        streams = self._state.streams if self._thread else {}
        return self._call(lambda: sum(bool(one.subscribers) for one in streams.values())) if streams else 0

    def used_weight(self, ip: str = "127.0.0.1") -> int:
        """Return the request weight that `ip` has used in the current window; 0 when stopped."""
        return self._call(lambda: self._state.rest.weights(ip).used) if self._thread else 0

    @property
    def struck(self) -> list[tuple[float, Fault]]:
        """The faults that have struck, with the seconds since the exchange first started."""
        return list(self._faults.struck)

    def inflict(self, *faults: Fault) -> None:
        """Make faults strike, at their time or at once; they are in effect when this returns.

        Raises:
            ValueError: for an impossible one, such as a hole among trades that have been issued.
            RuntimeError: if the exchange is stopped.
        """
        for fault in faults:
            self._call(partial(self._faults.inflict, fault))

    def heal(self) -> None:
        """End and cancel all faults; connections that cannot continue are cut. Missing ids stay missing."""
        self._call(self._faults.heal)

    def start(self) -> None:
        """Serve; raises `OSError` if the port is taken, `ValueError` for an impossible fault."""
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
        """Close all connections (1001) and the port; raises the error that ended the exchange early, if any."""
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
            for connection in list(self._state.connections):
                connection.close(code, reason)

        self._call(close)

    def _call(self, action: Callable[[], T]) -> T:
        """Call `action` in the event loop and return its result."""
        if self._thread is None:
            raise RuntimeError("the exchange is stopped")
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
        self._error = None
        self._loop.set_exception_handler(self._on_error)
        broadcast = Broadcast(self._faults)
        self._state = ExchangeState(
            url="",
            markets=self.markets,
            broadcast=broadcast,
            rest=Rest(self._limits, self.counters, self._faults.active.lag, self._clock_offset),
            limits=self._limits,
            faults=self._faults,
            counters=self.counters,
            ping_interval=self._ping_interval,
            pong_timeout=self._pong_timeout,
        )
        self._faults.start(self._state)
        server = await self._loop.create_server(lambda: Connection(self._state), self.host, self.port, ssl=self._ssl)
        self.port = server.sockets[0].getsockname()[1]
        self._state.url = self.rest_url
        flat_out = [stream for stream in self._state.streams.values() if stream.market.flat_out]
        tasks = [asyncio.create_task(broadcast.run_flat_out(stream)) for stream in flat_out]
        ready.set_result(None)
        try:
            # A stream that runs flat out ends only by failing.
            await asyncio.wait(
                [*tasks, stopping := asyncio.create_task(self._stopping.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            stopping.cancel()
        finally:
            server.close()
            await self._disconnect_clients()
            broadcast.stop()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in (*ends, self._error):
            if isinstance(end, Exception):
                raise end

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the exchange with an error that would otherwise reach only asyncio."""
        self._error = self._error or context.get("exception")
        loop.default_exception_handler(context)
        self._stopping.set()

    async def _disconnect_clients(self) -> None:
        """Close all connections, and cut those that do not close in time."""
        for method in ("close", "abort"):
            for client in list(self._state.connections):
                getattr(client, method)()
            if self._state.connections:
                await asyncio.wait([asyncio.create_task(self._state.emptied.wait())], timeout=_CLOSE_TIMEOUT)
