"""The steps at the exchange: REST API and clock, symbol, stream, and the past trades that gap repair needs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cached_property, partial
from queue import Empty, SimpleQueue

from loader_ws_trades.binance.feed import Feed
from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.binance.rest import ROWS, TRADES_WEIGHT, Rest
from loader_ws_trades.binance.rest_errors import MisconfiguredError
from loader_ws_trades.check.steps import Result, Step, passed, skipped, warned
from loader_ws_trades.config.parsers import url_list
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.config.symbols import is_pattern
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.pipeline.trade import FrameDecoder, Trade
from loader_ws_trades.text import listed

_MAX_SKEW = 1.0  # seconds
_WEIGHT_PER_IP = 6000  # the exchange's limit; exceeding ours is reported here, not waited for
_SILENCE_LIMIT = 25.0  # seconds; the exchange pings every 20
_TURN = 0.1  # seconds between looks at the feed
_CLOSE_TIMEOUT = 2.0  # seconds
_STREAMS = 200  # pairs of several whose streams are tested: one connection
_NAMED = 20  # pairs that a line names at most


class _FirstTrade:
    """Receives frames until the first trade; a `FrameReceiver`."""

    def __init__(self, symbols: AbstractSet[str]) -> None:
        self.answers: SimpleQueue[Trade | BaseException] = SimpleQueue()
        self.rejected: str | None = None
        """The kind of the first frame that was not a trade."""
        self._decoder = FrameDecoder(symbols)

    def connect(self, _slot: int, _symbols: Sequence[str]) -> int:
        return 1

    def add_streams(self, connection: int, symbols: Sequence[str]) -> None:
        pass

    def disconnect(self, connection: int) -> None:
        pass

    def in_order(self, _connection: int) -> bool:
        return True

    def take(self, frames: list[bytes], _connection: int = 0) -> bool:
        trades, others = self._decoder.decode(frames)
        self.rejected = self.rejected or next((frame.kind for frame in others), None)
        for trade in trades[:1]:
            self.answers.put(trade)
        return bool(trades)


class ExchangeSteps:
    """The steps of one check.

    Args:
        settings: the settings that are usable.
        timeout: seconds to wait for the first trade.
    """

    def __init__(self, settings: Settings, timeout: float) -> None:
        self._settings = settings
        self._timeout = timeout
        self._unknown = False  # whether the exchange does not know the symbol, so that no trade will come
        self.pairs = [] if settings.many else [settings.symbol]
        """The pairs that a run would load; of several, those that were found."""

    def steps(self) -> list[Step]:
        """All of them, in order."""
        urls, needs = url_list(self._settings.binance_ws_url), ("symbol", "binance_ws_url")
        find = Step("symbol", self._find_symbol, ("REST API",), ("symbol",))
        after: tuple[str, ...] = ()
        if self._settings.many:
            find, after = Step("symbols", self._find_symbols, ("REST API",)), ("symbols",)
        streams = [
            Step("stream" if len(urls) == 1 else f"stream {number}", partial(self._await_trade, url), after, needs)
            for number, url in enumerate(urls, 1)
        ]
        return [
            Step("REST API", self._reach_rest, needs=("binance_rest_url",)),
            find,
            *streams,
            Step("past trades", self._fetch_past_trades, after=(find.name,)),
        ]

    @cached_property
    def _rest(self) -> Rest:
        # Not made before its step: the proxy may be unusable.
        return Rest(self._settings.binance_rest_url, threading.Event(), weight_limit=_WEIGHT_PER_IP)

    def close(self) -> None:
        """Close the connections."""
        if "_rest" in vars(self):
            self._rest.close()

    def _reach_rest(self) -> Result:
        sent, began = time.time(), time.monotonic()
        try:
            server_time = self._rest.time() / 1000
        except MisconfiguredError as error:
            raise ConfigurationError(str(error)) from error
        except UnavailableError as error:
            if error.lasting:
                raise
            wait = f"wait {error.retry_after:g} s" if error.retry_after else "check the network"
            raise UnavailableError(f"{error}; {wait} and {named('binance_rest_url')}") from error
        half = (time.monotonic() - began) / 2
        skew, used, limit = sent + half - server_time, self._rest.counted or 0, self._settings.rest_weight_limit
        clock = f"{abs(skew):,.1f} s {'ahead of' if skew > 0 else 'behind'} the exchange's"
        warnings = []
        if abs(skew) > _MAX_SKEW + half:
            warnings.append(
                f"The clock of this machine is {clock}, and so are telemetry and the reported lag; synchronize it (NTP)"
            )
        if used + TRADES_WEIGHT > limit:
            warnings.append(
                f"This IP has used a request weight of {used} in this minute, out of {limit}, so gap repair would "
                f"have to wait; raise {named('rest_weight_limit')}, up to {_WEIGHT_PER_IP}, or run fewer loaders on it"
            )
        proxy = proxy_for(self._settings.binance_rest_url, os.environ)
        route = f", through the proxy {proxy.address}" if proxy else ""
        return passed(f"clock {clock}, request weight {used} of {limit}{route}", *warnings)

    def _find_symbol(self) -> Result:
        symbol = self._settings.symbol
        try:
            status = self._rest.symbol_status(symbol)
        except ConfigurationError:
            self._unknown = True
            raise
        if status == "TRADING":
            return passed(f"{symbol} is trading")
        return warned(f"{symbol} has status {status}, so no trades come until that changes; check {named('symbol')}")

    def _find_symbols(self) -> Result:
        entries = self._settings.symbols or ()
        statuses = self._rest.check_symbols([entry for entry in entries if not is_pattern(entry)])
        self.pairs[:] = self._settings.chosen(name for name, status in statuses.items() if status == "TRADING")
        if not self.pairs:
            return warned(f"No pair that is trading matches, so a run waits for one; check {named('symbols')}")
        halted = [f"{pair} ({statuses[pair]})" for pair in self.pairs if statuses.get(pair) != "TRADING"]
        text = f"No trades come of {listed(halted, _NAMED)} until that changes"
        return passed(f"{len(self.pairs)} pairs", *([text] if halted else []))

    def _await_trade(self, base_url: str) -> Result:
        pairs = self.pairs[:_STREAMS]
        if not pairs:
            return skipped("not tested: no pair is trading")
        settings, first = self._settings, _FirstTrade(set(pairs))
        limit = min(_SILENCE_LIMIT, settings.feed_silence_limit)
        one = replace(settings, binance_ws_url=base_url, feed_connections=1, startup_grace=0, feed_silence_limit=limit)
        feed = Feed(one, pairs)
        feed.start(first, first.answers.put)
        deadline, trouble = Deadline(self._timeout), ""
        try:
            while not deadline.passed:
                if any(feed.reconnects.values()) and not trouble:
                    trouble = feed.trouble() or "The connection to the exchange was lost"
                    deadline.shorten(_TURN)  # if this was a refusal, it arrives at once
                if self._unknown and feed.opened:
                    return passed("connected; an unknown symbol has no trades")
                try:
                    answer = first.answers.get(timeout=min(_TURN, deadline.remaining))
                except Empty:
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                of = f" of {answer.symbol}" if settings.many else ""
                return passed(f"trade {answer.trade_id}{of}, {answer.quantity} at {answer.price}")
        finally:
            feed.close()
            feed.join(_CLOSE_TIMEOUT)
        return self._without_trade(trouble or feed.trouble(), first.rejected)

    def _without_trade(self, trouble: str | None, rejected: str | None) -> Result:
        symbol = self._settings.symbol or f"{len(self.pairs)} pairs"
        check_url = f"check {named('binance_ws_url')}"
        if trouble:
            raise UnavailableError(f"{trouble}; {check_url} and the network")
        if rejected:
            raise ConfigurationError(f"The stream's frames are not trades of {symbol} ({rejected}); {check_url}")
        return warned(
            f"No trade of {symbol} arrived in {self._timeout:g} s; quiet pairs may have none for minutes, a longer "
            "--timeout waits for one",
        )

    def _fetch_past_trades(self) -> Result:
        if self._settings.gap_repair == "off":
            return skipped(f"not tested: {named('gap_repair')} is off")
        if not self.pairs:
            return skipped("not tested: no pair is trading")
        symbol = self.pairs[0]
        try:
            newest = self._rest.newest_id(symbol)
            trades, _ = self._rest.trades_from(symbol, max(0, newest - ROWS))
        except UnavailableError as error:
            raise UnavailableError(
                f"Past trades cannot be fetched, so gaps would remain: {error}; check {named('binance_rest_url')}",
                lasting=error.lasting,
            ) from error
        return passed(f"fetched {len(trades)}")
