"""What can be found out about a symbol's records on a topic, in lists that do not grow with the number of faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from loader_ws_trades.pipeline.sequencer import Gap

LISTED: Final = 20  # of each kind of finding; the rest is counted

_T = TypeVar("_T")


@dataclass
class Stretch:
    """Records with ids that ascend one by one, and where the first of them stands."""

    first: int
    last: int
    partition: int
    offset: int

    def __len__(self) -> int:
        return self.last - self.first + 1


class Malformed(NamedTuple):
    """A record that is not as the contract wants it."""

    partition: int
    offset: int
    reason: str


@dataclass
class Listed(Generic[_T]):
    """Findings of one kind: how many there are, how many ids or records they hold, and the first of them."""

    count: int = 0
    size: int = 0
    first: list[_T] = field(default_factory=list)

    def add(self, item: _T, size: int = 1) -> None:
        """Count one, and list it if there is room."""
        self.count += 1
        self.size += size
        if len(self.first) < LISTED:
            self.first.append(item)


class Place(NamedTuple):
    """A trade by id and time in milliseconds."""

    trade_id: int
    timestamp: int


class Span(NamedTuple):
    """One sequence of ids from its lowest to its highest."""

    first: Place
    last: Place


@dataclass
class Findings:
    """What was found of one symbol on a topic."""

    scanned: int  # records of all kinds
    records: int  # records of the symbol that are judged, malformed ones that show no trade id left out
    partitions: dict[int, int]  # how many of them are on which partition
    spans: Listed[Span]  # the sequences of ids: more than one if the exchange began anew
    missing: Listed[Gap]
    fillable: list[Gap]  # the first missing ranges of the last sequence, which the exchange may still have
    duplicates: Listed[Stretch]
    disorder: Listed[Stretch]
    filled_later: Listed[Stretch]
    malformed: Listed[Malformed]
    others: dict[str, int]  # records of other symbols

    @property
    def faults(self) -> list[str]:
        """The kinds of faults that were found."""
        kinds = {
            "missing ids": self.missing.count,
            "duplicates": self.duplicates.count,
            "disorder": self.disorder.count,
            "malformed records": self.malformed.count,
            "several partitions": len(self.partitions) > 1,
        }
        return [kind for kind, found in kinds.items() if found]
