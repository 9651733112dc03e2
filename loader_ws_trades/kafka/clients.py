"""What every client of Kafka is made with: callbacks that tell a `Trouble`, and its refusal of a property in words."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.diagnosis import Trouble
from loader_ws_trades.kafka.properties import SETTINGS_OF, KafkaProperties

log = logging.getLogger(__name__)


class _Lines:
    """Takes librdkafka's own log lines, all at debug level: what matters of them goes into a `Trouble`."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def log(self, _level: int, line: str, *parts: object) -> None:
        text = line % parts
        log.debug("librdkafka: %s", text)
        self._trouble.note_line(text)


def with_callbacks(properties: KafkaProperties, trouble: Trouble) -> dict[str, Any]:
    """The properties of a client that tells `trouble` of its errors, and writes nothing to standard error itself."""

    def note(error: KafkaError) -> None:
        log.debug("Kafka client: %s", error.str())
        trouble.note(error.name(), error.str())

    return {**properties, "error_cb": note, "logger": _Lines(trouble)}


@contextlib.contextmanager
def properties_checked() -> Iterator[None]:
    """Turn the refusal of a property into a `ConfigurationError`.

    librdkafka refuses with a KafkaException; confluent-kafka, which looks at some properties itself, with whatever its
    own code stumbles over. What it says may hold the value, and the value a secret.
    """
    try:
        yield
    except KafkaException as error:
        raise _refused(error.args[0].str(), error) from error
    except Exception as error:
        raise _refused(str(error), error) from error


def _refused(told: str, error: Exception) -> ConfigurationError:
    text = re.sub(r'[Vv]alue "[^"]*"', "value", " ".join(told.split()))
    settings = [named(setting) for key, setting in SETTINGS_OF.items() if key in text]
    return ConfigurationError(
        f"librdkafka does not accept its configuration ({text or type(error).__name__}); check "
        f"{' or '.join([*settings, named('kafka_properties')])}"
    )
