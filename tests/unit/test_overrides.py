"""Which of librdkafka's properties a user may set."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.config import overrides
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.client import create
from loader_ws_trades.kafka.diagnosis import BrokerDiagnosis

KEPT = (
    *("bootstrap.servers", "metadata.broker.list", "acks", "request.required.acks", "enable.idempotence"),
    *("enable.gapless.guarantee", "message.timeout.ms", "delivery.timeout.ms", "retries"),
    *("message.send.max.retries", "max.in.flight", "max.in.flight.requests.per.connection", "partitioner"),
    *("queuing.strategy", "transactional.id", "delivery.report.only.error", "isolation.level", "group.id"),
    *("auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store", "auto.commit.enable"),
    *("enable.partition.eof", "allow.auto.create.topics", "queue.buffering.max.messages"),
    *("queue.buffering.max.kbytes", "queue.buffering.max.ms", "sasl.username", "sasl.password", "sasl.mechanism"),
    *("sasl.mechanisms", "security.protocol", "test.mock.num.brokers", "test.mock.broker.rtt"),
    *("plugin.library.paths", "stats_cb", "throttle_cb", "oauth_cb", "error_cb", "log_cb", "default.topic.config"),
    *("on_delivery", "on_commit", "logger"),
)


@pytest.mark.parametrize("value", ["", "hush-hush"])
def test_properties_that_the_loader_sets_are_rejected_by_name(value: str) -> None:
    for key in KEPT:
        for given in (f"linger.ms=1, {key} = {value}", ["linger.ms=1", f"{key}={value}"]):
            with pytest.raises(ConfigurationError) as caught:
                load({"kafka_properties": given}, needed=())
            [fault] = caught.value.faults
            assert fault.startswith(f"KAFKA_PROPERTIES (-X) contains {key}"), fault
            assert fault.endswith(("remove it", "instead")), fault
            assert "hush" not in fault


def test_other_properties_are_accepted() -> None:
    for key in ("linger.ms", "compression.type", "transaction.timeout.ms", "sasl.oauthbearer.method", "client.rack"):
        assert overrides.properties(f"\ufeff {key} = 1 \n") == ((key, "1"),)
    pem = "-----BEGIN PRIVATE KEY-----\nMIIE=\n-----END PRIVATE KEY-----"
    assert overrides.properties([f"ssl.key.pem={pem}\n"]) == (("ssl.key.pem", pem),)


@pytest.mark.parametrize(
    "text", ["=x", "x", "", "a b=c", "hush\x1b[2J=c", "client.id=a\0b", "client.id=a\udcff", "é=1"]
)
def test_a_malformed_property_is_rejected_without_its_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has a (part that is not key=value|value of client.id)") as caught:
        overrides.properties([text])
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "error",
    [
        TypeError("expected a callable"),
        ValueError("no"),
        AttributeError("'str' object has no attribute 'keys'"),
        SystemError(),
        KafkaException(KafkaError(KafkaError._INVALID_ARG, 'Invalid value "hush-hush" for configuration property "x"')),
    ],
)
def test_whatever_a_client_does_not_take_is_a_fault_of_the_configuration(error: Exception) -> None:
    def factory(_properties: object) -> None:
        raise error

    with pytest.raises(ConfigurationError, match=r"KAFKA_PROPERTIES \(-X\)$") as caught:
        create(factory, {}, BrokerDiagnosis(""))
    assert "hush" not in str(caught.value)
