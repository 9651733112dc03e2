"""What a run reports of its stream: rejected frames, gaps, late trades and resets, in the log and for telemetry."""

from __future__ import annotations

import logging
from collections.abc import Callable

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.events import Event, Gap, Late, Reset
from loader_ws_trades.pipeline.interfaces import Source
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.missing import IN_A_MESSAGE, MissingIds
from loader_ws_trades.pipeline.trade import RejectedFrame

log = logging.getLogger(__name__)
events = Events(log)

GAP_LINES = (200, 3600.0)  # log lines about missing ids, per seconds; the others are listed at the end of the run


def rejections(source: Source) -> Callable[[RejectedFrame, int], bool]:
    """Logs a frame that is not a trade, unless the source understands it; returns whether it does. For any thread."""
    lines = Throttle(log, per_kind=1)

    def note(frame: RejectedFrame, connection: int) -> bool:
        understood = source.rejected(frame, connection)
        if not understood:
            text = f"Rejected an unexpected frame ({frame.kind}): {frame.detail}"
            lines.warn(frame.kind, text, event="frame_rejected", frame=frame.kind)
        return understood

    return note


class Reporter:
    """Names every missing id of a pair, in the log and in its next event. `on_events` may be called in any thread.

    Args:
        settings: those of the pair.
        source: notified of resets.
        lines: the log.
    """

    def __init__(self, settings: Settings, source: Source, lines: Throttle) -> None:
        self._of = f" of {settings.symbol}" if settings.many else ""
        self._source = source
        self._lines = lines
        self._missing = MissingIds()  # for telemetry
        self._unlogged = MissingIds()
        self._unchecked_reported = False

    def on_events(self, events: list[Event], why: str) -> None:
        """Log ids that will not come, those that came too late, and resets."""
        for event in events:
            if isinstance(event, Reset):
                text = f"The exchange reset its trade ids{self._of}: {event.first} follows {event.last}"
                self._lines.warn("ids_reset", text, first=event.first, last=event.last)
                self._source.keep_only(event.connection)
            elif isinstance(event, Late):
                text = f"Trade ids {event}{self._of} came after they were given up and stay missing; backfill adds them"
                self._lines.warn("late_trades", text, first=event.first, last=event.last)
        gaps = [event for event in events if isinstance(event, Gap)]
        if not gaps:
            return
        self._missing.add(gaps)
        first, more = gaps[:IN_A_MESSAGE], gaps[IN_A_MESSAGE:]
        ids, others = ", ".join(map(str, first)), f" and {len(more)} more ranges" if more else ""
        text = f"Missing trade ids{self._of} {ids}{others} ({why})"
        logged = self._lines.warn("missing", text, ids=ids, count=sum(map(len, first)))
        self._unlogged.add(more if logged else gaps)

    def message(self, lane: Lane, trouble: str | None, reason: str = "") -> str:
        """The message of the next event; what `reason` says already is left out."""
        trouble = trouble or lane.trouble or ""
        parts = [
            f"Loaded and published {lane.delivered} trade records",
            trouble if trouble not in reason else "",
        ]
        if lane.unchecked and not self._unchecked_reported:
            self._unchecked_reported = True
            parts.append(lane.unchecked)
        if missing := self._missing.message():
            parts.append(f"missing trade ids {missing}")
        return "; ".join(part for part in parts if part)

    def log_remaining(self) -> None:
        """Log the missing ids that were not logged, at the end of the run."""
        for text in self._unlogged.lines():
            events.warn("missing", f"Missing trade ids{self._of} {text} (not logged before)", ids=text)
