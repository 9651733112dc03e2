"""The settings of one broker."""

from collections.abc import Mapping
from pathlib import Path

from tests.tools.apache_kafka.node import HOST, Ports


def server_properties(
    node_id: int, ports: Ports, voters: Mapping[int, int], data: Path, server_pem: Path
) -> dict[str, str]:
    """Return the broker's properties; `voters` are the controllers' ports by node id."""
    nodes = len(voters)
    listeners = {
        "PLAINTEXT": ports.plaintext,
        "SASL_SSL": ports.sasl_ssl,
        "PROXIED": ports.proxied,
        "CONTROLLER": ports.controller,
    }
    advertised = {"PLAINTEXT": ports.plaintext, "SASL_SSL": ports.sasl_ssl, "PROXIED": ports.proxy}
    sasl_ssl = "listener.name.sasl_ssl"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": ",".join(f"{voter}@{HOST}:{port}" for voter, port in voters.items()),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": _addresses(listeners),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        f"{sasl_ssl}.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        f"{sasl_ssl}.ssl.keystore.type": "PEM",
        f"{sasl_ssl}.ssl.keystore.location": str(server_pem),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
        "auto.create.topics.enable": "false",
        "log.dirs": str(data),
        # A killed broker is back as soon as its last session has expired: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # Retention counts from a record's own timestamp, and the trades of the tests are old.
        "log.retention.ms": "-1",
        # The default takes 128 MiB of the heap.
        "log.cleaner.dedupe.buffer.size": str(4 << 20),
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": str(nodes),
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": str(nodes),
        # A transaction that has expired is ended soon: after 10 s by default.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "transaction.state.log.min.isr": str(nodes // 2 + 1),
    }


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
