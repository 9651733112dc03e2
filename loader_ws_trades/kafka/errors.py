"""What librdkafka reports, as our errors: foreign text made printable, and what a code means for the caller."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.text import printable

_LONGEST: Final = 300  # characters of foreign text in a message
_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}


def plain(foreign: str) -> str:
    """What librdkafka, a broker or a record says, for a message: on one line, without librdkafka's timing details."""
    return printable(" ".join(foreign.partition(" (after ")[0].split()), _LONGEST)


def cause(error: KafkaException | KafkaError) -> KafkaError:
    """The error inside an exception."""
    return error.args[0] if isinstance(error, KafkaException) else error


def error_text(error: KafkaException | KafkaError) -> str:
    """What an error says, for a message."""
    return plain(cause(error).str())


class FencedError(RunError):
    """The brokers accept nothing more from this producer: a newer one has its transactional id, or it was too slow."""


class AbortableError(Exception):
    """A transaction cannot be committed; it can be aborted and written again."""


class HiddenError(UnavailableError):
    """An open transaction hides the records from its first one on."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__(
            f"an open transaction hides {topic}, partition {partition}, from offset {offset} on; abort it with "
            "kafka-transactions.sh, or let it time out"
        )
        self.offset = offset


def no_broker(servers: object, why: str) -> UnavailableError:
    """None of the brokers at `servers` answered."""
    return UnavailableError(
        f"No Kafka broker answered at {servers} ({why}); check {named('kafka_bootstrap_servers')} and that the brokers "
        "are up and reachable"
    )


def run_error(error: KafkaException | KafkaError, action: str) -> RunError:
    """The error that ends a run because `action` failed."""
    kind = FencedError if cause(error).code() in _FENCED else RunError
    return kind(f"{action} failed: {error_text(error)} ({cause(error).name()})")


def access_denied(operation: str, resource: str, setting: str, credentials: str) -> ConfigurationError:
    """The user lacks the permission for `operation` on `resource`, which the setting called `setting` names."""
    return ConfigurationError(
        f"Kafka denies {operation} on {resource}; grant it to the user, or check {named(setting)} and {credentials}"
    )


def read_denied(topic: str) -> UnavailableError:
    """The user may not read `topic`."""
    return UnavailableError(f"Kafka denies READ on the topic {topic}", lasting=True)


def unreadable(topic: str, error: KafkaException | KafkaError) -> UnavailableError:
    """Why `topic` cannot be read."""
    if cause(error).code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return read_denied(topic)
    return UnavailableError(f"the topic {topic} cannot be read ({error_text(error)})")
