"""The findings of an audit: everything is counted, and the first few of each kind are listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from loader_ws_trades.audit.timeline import Timeline
from loader_ws_trades.pipeline.events import Gap, Position
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.text import counted

LISTED: Final = 20  # findings of each kind

_T = TypeVar("_T")


@dataclass
class RecordRange:
    """Records with consecutive trade ids, in this order, and the location of the first of them."""

    first: int
    last: int
    partition: int
    offset: int


class Malformed(NamedTuple):
    """A record that does not have the documented format."""

    partition: int
    offset: int
    reason: str


class Span(NamedTuple):
    """The ids between two resets, from the lowest to the highest."""

    first: Position
    last: Position


@dataclass
class Listed(Generic[_T]):
    """Findings of one kind: how many, how many ids or records they cover, and the first of them."""

    count: int = 0
    size: int = 0
    first: list[_T] = field(default_factory=list)

    def add(self, item: _T, size: int = 1) -> None:
        """Count a finding, and list it if there is room."""
        self.count += 1
        self.size += size
        if len(self.first) < LISTED:
            self.first.append(item)


@dataclass
class RecordRanges(Listed[RecordRange]):
    """Records, grouped by consecutive ids."""

    _latest: RecordRange | None = None

    def continued_by(self, trade_id: int, partition: int) -> bool:
        """Whether the id is the next one of the latest range."""
        latest = self._latest
        return latest is not None and (trade_id, partition) == (latest.last + 1, latest.partition)

    def add_record(self, trade_id: int, partition: int, offset: int) -> None:
        """Extend the latest range by a record, or start a new one."""
        if self._latest and self.continued_by(trade_id, partition):
            self._latest.last = trade_id
            self.size += 1
        else:
            self._latest = RecordRange(trade_id, trade_id, partition, offset)
            self.add(self._latest)


class ArchiveSource(NamedTuple):
    """A file of the exchange's archive, and whether it matches the exchange's checksum, if that is there."""

    name: str
    sha256: str
    matches_checksum: bool


class Difference(NamedTuple):
    """A field of a record that is not as in the archive."""

    trade_id: int
    partition: int
    offset: int
    field: str
    topic: str
    archive: str


@dataclass
class Agreement:
    """How far a topic agrees with the exchange's archive."""

    sources: list[ArchiveSource]
    first: Position
    last: Position
    trades: int
    """In the archive, each id once."""
    agree: int
    """Ids whose records are all as in the archive."""
    missing: Listed[Gap]
    differ: Listed[Difference]
    """The ids, and the first of their fields that differ."""
    unknown: Listed[Gap]
    """Ids that the topic has and the archive has not."""


@dataclass
class Findings:
    """What an audit found out about one symbol on a topic."""

    bounds: Bounds
    compacted: bool = False  # whether the topic is compacted, which deletes trades
    hidden: dict[int, int] = field(default_factory=dict)  # partition -> offset from which an open transaction hides it
    seconds: float = 0.0  # taken to read it
    scanned: int = 0  # records of all symbols
    partitions: Counter[int] = field(default_factory=Counter)  # partition -> audited records with a trade id
    spans: Listed[Span] = field(default_factory=Listed)  # more than one if the exchange reset its ids
    missing: Listed[Gap] = field(default_factory=Listed)
    fillable: list[Gap] = field(default_factory=list)  # those after the last reset, which the exchange may still have
    duplicates: RecordRanges = field(default_factory=RecordRanges)
    out_of_order: RecordRanges = field(default_factory=RecordRanges)
    filled_later: RecordRanges = field(default_factory=RecordRanges)
    malformed: Listed[Malformed] = field(default_factory=Listed)
    others: Counter[str] = field(default_factory=Counter)  # other symbol -> records
    agreement: Agreement | None = None  # with the exchange's archive, if that was given
    timeline: Timeline | None = None  # if one is kept

    @property
    def records(self) -> int:
        """How many records of the symbol were audited, without those that have no readable trade id."""
        return sum(self.partitions.values())

    @property
    def kinds(self) -> dict[str, Listed[Any]]:
        """The findings by kind; `filled later` is not a fault."""
        return {
            "missing": self.missing,
            "duplicates": self.duplicates,
            "out of order": self.out_of_order,
            "malformed": self.malformed,
            "filled later": self.filled_later,
        }

    @property
    def faults(self) -> list[str]:
        """The kinds of faults found."""
        kinds = {
            "missing ids": self.missing.count,
            "duplicates": self.duplicates.count,
            "out of order": self.out_of_order.count,
            "malformed records": self.malformed.count,
            "several partitions": len(self.partitions) > 1,
            "compacted topic": self.compacted,
        }
        if self.agreement:
            kinds["trades that differ from the archive"] = self.agreement.differ.count
            kinds["trades that are not in the archive"] = self.agreement.unknown.count
        return [kind for kind, found in kinds.items() if found]

    @property
    def exit_code(self) -> int:
        """1 if there is a fault, or no trade in the range asked for; else 0."""
        return int(bool(self.faults) or (bool(self.bounds) and not self.spans.count))


class Section(NamedTuple):
    """Findings of one kind as a report lists them."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    more: int = 0
    """How many are not listed."""


def sections(found: Findings) -> list[Section]:
    """All that is listed of the findings, as text."""
    gaps, records = (("ids", "count"), _gap), (("ids", "count", "where"), _records)
    made = [
        _section("Missing trade ids", found.missing, *gaps),
        _section("Duplicates", found.duplicates, *records),
        _section("Out of order", found.out_of_order, *records),
        _section(
            "Malformed records", found.malformed, ("where", "reason"), lambda bad: (location(*bad[:2]), bad.reason)
        ),
        _section("Filled later, which is not a fault", found.filled_later, *records),
    ]
    if found.agreement:
        heads = ("id", "field", "topic", "archive", "where")
        made.append(_section("Trades that differ from the archive", found.agreement.differ, heads, _difference))
        made.append(_section("Trade ids that are not in the archive", found.agreement.unknown, *gaps))
    return [section for section in made if section.rows]


def _section(title: str, kind: Listed[_T], heads: tuple[str, ...], row: Callable[[_T], tuple[str, ...]]) -> Section:
    rows = [row(item) for item in kind.first]
    return Section(title, heads, rows, max(0, kind.count - len(rows)))


def _gap(gap: Gap) -> tuple[str, ...]:
    return str(gap), counted(len(gap), "id")


def _records(found: RecordRange) -> tuple[str, ...]:
    ids = Gap(found.first, found.last)
    return str(ids), counted(len(ids), "record"), location(found.partition, found.offset)


def _difference(found: Difference) -> tuple[str, ...]:
    archive, where = f"{found.archive} in the archive", location(found.partition, found.offset)
    return str(found.trade_id), found.field, found.topic, archive, where


def location(partition: int, offset: int) -> str:
    """Where a record is."""
    return f"partition {partition}, offset {offset}"
