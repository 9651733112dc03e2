"""The paces at which latency is measured, and what the times of a run say."""

from __future__ import annotations

import json
from bisect import bisect_left
from pathlib import Path
from typing import Any, NamedTuple

from tests.tools.bench.process import RunError
from tests.tools.bench.stamps import load, percentiles
from tests.tools.recorded import SHARED, frames, frames_file

EVEN_RATE = 2000
WARM_UP = 2.0  # seconds that do not count
_BURST = 100  # milliseconds within which the busiest burst is looked for


class Pace(NamedTuple):
    """Frames in a file, and when each is due, in seconds from the first one."""

    name: str
    path: Path
    due: list[float]


def even_frames(path: Path, seconds: float, rate: int = EVEN_RATE) -> Pace:
    """So many trades a second, equally far apart; the exchange's clock ticks each millisecond."""
    step = 1_000_000 // rate
    count = int((seconds + WARM_UP) * rate)
    start = 1_760_000_000_000_000
    made = (
        {
            "e": "trade",
            "E": start + number * step,
            "s": "POLUSDT",
            "t": 1_000_000 + number,
            "p": "0.20000000",
            "q": f"{number % 1000 + 1}.50000000",
            "T": start + number * step,
            "m": number % 2 == 0,
            "M": True,
        }
        for number in range(count)
    )
    return _written(f"{rate:,} trades/s evenly", path, list(made), 1_000_000)


def burst_frames(path: Path, folder: Path, seconds: float) -> Pace:
    """So many seconds around the busiest tenth of a second of the recorded trades, or of generated ones."""
    folder.mkdir()
    source = frames_file(folder)
    found = frames(source)
    times = [frame["T"] for frame in found]
    busiest = max(range(len(times)), key=lambda place: bisect_left(times, times[place] + _BURST) - place)
    first = bisect_left(times, times[busiest] - seconds * 600)
    last = bisect_left(times, times[first] + seconds * 1000)
    kind = "recorded" if source == SHARED else "generated"
    size = bisect_left(times, times[busiest] + _BURST) - busiest
    name = (
        f"{kind} bursts at their own pace ({last - first:,} trades in {seconds:g} s, {size:,} of them in {_BURST} ms)"
    )
    return _written(name, path, found[first:last], 1000)


def _written(name: str, path: Path, found: list[dict[str, Any]], unit: int) -> Pace:
    path.write_text("".join(json.dumps(frame, separators=(",", ":")) + "\n" for frame in found))
    return Pace(name, path, [(frame["T"] - found[0]["T"]) / unit for frame in found])


def judged(path: Path, pace: Pace, begun: float) -> dict[str, float]:
    """Percentiles in milliseconds, of the time from a frame's read and from its due time to its delivery report.

    Raises:
        RunError: if there are not as many times as trades.
    """
    stamps = load(path)
    sizes = {len(stamps.reads), len(stamps.reports), len(pace.due)}
    if len(sizes) != 1:
        raise RunError(f"reads, reports and trades do not match: {sizes}")
    first = bisect_left(pace.due, WARM_UP)
    reports = stamps.reports[first:]
    since_read = [report - read for read, report in zip(stamps.reads[first:], reports, strict=True)]
    since_due = [report - begun - due for due, report in zip(pace.due[first:], reports, strict=True)]
    shown = {f"from read to report, {name}": value for name, value in percentiles(since_read).items()}
    return shown | {f"from due to report, {name}": value for name, value in percentiles(since_due).items()}
