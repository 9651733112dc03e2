"""The analyses of several pairs that share a topic, in one pass over its records. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from loader_ws_trades.audit.analysis import Analysis
from loader_ws_trades.audit.findings import Findings
from loader_ws_trades.config import parsers
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.config.symbols import is_pattern
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord, symbol_in

_PAIRS = 10_000  # at most: a topic may have any keys


class Analyses:
    """Takes the records of a topic and hands each to the analysis of its pair.

    The names in `settings.symbols` are audited even if the topic does not have them.
    """

    def __init__(self, settings: Settings, bounds: Bounds) -> None:
        self._chosen = settings.chosen
        self._bounds = bounds
        named = {entry for entry in settings.symbols or () if not is_pattern(entry)} & set(settings.chosen(()))
        self._pairs = {name: Analysis(name, bounds) for name in sorted(named)}

    def take(self, records: Iterable[AnyRecord]) -> None:
        """Analyse the next records; those of other pairs are left out."""
        groups: defaultdict[bytes | None, list[AnyRecord]] = defaultdict(list)
        for record in records:
            groups[record[4]].append(record)
        for key, group in groups.items():
            if analysis := self._analysis_of(key):
                analysis.take(group)
                continue
            # A record of a pair may have a wrong key.
            for record in group:
                if analysis := self._pairs.get(symbol_in(record[3])):
                    analysis.take([record])

    def _analysis_of(self, key: bytes | None) -> Analysis | None:
        try:
            name = (key or b"").decode()
            if name not in self._pairs and (len(self._pairs) >= _PAIRS or parsers.symbol(name) != name):
                return None
        except ValueError:
            return None
        if name not in self._pairs and name in self._chosen([name]):
            self._pairs[name] = Analysis(name, self._bounds)
        return self._pairs.get(name)

    def findings(self) -> dict[str, Findings]:
        """What was found, by pair; the last call."""
        return {name: analysis.findings() for name, analysis in sorted(self._pairs.items())}
