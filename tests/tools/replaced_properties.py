"""Starts the loader with Kafka properties that `-X` rejects: `python replaced_properties.py KEY=VALUE,.. run ...`.

Tests remove a safeguard with it, to show that the fault then occurs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from loader_ws_trades.kafka import properties
from loader_ws_trades.kafka.properties import KafkaProperties


def _replacing(made: Callable[..., KafkaProperties], with_these: dict[str, str]) -> Callable[..., KafkaProperties]:
    def replaced(*arguments: object) -> KafkaProperties:
        return made(*arguments) | with_these

    return replaced


if __name__ == "__main__":
    # This folder's modules must not stand before those that the loader imports.
    del sys.path[0]
    given = dict(pair.split("=", 1) for pair in sys.argv.pop(1).split(","))
    for name in ("trade_producer_properties", "telemetry_producer_properties", "consumer_properties"):
        setattr(properties, name, _replacing(getattr(properties, name), given))
    from loader_ws_trades.cli.main import cli

    cli()
