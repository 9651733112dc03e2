"""What a run reports of its stream: rejected frames, gaps, late trades and resets, in the log and for telemetry."""

from __future__ import annotations

import logging

from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.monitoring.status import RunStatus
from loader_ws_trades.pipeline.events import Event, Gap, Late, Reset
from loader_ws_trades.pipeline.interfaces import Source
from loader_ws_trades.pipeline.missing import IN_A_MESSAGE, MissingIds, listed
from loader_ws_trades.pipeline.trade import RejectedFrame

log = logging.getLogger(__name__)
events = Events(log)

_GAP_LINES = (200, 3600.0)  # log lines about missing ids in so many seconds; the end of the run names the others


class Reporter:
    """Names every missing id, in the log and in the next event. `on_...` may be called in any thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rejected = Throttle(log, per_kind=1)
        self._gap_lines = Throttle(log, *_GAP_LINES)
        self._missing = MissingIds()  # for telemetry
        self._unlogged = MissingIds()
        self._unchecked_reported = False

    def on_rejected(self, frame: RejectedFrame, connection: int) -> None:
        """Log a frame that is not a trade, unless the source understands it."""
        if not self._source.rejected(frame, connection):
            text = f"Rejected a frame that is not a trade of ours ({frame.kind}): {frame.detail}"
            self._rejected.warn(frame.kind, text, event="frame_rejected", frame=frame.kind)

    def on_events(self, events: list[Event], why: str) -> None:
        """Log ids that will not come, those that came too late, and resets."""
        for event in events:
            if isinstance(event, Reset):
                text = f"The exchange reset its trade ids: {event.first} follows {event.last}"
                self._gap_lines.warn("ids_reset", text, first=event.first, last=event.last)
                self._source.keep_only(event.connection)
            elif isinstance(event, Late):
                text = f"Trade ids {event} came after they had been given up and stay missing; run backfill to add them"
                self._gap_lines.warn("late_trades", text, first=event.first, last=event.last)
        gaps = [event for event in events if isinstance(event, Gap)]
        if not gaps:
            return
        self._missing.add(gaps)
        first, more = gaps[:IN_A_MESSAGE], gaps[IN_A_MESSAGE:]
        text = ", ".join(map(str, first)) + (f" and {len(more)} more ranges" if more else "")
        count = sum(map(len, first))
        logged = self._gap_lines.warn("missing", f"Missing trade ids {text} ({why})", ids=listed(first), count=count)
        self._unlogged.add(more if logged else gaps)

    def message(self, status: RunStatus, reason: str = "") -> str:
        """The message of the next event; what `reason` says already is left out."""
        trouble, unchecked = status.source.trouble or "", status.source.unchecked
        parts = [
            f"Loaded and published {status.delivered} trade records",
            trouble if trouble not in reason else "",
        ]
        if unchecked and not self._unchecked_reported:
            self._unchecked_reported = True
            parts.append(unchecked)
        if missing := self._missing.message():
            parts.append(f"missing trade ids {missing}")
        return "; ".join(part for part in parts if part)

    def log_remaining(self) -> None:
        """Log the missing ids that were not logged, at the end of the run."""
        for text in self._unlogged.lines():
            events.warn("missing", f"Missing trade ids {text} (not logged before)", ids=text)
