"""Which pairs a process loads, as look-ups of what the exchange lists change it. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.logs import Events

events = Events(logging.getLogger(__name__))

_ABSENT = 3  # look-ups in a row without a pair after which it is gone
_BELIEVED = 10  # a look-up that lost more than a tenth of the pairs is not believed


class Change(NamedTuple):
    """What a look-up changes."""

    added: list[str]
    """Pairs that are new."""
    removed: list[str]
    """Pairs that are not listed any more."""


class Listing:
    """The pairs of `settings.symbols`, by their order there, then by name.

    A pair that is listed but not trading stays: it may trade again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._absent: dict[str, int] = {}  # by pair, look-ups in a row without it
        self._listed: frozenset[str] = frozenset()  # by the last look-up that was believed

    @property
    def pairs(self) -> list[str]:
        """The pairs that are loaded."""
        return list(self._absent)

    def update(self, statuses: Mapping[str, str]) -> Change:
        """Take a look-up: the status of every pair that the exchange lists."""
        chosen = self._settings.chosen(name for name, status in statuses.items() if status == "TRADING")
        added = [pair for pair in chosen if pair not in self._absent]
        removed: list[str] = []
        lost = len(self._listed - statuses.keys())
        if lost * _BELIEVED > len(self._listed):
            text = f"Not ending any pair: {lost} of {len(self._listed)} pairs are missing in the exchange's list"
            events.warn("symbols_refused", text)
        else:
            self._listed = frozenset(statuses)
            self._absent = {pair: 0 if pair in statuses else count + 1 for pair, count in self._absent.items()}
            removed = [pair for pair, count in self._absent.items() if count >= _ABSENT]
        for pair in removed:
            del self._absent[pair]
        self._absent |= dict.fromkeys(added, 0)
        return Change(added, removed)
