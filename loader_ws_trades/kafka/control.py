"""Commands: their format, and the thread that reads them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.errors import HiddenError, plain
from loader_ws_trades.kafka.reader import Record, TopicReader
from loader_ws_trades.kafka.startup import await_topic
from loader_ws_trades.lifecycle import Deadline, Startup, Task, spawn
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.trade import BAD_INPUT
from loader_ws_trades.text import format_time

log = logging.getLogger(__name__)
events = Events(log)

_PARTITIONS = 30.0  # seconds between two checks for new partitions
_RETRY = 1.0  # seconds until a failed check is repeated
_HIDDEN = 3.0  # seconds between two checks for commands hidden by an open transaction
_WARNINGS = (100, 3600.0)  # ignored records that are logged as a warning, and the seconds they are counted over
_POLL = 0.4  # seconds that a look at what has arrived may wait
_LOOK = 1.0  # seconds between two looks once all earlier commands are read


class Command(msgspec.Struct):
    """A command for the loaders of one workflow."""

    command: str
    queue_id: str


_decode = msgspec.json.Decoder(Command).decode


def parse_command(value: bytes | None, queue_id: str) -> bool:
    """Whether a record's value is a stop command for `queue_id`; False if it is for another one.

    Raises:
        ValueError: saying what is wrong, if it is not a command or an unknown one.
    """
    if value is None:
        raise ValueError("a tombstone")
    try:
        command = _decode(value)
    except BAD_INPUT as error:
        raise ValueError(f"not a command: {plain(str(error))}") from error
    if command.queue_id != queue_id:
        return False
    if command.command != "stop":
        raise ValueError(f"an unknown command {command.command!r:.40}")
    return True


class Control:
    """The thread that reads `settings.queue_control_topic` for a stop command, from its beginning or from now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.queue_control_topic
        self._stopping = threading.Event()
        self._ignored = Throttle(log, *_WARNINGS)
        self._task: Task | None = None
        self._last_received = time.monotonic()
        self._unavailable = False  # whether the brokers did not answer the last time
        self._hidden: dict[int, int] = {}  # by partition, the offset from which on commands are hidden
        self._warned_hidden = False
        self.caught_up = threading.Event()
        self._reader = TopicReader(settings, self._topic)

    def open(self, startup: Startup) -> None:
        """Wait until the topic can be read, or the start is cancelled.

        Raises:
            ConfigurationError: if the topic or the permission is missing, or the user is rejected.
            RunError: if no broker answered in time.
        """
        await_topic(self._reader, self._topic, "queue_control_topic", startup, operation="READ")

    def start(self, on_stop: Callable[[], None], on_death: Callable[[BaseException], None]) -> None:
        """Begin to read; `on_stop` is called in the reading thread, once."""
        self._on_stop = on_stop
        self._last_received = time.monotonic()
        self._task = spawn("control", self._run, on_death)

    @property
    def silent_for(self) -> float:
        """Seconds since the last record or the start."""
        return time.monotonic() - self._last_received

    def close(self) -> None:
        """Stop reading, without waiting; may be called again."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to end; whether it has."""
        return self._task is None or self._task.join(timeout)

    def _run(self) -> None:
        try:
            beginning = self._settings.control_from == "beginning"
            partitions = hidden = Deadline(0)
            while not self._stopping.is_set():
                if partitions.passed:
                    partitions = Deadline(_PARTITIONS if self._assign(beginning=beginning) else _RETRY)
                if hidden.passed:
                    hidden = Deadline(_HIDDEN)
                    self._check_hidden()
                record = self._reader.poll(0 if self._reader.at_end else _POLL)
                if record is None and self.caught_up.is_set():
                    # The client's own wait would wake up five times a second, and `close` could not interrupt it.
                    self._stopping.wait(_LOOK)
                elif record is not None:
                    self._last_received = time.monotonic()
                    if self._is_stop(record):
                        self._on_stop()
                        return
                if not self.caught_up.is_set() and self._reader.at_end:
                    self.caught_up.set()
                    # Whatever is in a partition that is added later was sent after our start.
                    beginning = True
        finally:
            self._reader.close()

    def _assign(self, *, beginning: bool) -> bool:
        try:
            self._reader.assign(beginning=beginning)
        except UnavailableError as error:
            level = logging.DEBUG if self._unavailable else logging.WARNING
            events.log(level, "commands_unavailable", f"Commands cannot be read for now: {error}")
            self._unavailable = True
            return False
        if self._unavailable:
            events.info("commands_back", "Commands can be read again")
        self._unavailable = False
        return True

    def _check_hidden(self) -> None:
        """Report commands that an open transaction hides until it ends; the run continues without them."""
        before, self._hidden = self._hidden, self._reader.hidden()
        lasting = [number for number, offset in self._hidden.items() if before.get(number) == offset]
        if lasting and not self._warned_hidden:
            self._warned_hidden = True
            why = HiddenError(self._topic, lasting[0], before[lasting[0]])
            events.warn("commands_hidden", f"Continuing without the newest commands: {why}")
        elif not self._hidden and self._warned_hidden:
            self._warned_hidden = False
            events.info("commands_back", "All commands are visible again")

    def _is_stop(self, record: Record) -> bool:
        where = f"{self._topic}, partition {record.partition}, offset {record.offset}"
        try:
            stop = parse_command(record.value, self._settings.queue_id)
        except ValueError as error:
            self._ignored.warn("command_ignored", f"Ignored in {where}: {error}")
            return False
        if stop:
            text = f"Stop command for {self._settings.queue_id} in {where}, of {format_time(record.timestamp)}"
            if not self.caught_up.is_set():
                text += (
                    "; it was sent before this start: CONTROL_FROM=now (--control-from now) ignores earlier commands"
                )
            events.info("stop_command", text, partition=record.partition, offset=record.offset)
        return stop
