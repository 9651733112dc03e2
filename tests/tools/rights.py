"""The ACLs that the loader needs on a secured cluster: README's table is made from them, and tests use them."""

from __future__ import annotations

from typing import NamedTuple


class Right(NamedTuple):
    """One right, whose user it must have and what happens without it."""

    feature: str
    operation: str
    kind: str
    setting: str
    """The setting that names the resource."""
    user: str
    """The setting that names the user."""
    without: str

    @property
    def on(self) -> str:
        """The resource, for people."""
        if self.kind == "TOPIC":
            return f"topic `{self.setting.upper()}`"
        return "transactional id `loader-ws-trades.` `QUEUE_ID` `.` `SYMBOL`"

    @property
    def required(self) -> bool:
        """Whether a run cannot start without it."""
        return self.without == REFUSED


REFUSED = "exit code 2"
WRITER, READER = "kafka_user_producer", "kafka_user_consumer"

TRADES = Right("trades", "WRITE", "TOPIC", "kafka_topic", WRITER, REFUSED)
TELEMETRY = Right("telemetry", "WRITE", "TOPIC", "queue_events_topic", WRITER, REFUSED)
COMMANDS = Right("commands", "READ", "TOPIC", "queue_control_topic", READER, REFUSED)
CHECKPOINT = Right(
    "resuming after the last run",
    "READ",
    "TOPIC",
    "kafka_topic",
    READER,
    "a warning, and a start at the first live trade, as with `RESUME=off`",
)
POLICY = Right(
    "rejecting a topic that is compacted or would reject trades",
    "DESCRIBE_CONFIGS",
    "TOPIC",
    "kafka_topic",
    WRITER,
    "a compacted topic goes unnoticed, the other until it rejects a trade",
)
EVENT_SIZE = Right(
    "rejecting an events topic that would reject events for their size",
    "DESCRIBE_CONFIGS",
    "TOPIC",
    "queue_events_topic",
    WRITER,
    "it goes unnoticed until an event is rejected, which is logged",
)
TRANSACTIONS = Right("`DELIVERY=transactional`", "WRITE", "TRANSACTIONAL_ID", "queue_id", WRITER, REFUSED)

RIGHTS = (TRADES, TELEMETRY, COMMANDS, CHECKPOINT, POLICY, EVENT_SIZE, TRANSACTIONS)
LEAST = (TRADES, TELEMETRY, COMMANDS)  # a run needs all of these
