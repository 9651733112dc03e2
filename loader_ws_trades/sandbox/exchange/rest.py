"""The exchange's REST answers, as values: no socket here."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit

import msgspec

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange.limits import Limits, Rejection, WeightWindow
from loader_ws_trades.sandbox.exchange.rows import (
    first_aggregates,
    first_trades,
    last_aggregates,
    last_trades,
    ticker_row,
    trade_row,
)
from loader_ws_trades.sandbox.exchange.symbols import symbol_row
from loader_ws_trades.sandbox.market.market import Market, Status

Parameters = Mapping[str, str]

_MOST_ROWS = 1000
_SYMBOL = re.compile(r"(?:[^\Wa-z]|[-.]){1,50}")
_NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass
class Answer:
    """A REST answer; the body is a JSON value to be encoded, or text of another kind."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json;charset=UTF-8"

    def encoded(self) -> tuple[bytes, bytes]:
        """Return head and body as bytes."""
        body = msgspec.json.encode(self.body) if "json" in self.kind else str(self.body).encode()
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        headers = {"Content-Type": self.kind, "Content-Length": len(body), **self.headers}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1"), body


class RestError(Exception):
    """The request is rejected with HTTP 400 and an error code of the exchange."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rest:
    """Answers requests and counts their weight by IP."""

    def __init__(
        self,
        limits: Limits,
        counters: Counters,
        lag: Callable[[], float],
        clock_offset: float = 0.0,
    ) -> None:
        """Serve `markets`.

        `lag` returns how many seconds the database is behind; the clock is `clock_offset` seconds ahead.
        """
        self._lag = lag
        self._ahead = round(clock_offset * 1000)
        self.markets: dict[str, Market] = {}
        """Those that are listed, by symbol."""
        self._limits = limits
        self._counters = counters
        self._weights: dict[str, WeightWindow] = {}
        self._endpoints: dict[str, tuple[int | Callable[[Parameters], int], Callable[[Parameters], Any]]] = {
            "/api/v3/time": (1, self._time),
            "/api/v3/exchangeInfo": (20, self._exchange_info),
            "/api/v3/trades": (25, self._newest),
            "/api/v3/historicalTrades": (25, self._historical),
            "/api/v3/aggTrades": (4, self._aggregates),
            "/api/v3/ticker/24hr": (_ticker_weight, self._tickers),
        }

    def weights(self, ip: str) -> WeightWindow:
        """Return the weight window of `ip`."""
        return self._weights.setdefault(ip, WeightWindow(self._limits))

    def get(self, target: str, ip: str) -> Answer:
        """Answer a GET for `target` (path and query) from `ip`."""
        url = urlsplit(target)
        self._counters.requests[url.path] += 1
        if url.path not in self._endpoints:
            return Answer(404, {"code": 0, "msg": "Not found."})
        parameters = dict(parse_qsl(url.query, keep_blank_values=True))
        weight, endpoint = self._endpoints[url.path]
        weight = weight(parameters) if callable(weight) else weight
        weights = self.weights(ip)
        self._counters.weight += weight
        rejection = weights.spend(weight)
        self._counters.peak_weight = max(self._counters.peak_weight, weights.used)
        if rejection is not None:
            answer = _rejected(rejection, self._limits)
        else:
            try:
                answer = Answer(200, endpoint(parameters))
            except RestError as error:
                answer = Answer(400, {"code": error.code, "msg": str(error)})
        answer.headers["X-MBX-USED-WEIGHT-1M"] = str(weights.used)
        return answer

    def _time(self, _: Parameters) -> dict[str, Any]:
        return {"serverTime": self._now()}

    def _now(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead

    def _exchange_info(self, parameters: Parameters) -> dict[str, Any]:
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self._limits.weight,
        }
        return {
            "timezone": "UTC",
            "serverTime": self._now(),
            "rateLimits": [limit],
            "exchangeFilters": [],
            "symbols": [
                symbol_row(market, permissions=parameters.get("showPermissionSets") != "false")
                for market in self._listed(parameters)
            ],
        }

    def _listed(self, parameters: Parameters) -> Iterable[Market]:
        """Return the markets that `symbol`, `symbols` or `symbolStatus` name, or all."""
        if sum(name in parameters for name in ("symbol", "symbols", "symbolStatus")) > 1:
            raise RestError(-1128, "Combination of optional parameters invalid.")
        if "symbol" in parameters:
            return [self._market(parameters)]
        if (names := _symbols(parameters)) is not None:
            return [self._market({"symbol": name}) for name in names]
        status = parameters.get("symbolStatus")
        if status is not None and status not in get_args(Status):
            raise RestError(-1130, "Data sent for parameter 'symbolStatus' is not valid.")
        return [market for market in self.markets.values() if status in {None, market.status}]

    def _newest(self, parameters: Parameters) -> list[dict[str, Any]]:
        market, limit = self._market(parameters), _limit(parameters)
        return [trade_row(trade) for trade in last_trades(market, market.issued, limit)]

    def _historical(self, parameters: Parameters) -> list[dict[str, Any]]:
        market, limit, from_id = self._market(parameters), _limit(parameters), _number(parameters, "fromId")
        stop = self._known(market)
        if from_id is None:
            return [trade_row(trade) for trade in last_trades(market, stop, limit)]
        return [trade_row(trade) for trade in first_trades(market, market.position(from_id), stop, limit)]

    def _aggregates(self, parameters: Parameters) -> list[dict[str, Any]]:
        market, limit = self._market(parameters), _limit(parameters)
        from_id, start, end = (_number(parameters, name) for name in ("fromId", "startTime", "endTime"))
        if from_id is not None and (start is not None or end is not None):
            raise RestError(-1128, "Combination of optional parameters invalid.")
        stop, sequence_start = self._known(market), market.sequence_start
        if end is not None:
            stop = min(stop, market.position_at((end + 1) * 1000))
        if from_id is None and start is None:
            return last_aggregates(market, stop, limit)
        begin = sequence_start + max((from_id or 1) - 1, 0) if start is None else market.position_at(start * 1000)
        return first_aggregates(market, max(begin, sequence_start), stop, limit)

    def _tickers(self, parameters: Parameters) -> Any:
        """Answer from memory: it does not lag."""
        kind = parameters.get("type", "FULL")
        if kind not in {"FULL", "MINI"}:
            raise RestError(-1130, "Data sent for parameter 'type' is not valid.")
        rows = [ticker_row(market, self._now(), full=kind == "FULL") for market in self._listed(parameters)]
        return rows[0] if "symbol" in parameters else rows

    def _known(self, market: Market) -> int:
        """Return the number of positions in the database, which may lag the stream."""
        lag = self._lag()
        return market.issued_before(lag) if lag else market.issued

    def _market(self, parameters: Parameters) -> Market:
        symbol = parameters.get("symbol")
        if symbol is None:
            raise RestError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        _check(symbol, "symbol", _SYMBOL, r"^[\w\-._&&[^a-z]]{1,50}$")
        if symbol not in self.markets:
            raise RestError(-1121, "Invalid symbol.")
        return self.markets[symbol]


def _check(value: str, name: str, pattern: re.Pattern[str], legal: str) -> None:
    if not value:
        raise RestError(-1105, f"Parameter '{name}' was empty.")
    if not pattern.fullmatch(value):
        raise RestError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def _symbols(parameters: Parameters) -> list[str] | None:
    """Return the names in `symbols`, a JSON array; None without it."""
    if "symbols" not in parameters:
        return None
    try:
        return msgspec.json.decode(parameters["symbols"], type=list[str])
    except msgspec.MsgspecError as error:
        raise RestError(-1100, "Illegal characters found in parameter 'symbols'.") from error


def _ticker_weight(parameters: Parameters) -> int:
    """Return 2 for 1 to 20 symbols, 40 for 21 to 100, 80 for more or all; a list that cannot be read costs 2."""
    try:
        names = [""] if "symbol" in parameters else _symbols(parameters)
    except RestError:
        return 2
    if names is None or len(names) > 100:
        return 80
    return 2 if len(names) <= 20 else 40


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


def _rejected(rejection: Rejection, limits: Limits) -> Answer:
    if rejection.status == 418:
        until = time.time_ns() // 1_000_000 + rejection.retry_after * 1000
        message = (
            f"Way too much request weight used; IP banned until {until}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
    else:
        message = (
            f"Too much request weight used; current limit is {limits.weight} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
    return Answer(rejection.status, {"code": -1003, "msg": message}, {"Retry-After": str(rejection.retry_after)})
