"""Faults that stay active for a time, or for a number of requests or connections."""

from __future__ import annotations

import time
from dataclasses import dataclass

from loader_ws_trades.sandbox.faults.fault import Fault, OnAnswer, OnHandshake, OnOpening
from loader_ws_trades.sandbox.faults.rest_faults import RestLag


@dataclass
class _Active:
    fault: Fault
    until: float | None
    left: int | None
    passed: int = 0
    """Requests that passed unharmed since the last one that it affected."""

    @property
    def expired(self) -> bool:
        return self.left == 0 or (self.until is not None and time.monotonic() >= self.until)

    def is_turn(self, fault: OnAnswer) -> bool:
        """Count a request, and return whether it is affected."""
        self.passed = (self.passed + 1) % (fault.every or 1)
        return self.passed == 0

    def use(self) -> None:
        if self.left is not None:
            self.left -= 1


class ActiveFaults:
    """The active faults; of several, the oldest applies."""

    def __init__(self) -> None:
        self._active: list[_Active] = []

    def add(self, fault: Fault, *, seconds: float | None, times: int | None) -> None:
        """Activate a fault for a time and for a number of uses; none: no limit."""
        self._active.append(_Active(fault, None if seconds is None else time.monotonic() + seconds, times))

    def clear(self) -> None:
        """Deactivate all."""
        self._active.clear()

    def handshake(self, number: int) -> OnHandshake | None:
        """Return the fault for the handshake of what would be connection `number`."""
        for one in self._present():
            if isinstance(one.fault, OnHandshake) and one.fault.connection in {None, number}:
                one.use()
                return one.fault
        return None

    def on_open(self, number: int) -> list[OnOpening]:
        """Return all faults for the new connection `number`."""
        found = []
        for one in self._present():
            if isinstance(one.fault, OnOpening) and one.fault.connection in {None, number}:
                one.use()
                found.append(one.fault)
        return found

    def answer(self, path: str) -> OnAnswer | None:
        """Return the fault for a REST request for `path`."""
        for one in self._present():
            if isinstance(one.fault, OnAnswer) and path.endswith(one.fault.path or "") and one.is_turn(one.fault):
                one.use()
                return one.fault
        return None

    def lag(self) -> float:
        """Return the lag of the REST database in seconds."""
        return max((one.fault.seconds for one in self._present() if isinstance(one.fault, RestLag)), default=0.0)

    def _present(self) -> list[_Active]:
        self._active = [one for one in self._active if not one.expired]
        return self._active
