"""A Kafka client: errors and log lines go to its `BrokerDiagnosis`, a rejected property becomes an error.

librdkafka retries most faults indefinitely and reports them in callbacks and log lines only. Callbacks run inside
`poll`, in the thread that calls it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.diagnosis import LONGEST_LINE, BrokerDiagnosis
from loader_ws_trades.kafka.errors import plain
from loader_ws_trades.kafka.properties import SETTINGS_OF, KafkaProperties
from loader_ws_trades.text import printable

log = logging.getLogger(__name__)

_Client = TypeVar("_Client")


class Client:
    """A client of confluent-kafka's that reports its errors to `diagnosis` and writes nothing to standard error.

    Args:
        factory: makes it.
        properties: its properties.
        credentials: names the settings of its user, for messages.
        callbacks: more properties.

    Raises:
        ConfigurationError: if a property is rejected.
    """

    def __init__(
        self, factory: Callable[[dict[str, Any]], Any], properties: KafkaProperties, credentials: str, **callbacks: Any
    ) -> None:
        self.properties = properties
        self.diagnosis = BrokerDiagnosis(credentials)
        self._client = create(factory, {**properties, **callbacks}, self.diagnosis)
        self.list_topics = self._client.list_topics

    def poll(self, timeout: float) -> object:
        """Serve callbacks for at most `timeout` seconds."""
        return self._client.poll(timeout)


def create(
    factory: Callable[[dict[str, Any]], _Client], properties: Mapping[str, Any], diagnosis: BrokerDiagnosis
) -> _Client:
    """A client that reports its errors to `diagnosis` and writes nothing to standard error.

    Raises:
        ConfigurationError: if a property is rejected.
    """

    def note(error: KafkaError) -> None:
        log.debug("Kafka client: %s", printable(error.str(), LONGEST_LINE))
        diagnosis.note_error(error.name(), error.str())

    try:
        return factory({**properties, "error_cb": note, "logger": diagnosis})
    except KafkaException as error:
        raise _rejected(error.args[0].str(), error) from error
    except Exception as error:  # confluent-kafka reads some properties itself, and fails with whatever it fails
        raise _rejected(str(error), error) from error


def _rejected(text: str, error: Exception) -> ConfigurationError:
    text = plain(re.sub(r'[Vv]alue "[^"]*"', "value", text))  # the value may be a secret
    settings = [named(setting) for key, setting in SETTINGS_OF.items() if key in text]
    return ConfigurationError(
        f"librdkafka does not accept its configuration ({text or type(error).__name__}); check "
        f"{' or '.join([*settings, named('kafka_properties')])}"
    )
