"""The faults of one exchange: when each of them strikes, and where; all that the exchange says passes here."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from loader_ws_trades.sandbox.exchange.asked import Asked
from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from loader_ws_trades.sandbox.exchange.venue import Venue
from loader_ws_trades.sandbox.faults.agenda import Agenda
from loader_ws_trades.sandbox.faults.fault import Fault, Occasion
from loader_ws_trades.sandbox.faults.staying import Staying
from loader_ws_trades.sandbox.faults.tampering import Frame, Tampering
from loader_ws_trades.sandbox.market.market import Market


@dataclass
class _Countdown:
    """A fault that strikes a connection after `left` more trades."""

    connection: Client
    left: int
    fault: Fault


class Faults:
    """Lets faults strike when their time has come; belongs to the exchange's event loop.

    It outlives a stop of the exchange: what falls due meanwhile strikes at the next start.
    """

    def __init__(self, scenario: Iterable[Fault] = ()) -> None:
        self.struck: list[tuple[float, Fault]] = []
        """What has struck, with the seconds since the exchange first started."""
        self.venue: Venue
        self.staying = Staying()
        self._scenario = tuple(scenario)
        self._began: float | None = None
        self._opening = 0
        self._numbers = count()
        self._agenda = Agenda()
        self._marks: list[tuple[int, int, Fault]] = []
        self._for_connections: list[Fault] = []
        self._countdowns: list[_Countdown] = []
        self._tampering: list[Tampering] = []

    # For the exchange.

    def start(self, venue: Venue) -> None:
        """Begin, or go on after a stop of the exchange; raises `ValueError` for a fault that cannot be."""
        self.venue = venue
        if self._began is None:
            self._began = time.monotonic()
            self._opening = venue.markets[0].issued if venue.markets else 0
            for fault in self._scenario:
                self.inflict(fault)
        self._countdowns.clear()
        self._agenda.go_on()

    def inflict(self, fault: Fault) -> None:
        """Let a fault strike when it says; raises `ValueError` for one that cannot be."""
        if fault.connection is not None and fault.awaits_connection:
            self._for_connections.append(fault)
            for connection in self.connections():
                self._meet(connection)
        elif fault.at_id is not None or fault.after is not None:
            position = self._position(fault)
            if fault.ahead:
                self.strike(fault, position)
            else:
                heapq.heappush(self._marks, (position, next(self._numbers), fault))
        else:
            self._at(fault)

    def heal(self) -> None:
        """End all that is wrong, and let nothing more strike; connections that cannot be saved are cut."""
        for pending in (self._marks, self._for_connections, self._countdowns, self.staying, self._agenda):
            pending.clear()
        for tampering in self._tampering:
            for connection, data in tampering.held():
                connection.outlet.write_trades(data)
        self._tampering.clear()
        for connection in list(self.venue.connections):
            if connection.stuck:
                connection.abort()
            else:
                connection.thaw()

    # For the faults.

    @property
    def market(self) -> Market:
        """The market whose trades are meant; raises `ValueError` if the exchange has none."""
        if not self.venue.markets:
            raise ValueError("the exchange has no market")
        return self.venue.markets[0]

    def connections(self) -> list[Client]:
        """Return the open stream connections, the oldest first."""
        found = [one for one in self.venue.connections if one.open]
        return sorted(found, key=lambda one: one.number)

    def strike(self, fault: Fault, position: int | None = None, connections: list[Client] | None = None) -> None:
        """Let a fault strike now: all connections or some of them, or from a position of the market on."""
        if position is None and self.venue.markets:
            position = self.venue.streams[self.market.stream].position
        self.struck.append((self._seconds(), fault))
        concerned = [one for one in self.connections() if connections is None or one in connections]
        fault.strike(Occasion(self, concerned, position or 0))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a time."""
        self._agenda.add(seconds, action)

    def activate(self, fault: Fault, *, seconds: float | None, times: int | None) -> None:
        """Let a fault stay for a time and for a number of times; none: without end."""
        self.staying.add(fault, seconds=seconds, times=times)

    def tamper(self, tampering: Tampering) -> None:
        """Put something between the stream and its subscribers."""
        self._tampering.append(tampering)
        self._tampering.sort(key=lambda one: one.last)

    # For streams, connections and REST.

    def mark(self, market: Market, start: int, stop: int) -> int | None:
        """Return the position before `stop` at which the next fault strikes; none: no fault does."""
        if not (self._tampering or self._marks) or market is not self.market:
            return None
        self._tampering = [one for one in self._tampering if not one.over(start)]
        if self._marks and self._marks[0][0] < stop:
            return max(self._marks[0][0], start)
        return None

    def reach(self, position: int) -> None:
        """Let strike what is due before the trade at `position` goes out."""
        while self._marks and self._marks[0][0] <= position:
            self.strike(heapq.heappop(self._marks)[-1], position)

    def frames(self, connection: Client, batch: Batch) -> bytes:
        """Return the bytes to send in place of the batch's; may be none."""
        if not (self._tampering or self._countdowns):
            return batch.data
        due = [one for one in self._countdowns if one.connection is connection]
        first = min(due, key=lambda one: one.left, default=None)
        if first is None or first.left >= len(batch.ids):
            for one in due:
                one.left -= len(batch.ids)
            return self._tampered(connection, batch)
        head, tail = batch.split(first.left)
        for one in due:
            one.left -= len(head.ids)
        self._countdowns.remove(first)
        connection.outlet.write_trades(self._tampered(connection, head))
        self.strike(first.fault, tail.position, [connection])
        return self.frames(connection, tail)

    def handshake(self, connection: Client) -> bool:
        """Say whether the exchange should answer a WebSocket handshake; if not, a fault has seen to it."""
        fault = self.staying.handshake(self.venue.counters.connections + 1)
        if fault is not None:
            fault.receive(connection)
        return fault is None

    def opened(self, connection: Client) -> None:
        """Take note of a new stream connection."""
        for fault in self.staying.openings(connection.number):
            fault.greet(connection, self.venue)
        self._meet(connection)

    def answer(self, asked: Asked) -> None:
        """Give a REST answer, or what a fault makes of it."""
        fault = self.staying.answer(asked.path)
        if fault is None:
            asked.respond()
        else:
            fault.give(asked)

    def _position(self, fault: Fault) -> int:
        if fault.at_id is None:
            return self._opening + (fault.after or 0)
        position = self.market.position(fault.at_id)
        if fault.ahead and position < self.market.issued:
            raise ValueError(f"the trade {fault.at_id} is issued already")
        return position

    def _at(self, fault: Fault) -> None:
        wait = (fault.at or 0) - self._seconds()
        if fault.at is None or wait <= 0:
            self.strike(fault)
        else:
            self.later(wait, lambda: self.strike(fault))

    def _meet(self, connection: Client) -> None:
        for fault in [one for one in self._for_connections if self._concerns(one, connection.number)]:
            if not fault.each:
                self._for_connections.remove(fault)
            if fault.after is not None:
                self._countdowns.append(_Countdown(connection, fault.after, fault))
            elif fault.at:
                self.later(fault.at, self._striker(fault, connection))
            else:
                self.strike(fault, connections=[connection])

    def _concerns(self, fault: Fault, number: int) -> bool:
        if not fault.each:
            return fault.connection == number
        return number >= (fault.connection or 0) and (fault.until is None or self._seconds() < fault.until)

    def _striker(self, fault: Fault, connection: Client) -> Callable[[], None]:
        return lambda: self.strike(fault, connections=[connection])

    def _tampered(self, connection: Client, batch: Batch) -> bytes:
        touching = [one for one in self._tampering if one.touches(connection, batch)]
        if not touching:
            return batch.data
        frames = [Frame(position, data) for position, data in enumerate(batch.frames(), batch.position)]
        for tampering in touching:
            frames = tampering.apply(connection, frames)
        return b"".join(frame.data for frame in frames)

    def _seconds(self) -> float:
        return time.monotonic() - (self._began or 0.0)
