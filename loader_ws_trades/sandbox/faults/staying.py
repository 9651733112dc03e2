"""Faults that stay, until their time is over or as many have met them as should."""

from __future__ import annotations

import time
from dataclasses import dataclass

from loader_ws_trades.sandbox.faults.fault import Fault, OnAnswer, OnHandshake, OnOpening
from loader_ws_trades.sandbox.faults.rest_faults import RestLag


@dataclass
class _Stay:
    fault: Fault
    until: float | None
    left: int | None
    passed: int = 0
    """Requests that it has let pass since it was met last."""

    @property
    def over(self) -> bool:
        return self.left == 0 or (self.until is not None and time.monotonic() >= self.until)

    def is_turn(self, fault: OnAnswer) -> bool:
        """Whether the request that it concerns meets it; counts the request."""
        self.passed = (self.passed + 1) % (fault.every or 1)
        return self.passed == 0

    def take(self) -> None:
        if self.left is not None:
            self.left -= 1


class Staying:
    """The faults that stay, the oldest first; of several, the oldest is met."""

    def __init__(self) -> None:
        self._stays: list[_Stay] = []

    def add(self, fault: Fault, *, seconds: float | None, times: int | None) -> None:
        """Let a fault stay for a time and for a number of times; none: without end."""
        self._stays.append(_Stay(fault, None if seconds is None else time.monotonic() + seconds, times))

    def clear(self) -> None:
        """Let none stay."""
        self._stays.clear()

    def handshake(self, number: int) -> OnHandshake | None:
        """Return what the handshake meets that would be the connection of that number."""
        for stay in self._present():
            if isinstance(stay.fault, OnHandshake) and stay.fault.connection in {None, number}:
                stay.take()
                return stay.fault
        return None

    def openings(self, number: int) -> list[OnOpening]:
        """Return all that the new connection of that number meets."""
        met = []
        for stay in self._present():
            if isinstance(stay.fault, OnOpening) and stay.fault.connection in {None, number}:
                stay.take()
                met.append(stay.fault)
        return met

    def answer(self, path: str) -> OnAnswer | None:
        """Return what a REST request for that path meets."""
        for stay in self._present():
            if isinstance(stay.fault, OnAnswer) and path.endswith(stay.fault.path or "") and stay.is_turn(stay.fault):
                stay.take()
                return stay.fault
        return None

    def lag(self) -> float:
        """Return the seconds that REST is behind."""
        return max((stay.fault.seconds for stay in self._present() if isinstance(stay.fault, RestLag)), default=0.0)

    def _present(self) -> list[_Stay]:
        self._stays = [stay for stay in self._stays if not stay.over]
        return self._stays
