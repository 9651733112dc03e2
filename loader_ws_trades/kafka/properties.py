"""librdkafka's properties for each of the loader's clients, from the settings."""

from __future__ import annotations

import contextlib
from typing import Final

from loader_ws_trades.config.settings import Settings, named

KafkaProperties = dict[str, str | int | float | bool]

# By property, the setting it comes from: librdkafka's messages name properties.
SETTINGS_OF: Final = {
    "ssl.ca.location": "ca_path",
    "queue.buffering.max": "kafka_queue_records",
    "sasl.username": "kafka_user_producer",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "security.protocol": "kafka_security_protocol",
    "bootstrap.servers": "kafka_bootstrap_servers",
}


TELEMETRY_QUEUE = 20_000  # events: a last one for each of all pairs, and as many that wait for the brokers


def _client_properties(settings: Settings, user: str | None, password: str | None) -> KafkaProperties:
    oauth = settings.kafka_sasl_mechanism == "OAUTHBEARER"
    protocol = "SASL_SSL" if user or oauth else "SSL" if settings.ca_path else "PLAINTEXT"
    found: KafkaProperties = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": settings.client_id or "loader-ws-trades",
        "security.protocol": settings.kafka_security_protocol or protocol,
        "allow.auto.create.topics": False,
        "socket.keepalive.enable": True,
        # Half of it is also the pause between a client's first two connections (the second one goes to a broker by the
        # address that it advertises), of which each start has half a dozen; the default is 100 ms.
        "reconnect.backoff.ms": 20,
        # The default of 10 s is what a recovery waits for at worst after a long outage.
        "reconnect.backoff.max.ms": 2000,
    }
    if oauth:
        # By default librdkafka expects the program to provide tokens.
        found |= {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"}
    elif user and password:
        found["sasl.mechanism"] = settings.kafka_sasl_mechanism or "SCRAM-SHA-512"
        found["sasl.username"] = user
        found["sasl.password"] = password
    if settings.ca_path:
        found["ssl.ca.location"] = settings.ca_path
    return found


def _producer_properties(settings: Settings) -> KafkaProperties:
    return _client_properties(settings, settings.kafka_user_producer, settings.kafka_password_producer) | {
        "acks": "all",
        "enable.idempotence": True,
        # Without it, records after a rejected one would still be sent.
        "enable.gapless.guarantee": True,
        # While more than five records of a partition are in flight, librdkafka (2.16) sends no more of them, whatever
        # the limit, and if some have waited for `linger.ms`, its thread spins until the answer comes. With up to five,
        # the limit of the connection makes it wait: 20 loaders at 50 trades a second took 178 % of a core in place of
        # 22 with a slow broker. Several pairs have more partitions, which need more requests. For a broker that
        # does not answer at all see `Producer.occupy`.
        "max.in.flight": 4 if settings.many else 1,
        # Never drop a record, which would leave a gap: the outage limit ends the run first.
        "message.timeout.ms": 0,
        # Java's default partitioner, so that one symbol stays on one partition whoever writes it.
        "partitioner": "murmur2_random",
        # Trades of a connection that come quickly are read together (`binance.read_pace`). Those of several connections
        # share requests if they wait: with 1,600 pairs at 3,000 trades/s, 5 ms in place of 2 halve the requests and the
        # broker's CPU, for 2 to 3 ms at p50. The tables are in tests/README.md.
        "linger.ms": 5 if settings.many else 0,
    }


def transactional_id(settings: Settings, kind: str = "") -> str:
    """The id of all loaders of one pair, or one share, in a workflow, so that a newer one fences off the older.

    A `kind` sets a command apart that may run beside `run`.
    """
    return ".".join(part for part in ("loader-ws-trades", settings.queue_id, settings.instance, kind) if part)


def trade_producer_properties(settings: Settings, kind: str = "") -> KafkaProperties:
    """Properties of the producer of trades."""
    fence = {"transactional.id": transactional_id(settings, kind)} if settings.delivery == "transactional" else {}
    return _producer_properties(settings) | {
        **fence,
        "queue.buffering.max.messages": settings.kafka_queue_records,
        # Half a kilobyte per record, three times its size, so that the number above is the bound.
        "queue.buffering.max.kbytes": max(1024, settings.kafka_queue_records // 2),
        **dict(settings.kafka_properties or ()),
    }


def telemetry_producer_properties(settings: Settings) -> KafkaProperties:
    """Properties of the producer of telemetry, which must outlive a failure of the other one."""
    return _producer_properties(settings) | {
        "queue.buffering.max.messages": TELEMETRY_QUEUE,
        **dict(settings.kafka_properties or ()),
    }


def consumer_properties(settings: Settings) -> KafkaProperties:
    """Properties of the consumers, which read by assignment and commit nothing."""
    user, password = settings.kafka_user_producer, settings.kafka_password_producer
    if settings.kafka_user_consumer:
        user, password = settings.kafka_user_consumer, settings.kafka_password_consumer
    return _client_properties(settings, user, password) | {
        # Required by librdkafka, although no group is joined.
        "group.id": f"loader-ws-trades.{settings.queue_id or 'none'}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        **dict(settings.kafka_properties or ()),
    }


def batch_size(properties: KafkaProperties) -> int:
    """The most bytes that a producer sends to a partition at once."""
    return int(properties.get("batch.size", 1_000_000))  # librdkafka's default


def linger(properties: KafkaProperties) -> float:
    """Seconds for which a producer holds a record, so that others can share its request; 0 if that is not a decimal."""
    with contextlib.suppress(ValueError):  # librdkafka takes hexadecimal numbers too
        return float(properties["linger.ms"]) / 1000
    return 0.0


def producer_credentials(settings: Settings) -> str:
    """The settings with the credentials for writing, for messages."""
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f"sasl.oauthbearer.* in {named('kafka_properties')}"
    password = "kafka_password_file" if settings.kafka_password_file else "kafka_password_producer"
    return f"{named('kafka_user_producer')} and {named(password)}"


def consumer_credentials(settings: Settings) -> str:
    """The settings with the credentials for reading, for messages."""
    if settings.kafka_user_consumer:
        return f"{named('kafka_user_consumer')} and {named('kafka_password_consumer')}"
    return producer_credentials(settings)
