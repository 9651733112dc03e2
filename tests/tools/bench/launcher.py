"""The loader with its times taken: `python -m tests.tools.bench.launcher stamps|cut-stamps|stages FILE run ...`.

The loader's code stays as it is; a few functions that are called once a read or once a report are wrapped before it
starts. `stamps` adds about 0.3 µs a trade, `stages` some microseconds a read of some hundred trades.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from loader_ws_trades import streams
from loader_ws_trades.binance import feed_thread
from loader_ws_trades.binance.websocket import ReadBuffer
from loader_ws_trades.cli.main import cli as run_cli
from loader_ws_trades.kafka.publisher import Publisher
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.trade import FrameDecoder, Trade, record_encoder
from tests.tools.bench.stamps import Stamps

_SAMPLE = 20_000  # trades that are encoded once more, to tell encoding from producing
_REPEATS = 5


def _wrap(owner: object, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def _take_stamps(stamps: Stamps) -> None:
    """Note when the read that completed a frame returned, and when the frame's delivery report came."""

    def fill(call: Callable[..., bool]) -> Callable[..., bool]:
        def noted(self: ReadBuffer) -> bool:
            found = call(self)
            stamps.note_read()
            return found

        return noted

    def take(call: Callable[..., list[bytes]]) -> Callable[..., list[bytes]]:
        def noted(self: ReadBuffer) -> list[bytes]:
            frames = call(self)
            stamps.count_frames(len(frames))
            return frames

        return noted

    def report(call: Callable[..., None]) -> Callable[..., None]:
        def noted(self: Publisher, error: object, message: object) -> None:
            call(self, error, message)
            if error is None:
                stamps.count_report()

        return noted

    _wrap(ReadBuffer, "fill", fill)
    _wrap(ReadBuffer, "take_text_frames", take)
    _wrap(Publisher, "_report", report)
    # Reports that gather before they are served would show the time of that.
    Publisher._is_urgent = True  # type: ignore[assignment, method-assign]


class _Stages:
    """CPU time by stage. Each stage runs in one thread, once for all the trades of a read."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.trades = 0
        self.sample: list[Trade] = []
        self._process = 0.0
        self._feed: tuple[float, float] | None = None  # the feed thread's CPU time at its first and last read

    def install(self) -> None:
        self._time(ReadBuffer, "fill", "read")
        self._time(ReadBuffer, "take_text_frames", "frame")
        self._time(FrameDecoder, "decode", "decode")
        self._time(Sequencer, "push", "sequence")
        self._time(Publisher, "put", "write", look=self._look)
        self._time(Publisher, "poll", "report")
        _wrap(Ingest, "take", self._count)

    def _time(self, owner: type, name: str, stage: str, look: Callable[..., None] | None = None) -> None:
        self.spent[stage] = 0.0

        def make(call: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*arguments: Any) -> Any:
                before = time.thread_time()
                try:
                    return call(*arguments)
                finally:
                    self.spent[stage] += time.thread_time() - before
                    if look:
                        look(*arguments)

            return timed

        _wrap(owner, name, make)

    def _look(self, _publisher: Publisher, trades: Iterable[Trade], _lane: object) -> None:
        if len(self.sample) < _SAMPLE:
            self.sample += trades

    def _count(self, call: Callable[..., bool]) -> Callable[..., bool]:
        def counted(ingest: Ingest, frames: list[bytes], connection: int = 0) -> bool:
            if not self.trades:
                self._begin()
            self.trades += len(frames)
            found = call(ingest, frames, connection)
            self._feed = (self._feed or (time.thread_time(),))[0], time.thread_time()
            return found

        return counted

    def _begin(self) -> None:
        self._process = time.process_time()
        self.spent = dict.fromkeys(self.spent, 0.0)

    def result(self) -> dict[str, float]:
        """Microseconds a trade."""
        total = time.process_time() - self._process
        spent = self.spent
        begin, end = self._feed or (0.0, 0.0)
        encode = _alone(self.sample) * self.trades
        feed = sum(spent[stage] for stage in ("read", "frame", "decode", "sequence", "write"))
        stages = {
            "socket read": spent["read"],
            "frame": spent["frame"],
            "decode": spent["decode"],
            "sequence": spent["sequence"],
            "encode": encode,
            "produce": spent["write"] - encode,
            "delivery report": spent["report"],
            "rest of the feed thread": end - begin - feed,
            "librdkafka's threads, start and end": total - spent["report"] - (end - begin),
        }
        return {name: seconds * 1_000_000 / self.trades for name, seconds in stages.items()} if self.trades else {}


def _alone(trades: list[Trade]) -> float:
    """Seconds of encoding one trade, at best."""
    if not trades:
        return 0.0
    encode, spent = record_encoder(trades[0].symbol), []
    for _ in range(_REPEATS):
        before = time.thread_time()
        for trade in trades:
            encode(trade)
        spent.append(time.thread_time() - before)
    return min(spent) / len(trades)


def main() -> None:
    """Run the loader's command line, which follows the first two arguments."""
    mode, path = sys.argv[1:3]
    sys.argv[1:3] = []
    stamps, stages = Stamps(), _Stages()
    if mode == "cut-stamps":
        # Connections that last for seconds stand for those that last for hours: no delay grows from one to the next.
        feed_thread._LASTED = 0.0
    if mode != "stages":
        _take_stamps(stamps)
    else:
        stages.install()
    _wrap(streams, "leave", lambda _: sys.exit)  # the times are still to be written
    try:
        run_cli()
    finally:
        if mode != "stages":
            stamps.save(path)
        else:
            Path(path).write_text(json.dumps(stages.result()))


if __name__ == "__main__":
    main()
