"""When a fault was seen, and when all was well again."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone

from loader_ws_trades.sandbox import Market

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_CUT_DOWN = 0.001  # seconds: a line's time is cut down to milliseconds


def first_sign(log: str, since: float, until: float | None) -> float | None:
    """Seconds from `since` to the first line of a log, in Unix seconds; none if it comes at `until` or later.

    In good times the loader says nothing.
    """
    moments = [
        datetime.strptime(found[0], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()
        for line in log.splitlines()
        if (found := _TIME.search(line))
    ]
    first = min((moment for moment in moments if moment > since - _CUT_DOWN), default=None)
    if first is None or (until is not None and first >= until - _CUT_DOWN):
        return None
    return max(0.0, first - since)


def recovery(market: Market, arrivals: Mapping[int, float], healed_at: float) -> float:
    """Seconds from `healed_at` until everything issued by then had arrived, both in Unix seconds."""
    ids = market.ids(0, market.issued_before(time.time() - healed_at))
    return max(0.0, max((arrivals.get(trade_id, 0.0) for trade_id in ids), default=0.0) - healed_at)
