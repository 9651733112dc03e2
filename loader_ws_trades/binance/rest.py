"""The parts of the exchange's REST API that the loader needs, within its rate limits."""

from __future__ import annotations

import logging
import os
import threading
import time
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import urllib3

from loader_ws_trades.binance.http_client import HttpClient
from loader_ws_trades.binance.proxies import Proxy, proxy_for
from loader_ws_trades.binance.rate_limits import WeightLimit
from loader_ws_trades.binance.rest_errors import WAIT_FOR_US, MisconfiguredError, rejected, unreachable
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.trade import BAD_INPUT, RejectedFrame, Trade, decode_rows
from loader_ws_trades.text import header_number, redacted_url

log = logging.getLogger(__name__)
events = Events(log)

_T = TypeVar("_T")

ROWS = 1000  # returned by one request at most
TRADES_WEIGHT, SYMBOL_WEIGHT, AGGREGATES_WEIGHT, TICKER_WEIGHT, TIME_WEIGHT = 25, 20, 4, 2, 1

_AGGREGATES = 20  # those without trades have ids of -1, and are skipped
_LONG_WAIT = 10.0  # seconds; longer waits for request weight are logged
_WAIT_LINES = (10, 3600.0)  # log lines about them, per seconds


class _Symbol(msgspec.Struct):
    status: str


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


class _Time(msgspec.Struct):
    serverTime: int  # noqa: N815 - the exchange's name


class _Ticker(msgspec.Struct):
    lastId: int  # noqa: N815 - the exchange's name


class _Aggregate(msgspec.Struct):
    f: int


class Rest:
    """A client of the REST API at `base_url`.

    Args:
        base_url: the URL before `/api/v3`.
        stopping: ends every wait, and aborts requests.
        weight_limit: request weight per minute to stay below.
        timeout: seconds for connecting, and for each read.

    Raises:
        ConfigurationError: if the proxy to be used is invalid.
    """

    def __init__(
        self, base_url: str, stopping: threading.Event, *, weight_limit: int = 3000, timeout: float = 5.0
    ) -> None:
        self._base = base_url.rstrip("/")
        self._stopping = stopping
        self._limit = WeightLimit(weight_limit)
        self._waits = Throttle(log, *_WAIT_LINES)
        self._proxy = proxy_for(base_url, os.environ)
        pool = _pool(self._proxy, urllib3.Timeout(connect=timeout, read=timeout))
        self._http = HttpClient(pool, stopping)
        self.counted: int | None = None
        """The request weight that the exchange reported for our IP address in its latest response."""

    @property
    def weight_used(self) -> int:
        """Request weight used in the last minute, by us and by others on the same IP address."""
        return self._limit.used

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def time(self) -> int:
        """The exchange's clock, in ms since 1970 (source: `GET /api/v3/time`).

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        return _decoded(self._get("/api/v3/time", {}, TIME_WEIGHT), _Time).serverTime

    def symbol_status(self, symbol: str) -> str:
        """The trading status of `symbol`: TRADING, HALT, BREAK or CANCEL_ONLY (source: `GET /api/v3/exchangeInfo`).

        Raises:
            ConfigurationError: if the exchange does not know the symbol, does not serve this location, or cannot be
                reached with these settings.
            UnavailableError: if it does not respond as documented.
        """
        try:
            body = self._get("/api/v3/exchangeInfo", {"symbol": symbol}, SYMBOL_WEIGHT)
            return msgspec.json.decode(body, type=_ExchangeInfo).symbols[0].status
        except (*BAD_INPUT, IndexError) as error:
            raise UnavailableError(f"the response about {symbol} is not as documented ({error})") from error
        except UnavailableError as error:
            if error.lasting or isinstance(error, MisconfiguredError):
                raise ConfigurationError(str(error)) from error
            raise

    def check_symbol(self, symbol: str) -> None:
        """Check that the exchange knows `symbol`; warn if it is not trading or could not be checked.

        Raises:
            ConfigurationError: as `symbol_status` does.
        """
        try:
            status = self.symbol_status(symbol)
        except UnavailableError as error:
            events.warn("symbol_unchecked", f"The symbol could not be checked, continuing anyway: {error}")
            return
        if status != "TRADING":
            events.warn("symbol_halted", f"{symbol} has status {status}: no trades until that changes")

    def trades_from(self, symbol: str, first_id: int) -> tuple[list[Trade], list[RejectedFrame]]:
        """At most 1000 trades from `first_id` on, ascending (source: `GET /api/v3/historicalTrades`).

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        fields = {"symbol": symbol, "fromId": first_id, "limit": ROWS}
        body = self._get("/api/v3/historicalTrades", fields, TRADES_WEIGHT)
        try:
            return decode_rows(body, symbol)
        except ValueError as error:
            raise _undocumented(error) from error

    def last_id(self, symbol: str) -> int:
        """The id of the last trade, -1 if there is none (source: `GET /api/v3/ticker/24hr`); costs a weight of 2.

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        body = self._get("/api/v3/ticker/24hr", {"symbol": symbol, "type": "MINI"}, TICKER_WEIGHT)
        return _decoded(body, _Ticker).lastId

    def newest_id(self, symbol: str) -> int:
        """The id of the newest trade; raises as `newest_trade` does."""
        return self.newest_trade(symbol).trade_id

    def newest_trade(self, symbol: str) -> Trade:
        """The newest trade (source: `GET /api/v3/trades`).

        Raises:
            UnavailableError: if the exchange does not respond as documented, or has no trade.
        """
        body = self._get("/api/v3/trades", {"symbol": symbol, "limit": 1}, TRADES_WEIGHT)
        try:
            return decode_rows(body, symbol)[0][-1]
        except (ValueError, IndexError) as error:
            raise _undocumented(error) from error

    def first_id_at(self, symbol: str, moment: int) -> int | None:
        """The id of the first trade at or after `moment` (ms since 1970); None if there is none yet.

        Aggregated trades are found by time and name the ids of their trades (source: `GET /api/v3/aggTrades`); the
        trades before the first one are checked individually, because it may start earlier.

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        fields = {"symbol": symbol, "startTime": moment, "limit": _AGGREGATES}
        found = _decoded(self._get("/api/v3/aggTrades", fields, AGGREGATES_WEIGHT), list[_Aggregate])
        if not found:
            return None
        first = next((row.f for row in found if row.f >= 0), None)
        if first is None:
            raise UnavailableError("REST's aggregated trades name no trade ids")
        while True:
            begin = max(0, first - ROWS // 2)
            rows = [row for row in self.trades_from(symbol, begin)[0] if row.trade_id >= begin]
            since = [row.trade_id for row in rows if row.timestamp >= moment]
            if not since or all(row.trade_id != first for row in rows):
                raise UnavailableError(f"REST does not have the trade {first} yet")
            first = since[0]
            if first > begin or begin == 0:
                return first

    def await_weight(self, weight: int = TRADES_WEIGHT) -> None:
        """Wait until a request of `weight` is within our own limit; every request does so by itself.

        Raises:
            UnavailableError: if the run ends, or during a pause that the exchange requires.
        """
        began = time.monotonic()
        logged = False
        while True:
            if (pause := self._limit.paused) > 0:
                raise UnavailableError(f"the exchange requires a pause of {pause:.0f} more seconds", retry_after=pause)
            if (wait := self._limit.wait_needed(weight)) <= 0:
                if logged:
                    self._waits.info("weight_free", f"Request weight available after {time.monotonic() - began:.0f} s")
                return
            if wait >= _LONG_WAIT and not logged:
                logged = True
                used = f"{self._limit.used} of REST_WEIGHT_LIMIT (--rest-weight-limit) was used in the last minute"
                self._waits.info("weight_used", f"Waiting {wait:.0f} s for request weight: {used}", seconds=round(wait))
            if self._stopping.wait(wait):
                raise UnavailableError("the run is ending")

    def _get(self, path: str, fields: dict[str, Any], weight: int) -> bytes:
        self.await_weight(weight)
        self._limit.spend(weight)
        base = redacted_url(self._base)
        try:
            response = self._http.get(self._base + path, fields)
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(error, base, self._proxy) from error
        except UnavailableError as error:
            raise UnavailableError(f"{base} did not answer ({error})") from error
        counted = header_number(response.headers.get("X-MBX-USED-WEIGHT-1M", ""))
        if counted is not None:
            self.counted = counted
            self._limit.update(counted)
        if response.status == HTTPStatus.OK:
            return response.body
        failure = rejected(response, base, self._proxy, str(fields.get("symbol", "")))
        if response.status in WAIT_FOR_US:
            self._limit.pause(failure.retry_after)
        raise failure


def _pool(proxy: Proxy | None, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    if not proxy:
        return urllib3.PoolManager(timeout=timeout)
    return urllib3.ProxyManager(f"http://{proxy.address}", proxy_headers=proxy.headers, timeout=timeout)


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except BAD_INPUT as error:
        raise _undocumented(error) from error


def _undocumented(error: Exception) -> UnavailableError:
    return UnavailableError(f"REST's response is not as documented ({error})")
