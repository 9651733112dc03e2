"""Requests to the exchange's REST API, within its limit on weight; what goes wrong is an `UnavailableError`."""

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
from loader_ws_trades.binance.rest_errors import WAIT_FOR_US, rejected, unreachable
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.trade import BAD_INPUT
from loader_ws_trades.text import header_number, redacted_url

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_LONG_WAIT = 10.0  # seconds; longer waits for request weight are logged
_WAIT_LINES = (10, 3600.0)  # log lines about them, per seconds


class RestClient:
    """Sends requests to the REST API at `base_url`.

    Args:
        base_url: the URL before `/api/v3`.
        stopping: ends every wait, and aborts requests.
        weight_limit: request weight per minute to stay below.
        at_once: the share of it that may be used at once; the rest is spread evenly.
        timeout: seconds for connecting, and for each read.

    Raises:
        ConfigurationError: if the proxy to be used is invalid.
    """

    def __init__(
        self,
        base_url: str,
        stopping: threading.Event,
        *,
        weight_limit: int = 3000,
        at_once: float = 1.0,
        timeout: float = 5.0,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._stopping = stopping
        self._limit = WeightLimit(weight_limit, at_once)
        self._waits = Throttle(log, *_WAIT_LINES)
        self._proxy = proxy_for(base_url, os.environ)
        self._http = HttpClient(_pool(self._proxy, urllib3.Timeout(connect=timeout, read=timeout)), stopping)
        self.close = self._http.close
        self.counted: int | None = None
        """The request weight that the exchange reported for our IP address in its latest response."""

    @property
    def weight_used(self) -> int:
        """Request weight used in the last minute, by us and by others on the same IP address."""
        return self._limit.used

    def await_weight(self, weight: int) -> None:
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

    def get(self, path: str, fields: dict[str, Any], weight: int, **bounds: int) -> bytes:
        """The body of a response; `bounds` are those of `HttpClient.get`.

        Raises:
            UnavailableError: if there is none.
        """
        self.await_weight(weight)
        self._limit.spend(weight)
        base = redacted_url(self._base)
        try:
            response = self._http.get(self._base + path, fields, **bounds)
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


def decoded(body: bytes, kind: type[_T]) -> _T:
    """A response as `kind`.

    Raises:
        UnavailableError: if it is not documented like that.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except BAD_INPUT as error:
        raise undocumented(error) from error


def undocumented(error: Exception) -> UnavailableError:
    """The error for a response that is not as documented."""
    return UnavailableError(f"REST's response is not as documented ({error})")
