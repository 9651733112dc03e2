"""What `check` tries of the exchange: its REST API, its clock, the symbol, the stream and a first trade."""

from __future__ import annotations

import os
import threading
import time
from functools import cached_property
from queue import Empty, SimpleQueue

from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.disconnects import describe, permanent_error
from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.binance.rest import ROWS, TRADES_WEIGHT, MisconfiguredError, Rest
from loader_ws_trades.binance.transport import CONNECT_LIMIT
from loader_ws_trades.check.network import resolve_url
from loader_ws_trades.check.probes import Outcome, Probe, ok, skip, warn
from loader_ws_trades.config.settings import Settings, named, redacted_url
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.lifecycle import Deadline, Task
from loader_ws_trades.pipeline.trade import FrameDecoder, Refusal, Trade

_CLOCK_LIMIT = 1.0  # seconds that two clocks may differ
_WHOLE_WEIGHT = 6000  # the exchange's own limit; ours is judged, and not waited for
_PING_EVERY = 20.0  # seconds between two pings of the exchange
_FOR_A_TRADE = 5.0  # seconds that a trade is waited for when a ping has come
_TO_CLOSE = 2.0  # seconds


class ExchangeProbes:
    """The probes of one check; `close` ends the connections that they leave open.

    Args:
        settings: the settings, as far as they are usable.
        timeout: seconds that the first trade is waited for.
    """

    def __init__(self, settings: Settings, timeout: float) -> None:
        self._settings = settings
        self._timeout = timeout
        self._skew = (0.0, 0.0)  # seconds by which the exchange's clock is ahead, and how well that is known
        self._heard: SimpleQueue[list[bytes] | str] = SimpleQueue()  # frames, "open", "ping", "end"
        self._connection: Connection | None = None
        self._task: Task | None = None
        self._ending: Exception | None = None
        self._unknown = False  # whether the exchange does not know the symbol, and so will send nothing for ever
        self._trade: Trade | None = None

    def probes(self) -> list[Probe]:
        """All of them, in their order."""
        settings = self._settings
        ws, rest = ("binance_ws_url",), ("binance_rest_url",)
        return [
            Probe("REST host", lambda: resolve_url(settings.binance_rest_url, *rest), needs=rest),
            Probe("REST API", self._reach_rest, after=("REST host",), needs=rest),
            Probe("clock", self._compare_clocks, after=("REST API",)),
            Probe("symbol", self._know_symbol, after=("REST API",), needs=("symbol",)),
            Probe("stream host", lambda: resolve_url(settings.binance_ws_url, *ws), needs=ws),
            Probe("stream", self._connect, after=("stream host",), needs=("symbol", *ws)),
            Probe("first trade", self._first_trade, after=("stream",)),
            Probe("past trades", self._past_trades, after=("symbol", "first trade")),
        ]

    @cached_property
    def _rest(self) -> Rest:
        """Made when it is asked, behind the probe of its host: its proxy may be unusable."""
        return Rest(self._settings.binance_rest_url, threading.Event(), weight_limit=_WHOLE_WEIGHT)

    def close(self) -> None:
        """End the connections."""
        if self._connection and self._task:
            self._connection.close()
            self._connection.abort()
            self._task.join(_TO_CLOSE)
        if "_rest" in vars(self):
            self._rest.close()

    def _reach_rest(self) -> Outcome:
        sent, began = time.time(), time.monotonic()
        try:
            theirs = self._rest.time() / 1000
        except MisconfiguredError as error:
            raise ConfigurationError(str(error)) from error
        except UnavailableError as error:
            if error.lasting:
                raise
            wait = f"wait {error.retry_after:g} s" if error.retry_after else "check the network"
            raise UnavailableError(f"{error}; {wait} and {named('binance_rest_url')}") from error
        took = time.monotonic() - began
        self._skew = (theirs - (sent + took / 2), took / 2)
        used, limit = self._rest.counted, self._settings.rest_weight_limit
        if used is None:
            return ok("answers, and tells no used weight")
        if used + TRADES_WEIGHT > limit:
            return warn(
                f"This IP has used a request weight of {used} in this minute, and the limit is {limit}, so repair "
                f"would wait; raise {named('rest_weight_limit')}, up to {_WHOLE_WEIGHT}, or run fewer loaders on it"
            )
        return ok(f"used weight {used} of {limit}")

    def _compare_clocks(self) -> Outcome:
        ahead, unsure = self._skew
        if abs(ahead) <= _CLOCK_LIMIT + unsure:
            return ok(f"{abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} the exchange's")
        return warn(
            f"The clock of this machine is {abs(ahead):,.1f} s {'behind' if ahead > 0 else 'ahead of'} the exchange's; "
            "set it (NTP), because telemetry and the lag that is shown are wrong by that"
        )

    def _know_symbol(self) -> Outcome:
        symbol = self._settings.symbol
        try:
            status = self._rest.symbol_status(symbol)
        except ConfigurationError:
            self._unknown = True
            raise
        if status == "TRADING":
            return ok(f"{symbol} is traded")
        return warn(
            f"{symbol} is in status {status}, so no trades come until that changes; wait, or check {named('symbol')}"
        )

    def _connect(self) -> Outcome:
        url = self._settings.stream_url
        connection = self._connection = Connection(
            url,
            self._heard.put,
            lambda: self._heard.put("open"),
            silence_limit=self._settings.feed_silence_limit,
            on_ping=lambda: self._heard.put("ping"),
            proxy=proxy_for(url, os.environ),
        )

        def run() -> None:
            try:
                self._ending = connection.run()
            finally:
                self._heard.put("end")

        self._task = Task("check-stream", run)
        self._task.start()
        heard = self._hear(Deadline(CONNECT_LIMIT))
        if heard == "open":
            return ok("connected")
        why = describe(self._ending) if heard == "end" else "no answer in time"
        raise permanent_error(self._ending) or UnavailableError(
            f"No connection to {redacted_url(url)}: {why}; check {named('binance_ws_url')} and the network"
        )

    def _hear(self, deadline: Deadline) -> list[bytes] | str:
        """What came next, or "late" when the time is over."""
        try:
            return self._heard.get(timeout=max(0.001, deadline.remaining))
        except Empty:
            return "late"

    def _first_trade(self) -> Outcome:
        settings = self._settings
        if self._unknown:
            return skip("not tried, because of: symbol")
        decoder = FrameDecoder(settings.symbol)
        pinged, refused, deadline = False, list[Refusal](), Deadline(self._timeout)
        while (heard := self._hear(deadline)) not in ("end", "late"):
            if heard == "ping":
                pinged = True
                deadline.shorten(_FOR_A_TRADE)
                continue
            trades, others = decoder.decode([frame for frame in heard if isinstance(frame, bytes)])
            refused = refused or others
            if trades:
                self._trade = trades[0]
                return ok(f"id {trades[0].trade_id}, {trades[0].quantity} at {trades[0].price}")
        if heard == "end":
            raise UnavailableError(
                f"The exchange closed the stream: {describe(self._ending)}; check {named('binance_ws_url')}"
            )
        return self._silence(refused, pinged=pinged)

    def _silence(self, refused: list[Refusal], *, pinged: bool) -> Outcome:
        symbol = self._settings.symbol
        if refused:
            raise ConfigurationError(
                f"The stream sends what is no trade of {symbol} ({refused[0].kind}); check {named('binance_ws_url')}"
            )
        if pinged:
            return warn(
                f"The exchange pings, and there was no trade of {symbol}: quiet pairs are silent for minutes; give "
                "--timeout more to wait longer"
            )
        if self._timeout <= _PING_EVERY:
            return warn(
                f"There was no trade of {symbol} in {self._timeout:g} s: quiet pairs are silent for minutes; give "
                "--timeout more to wait longer"
            )
        raise UnavailableError(
            f"The stream is open and nothing came in {self._timeout:g} s, not even a ping; check "
            f"{named('binance_ws_url')} and the proxies on the way"
        )

    def _past_trades(self) -> Outcome:
        if self._settings.gap_repair == "off":
            return skip(f"not tried: {named('gap_repair')} is off")
        if self._trade is None:
            return skip("not tried: no trade was seen that others could be asked for by id")
        try:
            found, _ = self._rest.trades_from(self._settings.symbol, max(0, self._trade.trade_id - ROWS))
        except UnavailableError as error:
            raise UnavailableError(
                f"Past trades cannot be fetched, so gaps would stay: {error}; check {named('binance_rest_url')}",
                lasting=error.lasting,
            ) from error
        return ok(f"{len(found)} fetched, for a weight of {TRADES_WEIGHT}")
