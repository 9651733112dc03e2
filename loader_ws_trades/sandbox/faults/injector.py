"""The faults of one exchange: when and where each strikes; everything the exchange sends passes here."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from loader_ws_trades.sandbox.exchange.pending_answer import PendingAnswer
from loader_ws_trades.sandbox.exchange.state import ExchangeState
from loader_ws_trades.sandbox.faults.active import ActiveFaults
from loader_ws_trades.sandbox.faults.fault import Context, Fault
from loader_ws_trades.sandbox.faults.frame_filters import Frame, FrameFilter
from loader_ws_trades.sandbox.market.market import Market


class _Schedule:
    """Calls actions at their time; those that fall due while no event loop runs are called when the next one starts."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._entries, (time.monotonic() + seconds, next(self._numbers), action))
        self.run_due()

    def clear(self) -> None:
        self._entries.clear()

    def run_due(self) -> None:
        """Call what is due, and set a timer in the present event loop for the rest."""
        while self._entries and self._entries[0][0] <= time.monotonic():
            heapq.heappop(self._entries)[-1]()
        if self._timer is not None:
            self._timer.cancel()
        if self._entries:
            wait = max(self._entries[0][0] - time.monotonic(), 0)
            self._timer = asyncio.get_running_loop().call_later(wait, self.run_due)


@dataclass
class _Countdown:
    """A fault that strikes a connection after `left` more trades."""

    connection: Client
    left: int
    fault: Fault


class FaultInjector:
    """Makes faults strike at their time; belongs to the exchange's event loop.

    It survives a stop of the exchange: what falls due meanwhile strikes at the next start.
    """

    def __init__(self, scenario: Iterable[Fault] = ()) -> None:
        self.struck: list[tuple[float, Fault]] = []
        """The faults that have struck, with the seconds since the exchange first started."""
        self.state: ExchangeState
        self.active = ActiveFaults()
        self._scenario = tuple(scenario)
        self._began: float | None = None
        self._numbers = count()
        self._schedule = _Schedule()
        self._start_positions: dict[Market, int] = {}
        self._at_positions: dict[Market, list[tuple[int, int, Fault]]] = {}
        self._awaiting_connection: list[Fault] = []
        self._countdowns: list[_Countdown] = []
        self._filters: list[FrameFilter] = []

    # For the exchange.

    def start(self, state: ExchangeState) -> None:
        """Start, or continue after a stop of the exchange; raises `ValueError` for an impossible fault."""
        self.state = state
        if self._began is None:
            self._began = time.monotonic()
            self._start_positions = {market: market.issued for market in state.markets}
            for fault in self._scenario:
                self.inflict(fault)
        self._countdowns.clear()
        self._schedule.run_due()

    def inflict(self, fault: Fault) -> None:
        """Make a fault strike at its time; raises `ValueError` for an impossible one."""
        if fault.connection is not None and fault.needs_connection:
            self._awaiting_connection.append(fault)
            for connection in self.connections():
                self._arm(connection)
        elif fault.at_id is not None or fault.after is not None:
            market = self.market(fault)
            position = self._position(market, fault)
            if fault.in_advance:
                self.strike(fault, position)
            else:
                heapq.heappush(self._at_positions.setdefault(market, []), (position, next(self._numbers), fault))
        else:
            self._strike_at_time(fault)

    def heal(self) -> None:
        """End and cancel all faults; connections that cannot continue are cut."""
        for pending in (self._at_positions, self._awaiting_connection, self._countdowns, self.active, self._schedule):
            pending.clear()
        for frame_filter in self._filters:
            for connection, data in frame_filter.held():
                connection.writer.write_trades(data)
        self._filters.clear()
        for connection in list(self.state.connections):
            if connection.stuck:
                connection.abort()
            else:
                connection.thaw()

    # For the faults.

    def market(self, fault: Fault) -> Market:
        """Return the market whose trades a fault affects; raises `ValueError` if there is none."""
        market = self._find_market(fault)
        if market is None:
            raise ValueError(f"the exchange has no market {fault.symbol or ''}".rstrip())
        return market

    def connections(self) -> list[Client]:
        """Return the open WebSocket connections, oldest first."""
        found = [one for one in self.state.connections if one.open]
        return sorted(found, key=lambda one: one.number)

    def strike(self, fault: Fault, position: int | None = None, connections: list[Client] | None = None) -> None:
        """Make a fault strike now: on all connections or some of them, or from a position of the market on."""
        market = self._find_market(fault)
        if position is None and market is not None:
            position = self.state.streams[market.stream].position
        self.struck.append((self._seconds(), fault))
        affected = [one for one in self.connections() if connections is None or one in connections]
        fault.strike(Context(self, affected, position or 0))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a time."""
        self._schedule.add(seconds, action)

    def activate(self, fault: Fault, *, seconds: float | None, times: int | None) -> None:
        """Keep a fault active for a time and for a number of uses; none: no limit."""
        self.active.add(fault, seconds=seconds, times=times)

    def add_filter(self, frame_filter: FrameFilter) -> None:
        """Put a filter between the stream and its subscribers."""
        self._filters.append(frame_filter)
        self._filters.sort(key=lambda one: one.runs_last)

    # For streams, connections and REST.

    def next_strike(self, market: Market, start: int, stop: int) -> int | None:
        """Return the position before `stop` at which the next fault strikes; none: no fault does."""
        if self._filters:
            self._filters = [one for one in self._filters if not one.is_over(market, start)]
        pending = self._at_positions.get(market)
        return max(pending[0][0], start) if pending and pending[0][0] < stop else None

    def strike_at(self, market: Market, position: int) -> None:
        """Make those faults strike that are due before the trade at `position` is sent."""
        pending = self._at_positions[market]
        while pending and pending[0][0] <= position:
            self.strike(heapq.heappop(pending)[-1], position)

    def touch(self, connection: Client, batch: Batch) -> bool:
        """Whether any fault changes the batch, or strikes while it is sent."""
        return any(one.connection is connection for one in self._countdowns) or any(
            one.applies_to(connection, batch) for one in self._filters
        )

    def frames(self, connection: Client, batch: Batch) -> bytes:
        """Return the bytes to send in place of the batch's; may be none."""
        due = [one for one in self._countdowns if one.connection is connection]
        first = min(due, key=lambda one: one.left, default=None)
        if first is None or first.left >= len(batch.ids):
            for one in due:
                one.left -= len(batch.ids)
            return self._filtered(connection, batch)
        head, tail = batch.split(first.left)
        for one in due:
            one.left -= len(head.ids)
        self._countdowns.remove(first)
        connection.writer.write_trades(self._filtered(connection, head))
        struck = self._find_market(first.fault)
        self.strike(first.fault, tail.position if struck is batch.market else None, [connection])
        return self.frames(connection, tail)

    def handshake(self, connection: Client) -> bool:
        """Whether the exchange should answer a WebSocket handshake; if not, a fault has handled it."""
        fault = self.active.handshake(self.state.counters.connections + 1)
        if fault is not None:
            fault.respond(connection)
        return fault is None

    def opened(self, connection: Client) -> None:
        """Take note of a new WebSocket connection."""
        for fault in self.active.on_open(connection.number):
            fault.on_open(connection, self.state)
        self._arm(connection)

    def answer(self, pending: PendingAnswer) -> None:
        """Send a REST answer, or what a fault makes of it."""
        fault = self.active.answer(pending.path)
        if fault is None:
            pending.respond()
        else:
            fault.answer(pending)

    def _position(self, market: Market, fault: Fault) -> int:
        if fault.at_id is None:
            return self._start_positions.get(market, 0) + (fault.after or 0)
        position = market.position(fault.at_id)
        if fault.in_advance and position < market.issued:
            raise ValueError(f"the trade {fault.at_id} has already been issued")
        return position

    def _find_market(self, fault: Fault) -> Market | None:
        if fault.symbol is not None:
            return self.state.market(fault.symbol)
        return self.state.markets[0] if self.state.markets else None

    def _strike_at_time(self, fault: Fault) -> None:
        wait = (fault.at or 0) - self._seconds()
        if fault.at is None or wait <= 0:
            self.strike(fault)
        else:
            self.later(wait, lambda: self.strike(fault))

    def _arm(self, connection: Client) -> None:
        for fault in [one for one in self._awaiting_connection if self._affects(one, connection.number)]:
            if not fault.each:
                self._awaiting_connection.remove(fault)
            if fault.after is not None:
                self._countdowns.append(_Countdown(connection, fault.after, fault))
            elif fault.at:
                self.later(fault.at, self._striker(fault, connection))
            else:
                self.strike(fault, connections=[connection])

    def _affects(self, fault: Fault, number: int) -> bool:
        if not fault.each:
            return fault.connection == number
        return number >= (fault.connection or 0) and (fault.until is None or self._seconds() < fault.until)

    def _striker(self, fault: Fault, connection: Client) -> Callable[[], None]:
        return lambda: self.strike(fault, connections=[connection])

    def _filtered(self, connection: Client, batch: Batch) -> bytes:
        touching = [one for one in self._filters if one.applies_to(connection, batch)]
        if not touching:
            return batch.data
        frames = [Frame(position, data) for position, data in enumerate(batch.frames(), batch.position)]
        for frame_filter in touching:
            frames = frame_filter.apply(connection, frames)
        return b"".join(frame.data for frame in frames)

    def _seconds(self) -> float:
        return time.monotonic() - (self._began or 0.0)
