"""The librdkafka properties that a user may set, and those that are rejected."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

_SETTINGS: Final = {
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS (--kafka-bootstrap-servers)",
    "metadata.broker.list": "KAFKA_BOOTSTRAP_SERVERS (--kafka-bootstrap-servers)",
    "transactional.id": "DELIVERY (--delivery) to transactional",
    "queue.buffering.max.ms": "linger.ms",
    "queue.buffering.max.*": "KAFKA_QUEUE_RECORDS (--kafka-queue-records)",
    "sasl.username": "KAFKA_USER_PRODUCER (--kafka-user-producer)",
    "sasl.password": "KAFKA_PASSWORD_PRODUCER (--kafka-password-producer)",
    "sasl.mechanism*": "KAFKA_SASL_MECHANISM (--kafka-sasl-mechanism)",
    "security.protocol": "KAFKA_SECURITY_PROTOCOL (--kafka-security-protocol)",
}
# With another value of one of these, exactly once, order or the checkpoint fails silently.
_PROMISED: Final = (
    *("acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee"),
    *("message.timeout.ms", "delivery.timeout.ms", "retries", "message.send.max.retries", "max.in.flight*"),
    *("partitioner", "queuing.strategy", "delivery.report.only.error", "isolation.level", "group.id"),
    *("auto.offset.reset", "enable.auto.*", "auto.commit.enable", "enable.partition.eof"),
    "allow.auto.create.topics",
)
# Functions and objects of a program, code to load, and a cluster that is none.
_NOT_TEXT: Final = (
    *("*_cb", "on_delivery", "on_commit", "logger", "default.topic.config"),
    *("plugin.library.paths", "test.mock.*"),
)


def properties(value: str | Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Properties of librdkafka: one text with `key=value` separated by commas, or each in a text of its own.

    Raises:
        ValueError: with the end of a sentence that begins with the setting's name.
    """
    pairs = []
    for part in value.split(",") if isinstance(value, str) else value:
        key, equals, given = (piece.strip("\ufeff \t\r\n") for piece in part.partition("="))
        # The value may be a secret, so only a name before the first '=' is ever shown.
        if not equals or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", key):
            raise ValueError("has a part that is not key=value; separate properties by commas")
        if refusal := _refusal(key):
            raise ValueError(f"contains {key}{refusal}")
        if re.search("[\0\ud800-\udfff]", given):
            raise ValueError(f"has a value of {key} that is not text; use UTF-8 without NUL")
        pairs.append((key, given))
    return tuple(pairs)


def _refusal(key: str) -> str | None:
    setting = next((setting for pattern, setting in _SETTINGS.items() if fnmatchcase(key, pattern)), None)
    if setting:
        return f"; set {setting} instead"
    if any(fnmatchcase(key, pattern) for pattern in _PROMISED):
        return ", which the loader sets itself to publish every trade once and in order; remove it"
    if any(fnmatchcase(key, pattern) for pattern in _NOT_TEXT):
        return ", which cannot be set by users; remove it"
    return None
