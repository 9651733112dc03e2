"""The exchange's REST API, as far as the loader needs it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3

from loader_ws_trades.config import redacted_url
from loader_ws_trades.errors import ConfigurationError, UnavailableError

_UNKNOWN_SYMBOL = {-1121, -1100}  # invalid symbol; characters that no symbol has


class _Symbol(msgspec.Struct):
    status: str


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class Rest:
    """A client of the REST API at `base_url`; `timeout` in seconds bounds connecting and each read."""

    def __init__(self, base_url: str, *, timeout: float = 5.0) -> None:
        self._base = base_url.rstrip("/")
        self._pool = _pool(base_url, urllib3.Timeout(connect=timeout, read=timeout))

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def symbol_status(self, symbol: str) -> str:
        """The trading status of `symbol`: TRADING, HALT, BREAK or CANCEL_ONLY (source: `GET /api/v3/exchangeInfo`).

        Raises:
            ConfigurationError: if the exchange does not know the symbol, or does not serve this location.
            UnavailableError: if it did not answer, or not with what was asked for.
        """
        status, body = self._get("/api/v3/exchangeInfo", {"symbol": symbol})
        if status == HTTPStatus.OK:
            try:
                return msgspec.json.decode(body, type=_ExchangeInfo).symbols[0].status
            except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as error:
                raise UnavailableError(f"the answer about {symbol} is not as documented ({error})") from error
        if status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
            raise ConfigurationError(
                "The exchange does not serve this location (HTTP 451); run the loader in a permitted region, or set "
                "BINANCE_REST_URL (--binance-rest-url) to an endpoint that serves yours"
            )
        answer = _error(body)
        if answer.code in _UNKNOWN_SYMBOL:
            raise ConfigurationError(
                f"The exchange does not know the symbol {symbol}; check SYMBOL (--symbol), which is written "
                "without a separator, like BTCUSDT"
            )
        raise UnavailableError(f"the exchange answered HTTP {status} {answer.msg}".rstrip())

    def _get(self, path: str, fields: dict[str, Any]) -> tuple[int, bytes]:
        try:
            answer = self._pool.request("GET", self._base + path, fields=fields, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(f"{redacted_url(self._base)} did not answer ({error})") from error
        return answer.status, answer.data


def _pool(url: str, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    """A pool that honours the usual proxy variables, as the stream's library does."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, timeout=timeout)
    return urllib3.PoolManager(timeout=timeout)


def _error(body: bytes) -> _Error:
    try:
        return msgspec.json.decode(body, type=_Error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Error()
