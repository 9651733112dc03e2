"""The line at the bottom of a terminal, and the log lines where there is none."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from loader_ws_trades.monitoring import progress
from loader_ws_trades.monitoring.progress import Display, ProgressLog, display
from loader_ws_trades.monitoring.status import RunStatus
from loader_ws_trades.pipeline.interfaces import SourceStatus
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline

LANE = Pipeline().lane
LANE.missing = 3
LIVE = RunStatus("loading", SourceStatus("live", reconnects=2), [LANE], in_flight=12)
LOADING = RunStatus("loading", SourceStatus("loading", total=1_000_000))


def logged(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, status: RunStatus, seconds: int
) -> dict[int, logging.LogRecord]:
    """What is logged in so many seconds, by the second, at 100 trades a second."""
    shown, found = ProgressLog(logging.getLogger("a-test"), "status"), {}
    with caplog.at_level(logging.INFO, "a-test"):
        for second in range(1, seconds + 1):
            clock.advance(1)
            shown.show(progress.of_run(status._replace(delivered=100 * second)))
            if caplog.records:
                found[second] = caplog.records.pop()
    return found


def test_a_healthy_stream_logs_a_line_every_five_minutes(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    found = logged(clock, caplog, LIVE, 900)
    assert list(found) == [300, 600, 900]
    assert found[600].getMessage() == "Live: delivered 60000, missing 3, in flight 12, reconnects 2, 100/s"
    fields = {name: vars(found[600])[name] for name in ("event", "rate", "delivered", "missing", "in_flight")}
    assert fields == {"event": "status", "rate": 100, "delivered": 60000, "missing": 3, "in_flight": 12}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("a-terminal")
    yield found
    found.handlers.clear()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def display_on(terminal: Terminal, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Display:
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "79", "LINES": "24", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    logger.addHandler(logging.StreamHandler(terminal))
    return display(logger, "status", line=True)


def test_the_line_on_a_terminal(
    clock: FakeClock, terminal: Terminal, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = display_on(terminal, logger, monkeypatch)

    def drawn(status: RunStatus) -> str:
        clock.advance(1)
        shown.show(progress.of_run(status))
        return terminal.getvalue().rsplit("\r\x1b[2K")[-1].rstrip()

    assert drawn(LIVE) == "live  0/s  delivered 0  missing 3  in flight 12  reconnects 2"
    huge = Pipeline().lane
    huge.missing = 10**9
    assert len(drawn(LIVE._replace(delivered=10**12, in_flight=400_000, lanes=[huge]))) <= 79
    drawn(LOADING._replace(delivered=400_000))
    text = drawn(LOADING._replace(delivered=500_000))
    assert text.startswith("loading  50%  500,000 of 1,000,000  ")
    assert text.endswith(" left")
    shown.close()


def test_log_lines_go_above_the_line(
    clock: FakeClock, terminal: Terminal, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = display_on(terminal, logger, monkeypatch)
    shown.show(progress.of_run(LIVE))
    logger.warning("a log line")
    before, after = terminal.getvalue().split("a log line\n")
    assert before.endswith("\x1b[2K"), "the line is removed first"
    assert "live " in after
    assert "\x1b[?25l" not in terminal.getvalue(), "a process that is killed must not leave the cursor hidden"
    shown.close()
    assert terminal.getvalue().endswith("\x1b[2K")


def test_no_line_where_there_is_no_terminal(
    terminal: Terminal, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    display_on(terminal, logger, monkeypatch).close()
    assert isinstance(display(logger, "status", line=False), ProgressLog)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display(logger, "status", line=True), ProgressLog)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(display(logger, "status", line=True), ProgressLog)
