"""Commands: what they look like, and the thread that reads them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from loader_ws_trades.config.settings import Settings, consumer_credentials
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka import reader as reading
from loader_ws_trades.kafka.properties import consumer_properties
from loader_ws_trades.kafka.reader import HiddenError
from loader_ws_trades.lifecycle import Deadline, Startup, Task, spawn
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.trade import BAD_INPUT
from loader_ws_trades.text import format_time

log = logging.getLogger(__name__)

_PARTITIONS_EVERY = 30.0  # seconds between two looks for new partitions
_WARNINGS = (100, 3600.0)  # ignored records that are logged as a warning, and the seconds they are counted over
_HIDDEN_EVERY = 3.0  # seconds between two looks for what an open transaction hides
_POLL = 0.2  # seconds that one read may take, and so the time in which `close` is noticed


class Command(msgspec.Struct):
    """A command for the loaders of one workflow."""

    command: str
    queue_id: str


_decode = msgspec.json.Decoder(Command).decode


def parse_command(value: bytes | None, queue_id: str) -> bool:
    """Whether a record's value is a stop command for `queue_id`; False for one that is for others.

    Raises:
        ValueError: saying what is wrong, if it is no command at all or one that nobody knows.
    """
    if value is None:
        raise ValueError("a tombstone")
    try:
        command = _decode(value)
    except BAD_INPUT as error:
        raise ValueError(f"no command: {error}") from error
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
        self._nonsense = Throttle(log, *_WARNINGS)
        self._task: Task | None = None
        self._heard = time.monotonic()
        self._away = False  # whether the brokers did not answer the last time
        self._hidden: dict[int, int] = {}  # by partition, the offset from which on a transaction hid commands
        self._told_hidden = False
        self.caught_up = threading.Event()
        self._reader = reading.TopicReader(
            consumer_properties(settings), self._topic, credentials=consumer_credentials(settings)
        )

    def open(self, startup: Startup) -> None:
        """Wait until the brokers answer and know the topic, or the start is called off.

        Raises:
            ConfigurationError: if the topic, the credentials or a right is missing.
            RunError: if no broker answered in time.
        """
        kafka.await_topic(self._reader, self._topic, "queue_control_topic", startup, right=kafka.AclOperation.READ)

    def start(self, on_stop: Callable[[], None], on_death: Callable[[BaseException], None]) -> None:
        """Begin to read; `on_stop` is called in the reading thread, once."""
        self._on_stop = on_stop
        self._heard = time.monotonic()
        self._task = spawn("control", self._run, on_death)

    @property
    def silent_for(self) -> float:
        """Seconds since the last record or the start."""
        return time.monotonic() - self._heard

    def close(self) -> None:
        """Stop reading, without waiting; may be called again."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to end; whether it has."""
        return self._task is None or self._task.join(timeout)

    def _run(self) -> None:
        try:
            beginning = self._settings.control_from == "beginning"
            look_again = look_for_hidden = Deadline(0)
            while not self._stopping.is_set():
                if look_again.passed:
                    look_again = Deadline(_PARTITIONS_EVERY if self._assign(beginning=beginning) else 1.0)
                if look_for_hidden.passed:
                    look_for_hidden = Deadline(_HIDDEN_EVERY)
                    self._tell_of_hidden()
                record = self._reader.poll(_POLL)
                if record is not None:
                    self._heard = time.monotonic()
                    if self._is_stop(record):
                        self._on_stop()
                        return
                if not self.caught_up.is_set() and self._reader.at_end:
                    self.caught_up.set()
                    # A partition added later is new: whatever stands in it was sent after our start.
                    beginning = True
        finally:
            self._reader.close()

    def _assign(self, *, beginning: bool) -> bool:
        try:
            self._reader.assign(beginning=beginning)
        except UnavailableError as error:
            log.log(
                logging.DEBUG if self._away else logging.WARNING,
                "Commands cannot be read for now: %s",
                error,
                extra={"event": "commands_unavailable"},
            )
            self._away = True
            return False
        if self._away:
            log.info("Commands can be read again", extra={"event": "commands_back"})
        self._away = False
        return True

    def _tell_of_hidden(self) -> None:
        """Commands behind an open transaction cannot be seen until it ends, and the run goes on without them."""
        before, self._hidden = self._hidden, self._reader.hidden()
        lasting = [number for number, offset in self._hidden.items() if before.get(number) == offset]
        if lasting and not self._told_hidden:
            self._told_hidden = True
            log.warning(
                "Going on without the newest commands: %s",
                HiddenError(self._topic, lasting[0], before[lasting[0]]),
                extra={"event": "commands_hidden"},
            )
        elif not self._hidden and self._told_hidden:
            self._told_hidden = False
            log.info("All commands can be seen again", extra={"event": "commands_back"})

    def _is_stop(self, record: reading.Record) -> bool:
        where = f"{self._topic}, partition {record.partition}, offset {record.offset}"
        try:
            stop = parse_command(record.value, self._settings.queue_id)
        except ValueError as error:
            self._nonsense.warn("command_ignored", f"Ignored in {where}: {error}")
            return False
        if stop:
            log.info(
                "Stop command for %s in %s, of %s%s",
                self._settings.queue_id,
                where,
                format_time(record.timestamp),
                ""
                if self.caught_up.is_set()
                else "; it was sent before this start: CONTROL_FROM=now (--control-from now) ignores earlier commands",
                extra={"event": "stop_command", "partition": record.partition, "offset": record.offset},
            )
        return stop


class NoControl:
    """Hears no commands: for a run without Kafka."""

    silent_for = 0.0

    def __init__(self) -> None:
        self.caught_up = threading.Event()
        self.caught_up.set()

    def open(self, startup: Startup) -> None:
        """Nothing to reach."""

    def start(self, on_stop: Callable[[], None], on_death: Callable[[BaseException], None]) -> None:
        """Nothing to read."""

    def close(self) -> None:
        """Nothing to end."""

    def join(self, timeout: float) -> bool:
        """Nothing to wait for."""
        return timeout >= 0
