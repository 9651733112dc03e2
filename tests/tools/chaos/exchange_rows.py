"""Rows 1 to 11 of the matrix, as data: what the exchange does to its clients by itself."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from loader_ws_trades.sandbox import (
    Cut,
    Duplicate,
    Fault,
    Fragments,
    Freeze,
    HalfOpen,
    HandshakeSilence,
    HandshakeStatus,
    Hole,
    HugeFrame,
    Malformed,
    Replay,
    RestCut,
    RestLag,
    RestSilence,
    RestStatus,
    RestTruncated,
    ServerShutdown,
    Shuffle,
    Skip,
)
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.chaos.trial import Trial

RATE = 1000
SKIP = Skip(20, after=1500)  # makes repair ask REST, whatever REST does then
RESET_LINE = "reset its trade ids"  # in the log after an id reset
REPAIR = "historicalTrades"  # what repair asks; the check of the symbol at the start asks something else


@dataclass(frozen=True)
class Row:
    """What goes wrong, with which settings, and what is guaranteed beyond that nothing is lost."""

    name: str
    faults: tuple[Fault, ...]
    settings: dict[str, str] = field(default_factory=dict)
    holes: bool = False  # whether there are true holes, which must be named
    overlaps: bool = False  # whether one connection must be up before the other closes
    rate: float = RATE
    seen_within: float | None = None  # seconds from the strike to the first sign in the log
    recovered_within: float | None = None  # seconds from the fault's end until the topic has all
    also: Callable[[Trial], None] = lambda _trial: None


def _logged_once_per_kind(trial: Trial) -> None:
    logged = Counter(re.findall(r"Rejected an unexpected frame \((.+?)\):", trial.log))
    assert logged, "malformed frames were not logged"
    assert set(logged.values()) == {1}, f"logged more than once: {logged}"


def _holes_in_the_log(trial: Trial) -> None:
    for hole in (trial.market.holes[0], trial.market.holes[-1]):
        assert re.search(rf"Missing trade ids .*{hole}", trial.log), f"{hole} is not in the log"


def _bounded_memory(trial: Trial) -> None:
    assert trial.peak_memory < 120, f"{trial.peak_memory} MB"


ROWS = [
    *(
        Row(f"1 closed with {code}", (Cut(code, after=1500),), recovered_within=3)
        for code in (1000, 1001, 1006, 1008, 1011)
    ),
    Row("1 reset", (Cut(reset=True, after=1500),), recovered_within=3),
    Row("1 cut within a frame", (Cut(within_frame=True, after=1500),), recovered_within=3),
    Row("2 half a frame, then silence", (HalfOpen(after=1500),), seen_within=15),
    Row("4 shutdown announced", (ServerShutdown(lead=2.0, after=1500),), overlaps=True),
    Row("4 shutdown announced and carried out", (ServerShutdown(lead=0.0, after=1500),)),
    Row("4 maximum age", (), {"MAX_CONNECTION_AGE": "1"}, overlaps=True),
    Row("5 malformed frames", (Malformed(60, after=1000),), also=_logged_once_per_kind),
    Row("6 a huge frame", (HugeFrame(after=1500),), also=_bounded_memory),
    Row("6 endless fragments", (Fragments(after=1500),), also=_bounded_memory),
    Row("6 endless tiny fragments", (Fragments(size=1, after=1500),), also=_bounded_memory),
    Row("7 repeated with later times", (Duplicate(300, later=2.0, after=1000),)),
    Row("8 ids skipped on the stream", (Skip(1, after=1000), Skip(700, after=2000), Skip(3, after=3000))),
    Row("9 REST lags by 5 s", (RestLag(5.0), SKIP)),
    Row(
        "9 true holes",
        (Hole(8, after=1000), Hole(1, after=2000)),
        {"REPAIR_DEADLINE": "2"},
        holes=True,
        also=_holes_in_the_log,
    ),
    Row(
        "9 a true hole, and every 2nd request fails",
        (RestStatus(503, every=2, lasting=600, path=REPAIR), Hole(8, after=1000)),
        {"REPAIR_DEADLINE": "2"},
        holes=True,
        also=_holes_in_the_log,
    ),
    Row("10 REST 429", (RestStatus(429, retry_after=2, times=2, path=REPAIR), SKIP)),
    Row("10 REST 418", (RestStatus(418, retry_after=3, times=1, path=REPAIR), SKIP)),
    Row("10 REST 503", (RestStatus(503, times=3, path=REPAIR), SKIP)),
    Row("10 REST gives no answer", (RestSilence(times=1, path=REPAIR), SKIP)),
    Row("10 REST cut off", (RestCut(times=2, path=REPAIR), SKIP)),
    Row("10 REST truncated", (RestTruncated(times=2, path=REPAIR), SKIP)),
    Row("11 handshake 403", (Cut(after=1500), HandshakeStatus(403, after=1490, times=2))),
    Row("11 handshake 429", (Cut(after=1500), HandshakeStatus(429, retry_after=2, after=1490, times=1))),
    Row("11 handshake 302", (Cut(after=1500), HandshakeStatus(302, location="ws://127.0.0.1:9/", after=1490, times=1))),
    Row("11 handshake silent", (Cut(after=1500), HandshakeSilence(after=1490, times=1))),
]
FROZEN = (Freeze(after=1500),)
QUICKLY_FROZEN = Row("3 nothing comes, not even pings", FROZEN, {"FEED_SILENCE_LIMIT": "2"})
LONG_FROZEN = Row("3 nothing comes, not even pings", FROZEN, rate=200, seen_within=75)
ONCE = [
    Row("7 replayed after a reconnect", (Cut(after=1500), Replay(400, after=1400, times=3))),
    Row("7 repeated", (Duplicate(300, after=1000),)),
    Row("7 shuffled", (Shuffle(500, window=20, seed=7, after=1000),)),
    Row("7 all of it", (Shuffle(900, window=30, after=900), Cut(reset=True, after=1500), Replay(300, times=5))),
]


def _check_exchange(trial: Trial, row: Row) -> None:
    """Check what the exchange saw of the loader."""
    assert bool(trial.market.holes) == row.holes, f"{len(trial.market.holes)} ids were never issued"
    counters = trial.exchange.counters
    assert len(counters.attempts) < 30, "a storm of connections"
    assert counters.requests.total() < 60, "a storm of requests"
    assert RESET_LINE not in trial.log, "a false id reset"


def _check_rotations(trial: Trial) -> None:
    """Check that each new connection was up before the old one was closed; before the stop, which waits for none."""
    counters = trial.exchange.counters
    assert not counters.requests["/api/v3/historicalTrades"], "a rotation needs no repair"
    assert len(counters.sessions) > 1, "it did not rotate"
    for old, new in itertools.pairwise(counters.sessions):
        assert old.closed is None or new.opened < old.closed, "the old connection closed before the new was up"


def _note_times(trial: Trial, row: Row) -> None:
    """Set when the faults of the row struck, and when the last of them was met."""
    positions = [fault.after for fault in row.faults if fault.after is not None]
    if not positions:
        return
    trial.struck_with(min(positions))
    counters, offset = trial.exchange.counters, time.time() - time.monotonic()
    refused = [attempt.at for attempt in counters.attempts if attempt.status != 101]
    refused += [request.at for request in counters.history if request.status != 200]
    trial.healed_at = max([trial.healed_at or 0.0, *(moment + offset for moment in refused)])
    trial.limits_on_times(seen=row.seen_within, recovered=row.recovered_within)


def row_scenario(row: Row) -> Scenario:
    """The scenario that plays a row."""
    number, _, title = row.name.partition(" ")

    def play(stage: Stage) -> None:
        with stage.trial(rate=row.rate, faults=row.faults) as trial:
            trial.start(**row.settings)
            trial.let_issue(4000)
            trial.let_strike(len(row.faults))
            trial.let_load(500, 150 if row.seen_within else 90)
            if row.overlaps:
                _check_rotations(trial)
            trial.stop()
            _note_times(trial, row)
            trial.check_events()
            _check_exchange(trial, row)
            row.also(trial)

    return Scenario(int(number), title, play, alone=False, anywhere=row not in ONCE)


SCENARIOS = [row_scenario(row) for row in (LONG_FROZEN, *ROWS, *ONCE)]
