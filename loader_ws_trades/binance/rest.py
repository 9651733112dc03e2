"""The parts of the exchange's REST API that the loader needs, within its rate limits."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from itertools import chain
from typing import NamedTuple

import msgspec

from loader_ws_trades.binance.rest_client import RestClient, decoded, undocumented
from loader_ws_trades.binance.rest_errors import MisconfiguredError
from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade, decode_rows
from loader_ws_trades.text import listed

events = Events(logging.getLogger(__name__))

STATISTICS = 24 * 3600.0  # seconds that `ticker/24hr` covers
ROWS = 1000  # returned by one request at most
TRADES_WEIGHT, SYMBOL_WEIGHT, AGGREGATES_WEIGHT, TIME_WEIGHT = 25, 20, 4, 1
TICKER_WEIGHT, TICKERS, ALL_TICKERS_WEIGHT = 2, 20, 80  # of one request for so many pairs at most, or for all

_AGGREGATES = 20  # those without trades have ids of -1, and are skipped
_ALL_SYMBOLS = {"most": 64 * 1024**2, "seconds": 60}  # `exchangeInfo` of all pairs has 10 MB and more
_NAMED = 50  # pairs that a message names at most


class _Symbol(msgspec.Struct):
    symbol: str
    status: str


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


class _Time(msgspec.Struct):
    serverTime: int  # noqa: N815 - the exchange's name


class _Ticker(msgspec.Struct):
    symbol: str
    firstId: int  # noqa: N815 - the exchange's name
    lastId: int  # noqa: N815 - the exchange's name


class Ticker(NamedTuple):
    """The ids of a pair's first and last trade of the last 24 hours; -1 if there was none."""

    first_id: int
    last_id: int


class _Aggregate(msgspec.Struct):
    f: int


class Rest(RestClient):
    """A client of the REST API at `base_url`."""

    def time(self) -> int:
        """The exchange's clock, in ms since 1970 (source: `GET /api/v3/time`).

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        return decoded(self.get("/api/v3/time", {}, TIME_WEIGHT), _Time).serverTime

    def symbol_status(self, symbol: str) -> str:
        """The trading status of `symbol`: TRADING, HALT, BREAK or CANCEL_ONLY (source: `GET /api/v3/exchangeInfo`).

        Raises:
            ConfigurationError: if the exchange does not know the symbol, does not serve this location, or cannot be
                reached with these settings.
            UnavailableError: if it does not respond as documented.
        """
        found = self._statuses({"symbol": symbol})
        if symbol not in found:
            raise UnavailableError(f"the response about {symbol} is not as documented")
        return found[symbol]

    def _statuses(self, fields: dict[str, str], **bounds: int) -> dict[str, str]:
        try:
            body = self.get("/api/v3/exchangeInfo", fields, SYMBOL_WEIGHT, **bounds)
        except UnavailableError as error:
            if error.lasting or isinstance(error, MisconfiguredError):
                raise ConfigurationError(str(error)) from error
            raise
        return {each.symbol: each.status for each in decoded(body, _ExchangeInfo).symbols}

    def trading_symbols(self) -> dict[str, str]:
        """The status of every pair (source: `GET /api/v3/exchangeInfo`); raises as `symbol_status` does."""
        return self._statuses({"showPermissionSets": "false"}, **_ALL_SYMBOLS)

    def check_symbols(self, names: Collection[str]) -> dict[str, str]:
        """Check that the exchange knows all `names`, and warn of those not trading; returns the status of every pair.

        Raises:
            ConfigurationError: if it does not know some, and as `symbol_status` does.
            UnavailableError: if it does not respond as documented.
        """
        statuses = self.trading_symbols()
        if unknown := [name for name in names if name not in statuses]:
            raise ConfigurationError(
                f"The exchange does not know {listed(unknown, _NAMED)}; check {named('symbols')}, whose pairs are "
                "written without a separator, like BTCUSDT"
            )
        if halted := [f"{name} ({statuses[name]})" for name in names if statuses[name] != "TRADING"]:
            text = f"{len(halted)} of {len(names)} pairs are not trading, so they have no trades until that changes"
            events.warn("symbol_halted", f"{text}: {listed(halted, _NAMED)}")
        return statuses

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
        body = self.get("/api/v3/historicalTrades", fields, TRADES_WEIGHT)
        try:
            return decode_rows(body, symbol)
        except ValueError as error:
            raise undocumented(error) from error

    def tickers(self, symbols: Collection[str] | None) -> dict[str, Ticker]:
        """The first and last trade ids of `symbols`, or of all pairs (source: `GET /api/v3/ticker/24hr`).

        In requests for 20 pairs of weight 2, or for all of weight 80 where that is cheaper. Some may be missing.

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        names = list(symbols or ())
        requests = [names[start : start + TICKERS] for start in range(0, len(names), TICKERS)]
        if symbols is not None and len(requests) * TICKER_WEIGHT < ALL_TICKERS_WEIGHT:
            try:
                return dict(chain.from_iterable(map(self._tickers, requests)))
            except UnavailableError as error:
                if not error.lasting:
                    raise  # otherwise a pair that was delisted meanwhile has failed the request for all
        return {symbol: ticker for symbol, ticker in self._tickers(None) if symbols is None or symbol in set(names)}

    def _tickers(self, some: list[str] | None) -> Iterator[tuple[str, Ticker]]:
        fields = {"symbols": msgspec.json.encode(some).decode()} if some else {}
        weight = TICKER_WEIGHT if some else ALL_TICKERS_WEIGHT
        body = self.get("/api/v3/ticker/24hr", {**fields, "type": "MINI"}, weight)
        for each in decoded(body, list[_Ticker]):
            yield each.symbol, Ticker(each.firstId, each.lastId)

    def newest_id(self, symbol: str) -> int:
        """The id of the newest trade; raises as `newest_trade` does."""
        return self.newest_trade(symbol).trade_id

    def newest_trade(self, symbol: str) -> Trade:
        """The newest trade (source: `GET /api/v3/trades`).

        Raises:
            UnavailableError: if the exchange does not respond as documented, or has no trade.
        """
        body = self.get("/api/v3/trades", {"symbol": symbol, "limit": 1}, TRADES_WEIGHT)
        try:
            return decode_rows(body, symbol)[0][-1]
        except (ValueError, IndexError) as error:
            raise undocumented(error) from error

    def first_id_at(self, symbol: str, moment: int) -> int | None:
        """The id of the first trade at or after `moment` (ms since 1970); None if there is none yet.

        Aggregated trades are found by time and name the ids of their trades (source: `GET /api/v3/aggTrades`); the
        trades before the first one are checked individually, because it may start earlier.

        Raises:
            UnavailableError: if the exchange does not respond as documented.
        """
        fields = {"symbol": symbol, "startTime": moment, "limit": _AGGREGATES}
        found = decoded(self.get("/api/v3/aggTrades", fields, AGGREGATES_WEIGHT), list[_Aggregate])
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
