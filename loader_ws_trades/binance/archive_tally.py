"""What is in an archive, counted as its trades go by in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.sequencer import Gap
from loader_ws_trades.pipeline.trade import Trade

MAX_LISTED = 10_000  # holes that a summary lists; those over it are counted


@dataclass(frozen=True)
class Summary:
    """What an archive holds."""

    first_id: int
    last_id: int
    first_time: int
    """Trade time of the first id, in milliseconds."""
    last_time: int
    """Trade time of the last id, in milliseconds."""
    trades: int
    """Trades given out by `batches`."""
    duplicates: int
    """Rows that said again what another row said; they are left out."""
    holes: tuple[Gap, ...]
    """The ids between the first and the last that are in no file, at most `MAX_LISTED` ranges."""
    hole_count: int
    """How many such ranges there are, those not listed included."""
    missing: int
    """How many ids there are in all of them."""


class DisorderError(Exception):
    """Ids do not ascend."""


class Tally:
    """Takes ascending trades, leaves out what repeats, and counts; `name` says in messages where they are from."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.first: Trade | None = None
        self.last: Trade | None = None
        self._trades = self._duplicates = 0
        self._holes: list[Gap] = []
        self._hole_count = self._missing = 0

    @property
    def first_id(self) -> int:
        """Id of the first trade; -1 before it."""
        return self.first.trade_id if self.first else -1

    @property
    def last_id(self) -> int:
        """Id of the last trade; -1 before the first."""
        return self.last.trade_id if self.last else -1

    def take(self, batch: list[Trade]) -> list[Trade]:
        """`batch` without what repeats; raises `DisorderError`, or `ConfigurationError` for a contradiction."""
        if not batch:
            return batch
        if self.first is None:
            self.first = batch[0]
        next_id = self.last_id + 1 if self.last else batch[0].trade_id
        if [trade.trade_id for trade in batch] != list(range(next_id, next_id + len(batch))):
            batch = self._sift(batch)
        if batch:
            self.last = batch[-1]
            self._trades += len(batch)
        return batch

    def _sift(self, batch: list[Trade]) -> list[Trade]:
        kept = []
        last = self.last
        for trade in batch:
            if last is not None and trade.trade_id <= last.trade_id:
                if trade.trade_id < last.trade_id:
                    raise DisorderError
                if trade != last:
                    raise ConfigurationError(
                        f"The trade id {trade.trade_id} stands twice with different contents in {self._name}; nothing "
                        "was published, give files of which one is right"
                    )
                self._duplicates += 1
                continue
            if last is not None:
                self._hole(last.trade_id + 1, trade.trade_id - 1)
            kept.append(trade)
            last = trade
        return kept

    def _hole(self, first: int, last: int) -> None:
        if first > last:
            return
        self._hole_count += 1
        self._missing += last - first + 1
        if len(self._holes) < MAX_LISTED:
            self._holes.append(Gap(first, last))

    def add(self, later: Tally) -> None:
        """Count what `later` took, all of it behind what this one took."""
        if self.last is not None:
            self._hole(self.last_id + 1, later.first_id - 1)
        self._holes += later._holes[: MAX_LISTED - len(self._holes)]
        self._hole_count += later._hole_count
        self._missing += later._missing
        self._trades += later._trades
        self._duplicates += later._duplicates
        self.first = self.first or later.first
        self.last = later.last

    def summary(self) -> Summary:
        """What was taken, at least one trade."""
        if self.first is None or self.last is None:
            raise ValueError("no trade was taken")
        return Summary(
            self.first_id,
            self.last_id,
            self.first.timestamp,
            self.last.timestamp,
            self._trades,
            self._duplicates,
            tuple(self._holes),
            self._hole_count,
            self._missing,
        )
