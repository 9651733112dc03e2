"""The exchange's REST answers about its markets, as values: no socket here."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.history import BLOCK, Trade
from loader_ws_trades.sandbox.limits import Limits, Refusal, Weights
from loader_ws_trades.sandbox.market import Market

Parameters = Mapping[str, str]

_MOST_ROWS = 1000
_SYMBOL = re.compile(r"(?:[^\Wa-z]|[-.]){1,50}")
_NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass
class Answer:
    """A REST answer; the body is a JSON value yet to be encoded."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class RestError(Exception):
    """The request is refused with HTTP 400 and a code of the exchange's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rest:
    """Answers requests, and counts their weight by IP."""

    def __init__(self, markets: Iterable[Market], limits: Limits, counters: Counters) -> None:
        self._markets = {market.symbol: market for market in markets}
        self._limits = limits
        self._counters = counters
        self._weights: dict[str, Weights] = {}
        self._endpoints: dict[str, tuple[int, Callable[[Parameters], Any]]] = {
            "/api/v3/time": (1, self._time),
            "/api/v3/exchangeInfo": (20, self._exchange_info),
            "/api/v3/trades": (25, self._newest),
            "/api/v3/historicalTrades": (25, self._historical),
            "/api/v3/aggTrades": (4, self._aggregates),
        }

    def weights(self, ip: str) -> Weights:
        """Return the weight that `ip` uses."""
        return self._weights.setdefault(ip, Weights(self._limits))

    def get(self, target: str, ip: str) -> Answer:
        """Answer a GET for `target` (path and query) from `ip`."""
        url = urlsplit(target)
        self._counters.requests[url.path] += 1
        if url.path not in self._endpoints:
            return Answer(404, {"code": 0, "msg": "Not found."})
        weight, endpoint = self._endpoints[url.path]
        weights = self.weights(ip)
        self._counters.weight += weight
        refusal = weights.spend(weight)
        if refusal is not None:
            answer = _refused(refusal, self._limits)
        else:
            try:
                answer = Answer(200, endpoint(dict(parse_qsl(url.query, keep_blank_values=True))))
            except RestError as error:
                answer = Answer(400, {"code": error.code, "msg": str(error)})
        answer.headers["X-MBX-USED-WEIGHT-1M"] = str(weights.used)
        return answer

    def _time(self, _: Parameters) -> dict[str, Any]:
        return {"serverTime": time.time_ns() // 1_000_000}

    def _exchange_info(self, parameters: Parameters) -> dict[str, Any]:
        markets = [self._market(parameters)] if "symbol" in parameters else self._markets.values()
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self._limits.weight,
        }
        return {
            "timezone": "UTC",
            "serverTime": time.time_ns() // 1_000_000,
            "rateLimits": [limit],
            "exchangeFilters": [],
            "symbols": [
                {"symbol": market.symbol, "status": market.status, "isSpotTradingAllowed": True} for market in markets
            ],
        }

    def _newest(self, parameters: Parameters) -> list[dict[str, Any]]:
        market, limit = self._market(parameters), _limit(parameters)
        issued = market.issued
        return [_row(trade) for trade in market.trades(issued - limit, issued)]

    def _historical(self, parameters: Parameters) -> list[dict[str, Any]]:
        market, limit, from_id = self._market(parameters), _limit(parameters), _number(parameters, "fromId")
        if from_id is None:
            return self._newest(parameters)
        start = market.position(from_id)
        return [_row(trade) for trade in market.trades(start, start + limit)]

    def _aggregates(self, parameters: Parameters) -> list[dict[str, Any]]:
        market, limit = self._market(parameters), _limit(parameters)
        from_id, start, end = (_number(parameters, name) for name in ("fromId", "startTime", "endTime"))
        if from_id is not None and (start is not None or end is not None):
            raise RestError(-1128, "Combination of optional parameters invalid.")
        stop = market.issued if end is None else market.position_at((end + 1) * 1000)
        if from_id is None and start is None:
            return _last_aggregates(market, stop, limit)
        begin = max((from_id or 1) - 1, 0) if start is None else market.position_at(start * 1000)
        return _first_aggregates(market, begin, stop, limit)

    def _market(self, parameters: Parameters) -> Market:
        symbol = parameters.get("symbol")
        if symbol is None:
            raise RestError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        _check(symbol, "symbol", _SYMBOL, r"^[\w\-._&&[^a-z]]{1,50}$")
        if symbol not in self._markets:
            raise RestError(-1121, "Invalid symbol.")
        return self._markets[symbol]


def _check(value: str, name: str, pattern: re.Pattern[str], legal: str) -> None:
    if not value:
        raise RestError(-1105, f"Parameter '{name}' was empty.")
    if not pattern.fullmatch(value):
        raise RestError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def _number(parameters: Parameters, name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    _check(value, name, _NUMBER, "^[0-9]{1,20}$")
    return int(value)


def _limit(parameters: Parameters) -> int:
    limit = _number(parameters, "limit")
    if limit is None:
        return 500
    if not 0 < limit <= _MOST_ROWS:
        raise RestError(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def _row(trade: Trade) -> dict[str, Any]:
    return {
        "id": trade.id,
        "price": trade.price,
        "qty": trade.quantity,
        "quoteQty": f"{Decimal(trade.price) * Decimal(trade.quantity):.8f}",
        "time": trade.time // 1000,
        "isBuyerMaker": trade.is_buyer_maker,
        "isBestMatch": True,
    }


def _block_aggregates(market: Market, number: int, stop: int) -> list[dict[str, Any]]:
    """Return one block's trades as far as `stop`, those of the same millisecond, price and side together.

    An aggregate ends with its block, so that it is the same for whoever asks. Its id is the position of its first
    trade, counted from 1: ascending, but with gaps, and not a trade id.
    """
    rows, position = [], number * BLOCK + 1
    trades = market.trades(number * BLOCK, min(stop, (number + 1) * BLOCK))
    for (moment, price, maker), group in groupby(
        trades, key=lambda trade: (trade.time // 1000, trade.price, trade.is_buyer_maker)
    ):
        members = list(group)
        quantity = sum(Decimal(trade.quantity) for trade in members)
        rows.append(
            {
                "a": position,
                "p": price,
                "q": f"{quantity:.8f}",
                "f": members[0].id,
                "l": members[-1].id,
                "T": moment,
                "m": maker,
                "M": True,
            }
        )
        position += len(members)
    return rows


def _first_aggregates(market: Market, begin: int, stop: int, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(begin // BLOCK, -(-stop // BLOCK)):
        found += [row for row in _block_aggregates(market, number, stop) if row["a"] > begin]
        if len(found) >= limit:
            break
    return found[:limit]


def _last_aggregates(market: Market, stop: int, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range((stop - 1) // BLOCK, -1, -1):
        found = _block_aggregates(market, number, stop) + found
        if len(found) >= limit:
            break
    return found[-limit:]


def _refused(refusal: Refusal, limits: Limits) -> Answer:
    if refusal.status == 418:
        until = time.time_ns() // 1_000_000 + refusal.retry_after * 1000
        message = (
            f"Way too much request weight used; IP banned until {until}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
    else:
        message = (
            f"Too much request weight used; current limit is {limits.weight} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
    return Answer(refusal.status, {"code": -1003, "msg": message}, {"Retry-After": str(refusal.retry_after)})
