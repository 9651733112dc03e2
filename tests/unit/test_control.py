"""The thread that reads commands, with a scripted topic and a fake clock: what an open transaction hides."""

from __future__ import annotations

import logging

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka import control
from loader_ws_trades.kafka.control import Control
from loader_ws_trades.kafka.reader import Record
from tests.unit.clock import FakeClock


class Reader:
    """A control topic at its end; each poll takes its time, and the script says what happens at which."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.at_end = True
        self.open_from: dict[int, int] = {}
        self.values: list[bytes | None] = []
        self._offset = -1

    def assign(self, *, beginning: bool) -> None:
        assert beginning

    def hidden(self) -> dict[int, int]:
        return dict(self.open_from)

    def poll(self, timeout: float) -> Record | None:
        self._clock.advance(timeout)
        if not self.values:
            return None
        self._offset += 1
        return Record(0, self._offset, 1, self.values.pop(0), None)

    def close(self) -> None:
        pass


@pytest.fixture
def reader(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader(clock)
    monkeypatch.setattr(control, "TopicReader", lambda *_, **__: made)
    return made


def run(clock: FakeClock, seconds: float, stops: list[float] | None = None) -> Control:
    settings = {"queue_id": "wf-1", "kafka_bootstrap_servers": "127.0.0.1:9"}
    control = Control(load(settings, needed=settings))
    control._stopping = clock.event()
    clock.after(seconds, control.close)
    control._on_stop = lambda: stops.append(clock.now) if stops is not None else None
    control._run()
    return control


def lines(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in message for message in caplog.messages)


def test_commands_hidden_by_an_open_transaction_are_reported_once(
    clock: FakeClock, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader.open_from = {1: 50}
    clock.after(30, reader.open_from.clear)
    clock.after(60, lambda: reader.open_from.update({0: 9}))
    control = run(clock, 90)
    assert control.caught_up.is_set()
    assert lines(caplog, "Continuing without the newest commands: ") == 2
    assert lines(caplog, "hides queue-control, partition 1, from offset 50 on") == 1
    assert lines(caplog, "hides queue-control, partition 0, from offset 9 on") == 1
    assert lines(caplog, "All commands are visible again") == 1


def test_transactions_that_end_soon_are_not_reported(
    clock: FakeClock, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    for moment in range(60):
        clock.after(moment, lambda moment=moment: reader.open_from.update({0: moment}))  # type: ignore[misc]
    run(clock, 60)
    assert not caplog.messages


NONSENSE = [
    *(None, b"", b"{stop", b"\xff\xfe\x00", b"[" * 50_000, b'["stop"]', b'{"command":"stop"}'),
    *(b'{"command":"stop","queue_id":["x"]}', b'{"command":7,"queue_id":"wf-1"}'),
    *(b'{"command":"explode","queue_id":"wf-1"}', b'{"command":"%s","queue_id":"wf-1"}' % (b"x" * 900_000)),
]


def test_nonsense_is_one_short_warning_each_and_commands_for_others_are_none(
    clock: FakeClock, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    stop, stops = b'{"command":"stop","queue_id":"%s","new":{"field":1}}', list[float]()
    reader.values = [*NONSENSE, stop % b"another", b'{"command":"explode","queue_id":"another"}']
    run(clock, 60, stops)
    assert not stops
    for offset, warning in enumerate(caplog.messages):
        assert f"partition 0, offset {offset}:" in warning
        assert len(warning) < 500
    assert len(caplog.messages) == len(NONSENSE)
    reader.values = [stop % b"wf-1"]
    run(clock, 60, stops)
    assert len(stops) == 1
