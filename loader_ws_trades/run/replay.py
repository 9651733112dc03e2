"""The supply of `replay`: recorded frames, decoded and put in order as those of the live stream are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.pipeline.id_ranges import IdSet
from loader_ws_trades.pipeline.interfaces import Intake
from loader_ws_trades.pipeline.sequencer import Gap, Position, Reset, Sequence
from loader_ws_trades.pipeline.trade import FrameDecoder, Refusal, Trade
from loader_ws_trades.run.bounded import Stretch, give_lacking, runs
from loader_ws_trades.run.capture import frames
from loader_ws_trades.run.pacing import paced


class FromRecording:
    """The trades of a file of frames, one a line.

    Args:
        path: the file, with gzip or without.
        symbol: whose trades are taken.
        speed: times the recorded pace; infinite is as fast as they can be taken.
    """

    def __init__(self, path: str | Path, symbol: str, speed: float) -> None:
        self._path = path
        self._symbol = symbol
        self._decoder = FrameDecoder(symbol)
        self._speed = speed
        self._stopping = threading.Event()
        self._recorded = IdSet()
        self._first_id = 0
        self.rest_weight = 0

    def survey(self) -> Stretch:
        """Read the whole file for the ids that it holds.

        Raises:
            ConfigurationError: if it cannot be read, or holds no trade of the symbol.
        """
        first: Trade | None = None
        other: Refusal | None = None
        last_id = -1
        for batch in frames(self._path):
            if self._stopping.is_set():
                raise RunError("The recording was not read to its end")
            trades, refusals = self._decoder.decode(batch)
            other = other or next(iter(refusals), None)
            for run in runs(trades):
                begin, end = run[0].trade_id, run[-1].trade_id
                for gap in list(self._recorded.holes(begin, end)) if begin <= last_id else [Gap(begin, end)]:
                    self._recorded.add(gap.first, gap.last)
                first = run[0] if first is None or begin < first.trade_id else first
                last_id = max(last_id, end)
        if first is None:
            held = f"its first line is {other.detail}" if other else "it is empty"
            raise ConfigurationError(
                f"{self._path} holds no trade of {self._symbol}: {held}; name another file, or change {named('symbol')}"
            )
        self._first_id = first.trade_id
        return Stretch(first.trade_id, last_id, first.timestamp)

    def load(self, lacking: list[Gap], intake: Intake) -> None:
        """Bring what is lacking, at the recorded pace."""
        give_lacking(self._ascending(intake), lacking, intake, "the recording does not have them", self._stopping)

    def close(self) -> None:
        """End every wait."""
        self._stopping.set()

    def _ascending(self, intake: Intake) -> Iterator[list[Trade]]:
        # It waits only for what the file holds further on, so what it keeps is bounded by the file's disorder.
        sequence = Sequence(2**63)
        sequence.resume(Position(self._first_id - 1, 0))
        for batch in paced(frames(self._path), self._speed, self._stopping):
            ready, events = sequence.push(self._decoded(batch, intake))
            out = list(ready)
            while (gap := sequence.gap()) is not None and gap.first not in self._recorded:
                more, _ = sequence.skip(gap.last + 1)
                out += more
            for event in events:
                if isinstance(event, Reset):
                    raise RunError(f"The recording begins its ids anew with {event.first}; replay it in two parts")
            if self._stopping.is_set():
                return
            if out:
                yield out

    def _decoded(self, batch: list[bytes], intake: Intake) -> list[Trade]:
        trades, refusals = self._decoder.decode(batch)
        intake.refuse(refusals)
        return trades
