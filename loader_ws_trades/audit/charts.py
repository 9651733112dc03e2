"""The charts of the report as SVG: columns, lanes of findings, and lags, over one axis of time in UTC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Final

from loader_ws_trades.audit.timeline import DAY, HOUR, KINDS, MINUTE, MISSING, SECOND, Column, Timeline, spans
from loader_ws_trades.text import format_time, utc

WIDTHS: Final = (920, 340)  # of each chart in pixels, for wide and for narrow screens
_LEFT, _RIGHT, _TOP, _AXIS = 58, 14, 12, 40  # margins around the plot; below it is the axis
_LANE, _TRACK = 38, 12  # heights of a lane, and of the marks in it
_SHORTEST_MARK = 3.0
_SPACED = 4.0  # from this width on there is a pixel between columns

_Span = tuple[float, float]

_STEPS = (
    *(n * SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR for n in (1, 2, 3, 6, 12)),
    *(n * DAY for n in (1, 2, 7, 14, 28, 56, 112, 364, 1820, 3640, 18200, 36400)),
)
_LAGS = (
    *((1, "1 ms"), (10, "10 ms"), (100, "100 ms"), (1000, "1 s"), (10_000, "10 s"), (100_000, "100 s")),
    *((1_000_000, "17 min"), (10_000_000, "2.8 h"), (100_000_000, "28 h"), (1_000_000_000, "12 d"), (1e10, "116 d")),
    *((1e11, "3 y"), (1e12, "32 y")),
)


class Chart:
    """One drawing: a plot of `height` pixels over the axis of time."""

    def __init__(self, label: str, width: int, height: int, columns: dict[int, Column], span: int) -> None:
        self._label = label
        self._width = width
        self.height = height
        self.left, self.right = _LEFT, width - _RIGHT
        self._start = min(columns)
        self._end = max(columns) + span
        self._parts: list[str] = []

    def x(self, moment: float) -> float:
        """Where a time is."""
        return self.left + (self.right - self.left) * (moment - self._start) / (self._end - self._start)

    def y(self, share: float) -> float:
        """Where a share of the height is, from the bottom."""
        return _TOP + self.height * (1 - share)

    def box(self, times: _Span, shares: _Span, kind: str, title: str, *, least: float = 0.5) -> None:
        """A box between two times and two shares of the height, and what is shown where the pointer is on it."""
        (begin, end), (low, high) = times, shares
        left, width = self.x(begin), self.x(end) - self.x(begin)
        width = max(least, width - (1 if kind == "bar" and width > _SPACED else 0))
        left = min(left, self.right - width)
        top = self.y(high)
        self._parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{self.y(low) - top:.1f}">'
            f"<title>{escape(title)}</title></rect>"
        )

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Words at a place."""
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def line(self, path: str, kind: str) -> None:
        """A line along a path."""
        self._parts.append(f'<path class="{kind}" d="{path}"/>')

    def scale(self, ticks: Iterable[tuple[float, str]]) -> None:
        """Lines across the plot at shares of its height, with their names beside the axis."""
        for share, name in ticks:
            self.line(f"M{self.left} {self.y(share):.1f}H{self.right}", "grid")
            self.text(self.left - 8, self.y(share) + 4, name, anchor="end")

    def _times(self) -> Iterator[tuple[float, str, str]]:
        """Ticks of the axis: place, time, and the date where it is another one."""
        most = (self.right - self.left) / 84
        step = next((one for one in _STEPS if (self._end - self._start) / one <= most), _STEPS[-1])
        date = ""
        for moment in range(-(-self._start // step) * step, self._end + 1, step):
            at = utc(moment)
            if at is None:
                return  # a record may hold any time, and the calendar ends
            before, date = date, f"{at.day} {at:%b %Y}"
            if step >= DAY:
                yield self.x(moment), date, ""
            else:
                yield (
                    self.x(moment),
                    f"{at:%H:%M:%S}" if step < MINUTE else f"{at:%H:%M}",
                    date if date != before else "",
                )

    def svg(self) -> str:
        """The drawing."""
        bottom = _TOP + self.height
        self.line(f"M{self.left} {bottom}H{self.right}", "axis")
        free = float(self.left - 40)
        for x, time, date in self._times():
            self.line(f"M{x:.1f} {bottom}v5", "axis")
            half = 3.5 * max(len(time), len(date))
            middle = min(x, self._width - half)
            if middle - half >= free:
                self.text(middle, bottom + 18, time, anchor="middle")
                self.text(middle, bottom + 33, date, "date", anchor="middle")
                free = middle + half + 6
        size = f'viewBox="0 0 {self._width} {bottom + _AXIS}" width="{self._width}" height="{bottom + _AXIS}"'
        return f'<svg {size} role="img" aria-label="{escape(self._label)}">{"".join(self._parts)}</svg>'


def period(begin: int, end: int) -> str:
    """A period of time, for people."""
    return f"{format_time(begin)} to {format_time(end)}"


def _drawn(timeline: Timeline, draw: Callable[[int, dict[int, Column], int], str]) -> str:
    """A chart for wide and one for narrow screens; the page shows the one that fits."""
    found = []
    for width, kind in zip(WIDTHS, ("wide", "narrow"), strict=True):
        span, columns = timeline.columns((width - _LEFT - _RIGHT) // 2)
        found.append(f'<div class="{kind}">{draw(width, columns, span)}</div>')
    return "".join(found)


def _round_up(value: float) -> float:
    """The next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** (len(str(int(value))) - 1) if value >= 1 else 0.1
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value)


def unit(timeline: Timeline) -> str:
    """In which unit the rates are given."""
    return "minute" if timeline.columns((WIDTHS[0] - _LEFT - _RIGHT) // 2)[0] >= MINUTE else "second"


def rates(timeline: Timeline) -> str:
    """Trades per minute, or per second if the topic spans a short time; what is missing is shaded."""
    name = unit(timeline)
    each = MINUTE if name == "minute" else SECOND

    def draw(width: int, columns: dict[int, Column], span: int) -> str:
        chart = Chart(f"Trades per {name}", width, 200, columns, span)
        greatest = max((column.trades * each / span for column in columns.values()), default=1)
        step = _round_up(greatest / 4)
        top = step * -(-greatest // step)
        chart.scale((level * step / top, f"{level * step:,g}") for level in range(round(top / step) + 1))
        for begin, end in spans(columns, span):
            chart.box((begin, end), (0, 1), "gap", f"missing ids, {period(begin, end)}", least=_SHORTEST_MARK)
        for start, column in columns.items():
            if column.trades:
                title = f"{column.trades:,} trades, {period(start, start + span)}"
                chart.box((start, start + span), (0, column.trades * each / span / top), "bar", title)
        return chart.svg()

    return _drawn(timeline, draw)


def findings(timeline: Timeline) -> str:
    """When trades are missing, duplicate, out of order or filled later: a lane each."""

    def draw(width: int, columns: dict[int, Column], span: int) -> str:
        height = _LANE * len(KINDS)
        chart = Chart("Findings over time", width, height, columns, span)
        for lane, kind in enumerate(KINDS):
            low = 1 - (_LANE * (lane + 1) - 4) / height
            high = low + _TRACK / height
            total = sum(column.marks[kind] for column in columns.values())
            things = ("id" if kind == MISSING else "record") + ("" if total == 1 else "s")
            chart.text(chart.left, chart.y(high) - 5, kind.capitalize(), "lane")
            chart.text(chart.right, chart.y(high) - 5, f"{total:,} {things}" if total else "none", anchor="end")
            chart.box((min(columns), max(columns) + span), (low, high), "track", "")
            for start, column in columns.items():
                if count := column.marks[kind]:
                    end = max(start + span, column.missing_until if kind == MISSING else 0)
                    title = f"{count:,} {kind}, {period(start, end)}"
                    chart.box((start, end), (low, high), kind.replace(" ", "-"), title, least=_SHORTEST_MARK)
        return chart.svg()

    return _drawn(timeline, draw)


def lags(timeline: Timeline) -> str:
    """How long after its trade a record was appended: the median, and the lag that 1 % exceed."""

    def draw(width: int, columns: dict[int, Column], span: int) -> str:
        chart = Chart("Lag from trade to append", width, 160, columns, span)
        lines = {
            kind: {start: lag for start, column in columns.items() if (lag := column.lag(share)) is not None}
            for kind, share in (("p99", 0.99), ("p50", 0.5))
        }
        found = [lag for line in lines.values() for lag in line.values()]
        first = max((place for place, (lag, _) in enumerate(_LAGS) if lag <= min(found)), default=0)
        last = next((place for place, (lag, _) in enumerate(_LAGS) if lag >= max(found)), len(_LAGS) - 1)
        first = min(first, len(_LAGS) - 2)
        last = max(last, first + 1)
        chart.scale(((place - first) / (last - first), _LAGS[place][1]) for place in range(first, last + 1))
        for kind, line in lines.items():
            chart.line(_steps(chart, line, span, first, last), kind)
        return chart.svg()

    return _drawn(timeline, draw)


def _steps(chart: Chart, line: dict[int, float], span: int, first: int, last: int) -> str:
    path, before = [], None
    for start, lag in line.items():
        share = (math.log10(max(lag, 1)) - first) / (last - first)
        y = chart.y(min(1.0, max(0.0, share)))
        path.append(f"{'L' if before == start else 'M'}{chart.x(start):.1f} {y:.1f}H{chart.x(start + span):.1f}")
        before = start + span
    return "".join(path)
