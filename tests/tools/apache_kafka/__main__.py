"""Runs Apache Kafka on loopback in the foreground, until Ctrl-C or SIGTERM."""

import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import click

from tests.tools.apache_kafka.cluster import Cluster
from tests.tools.apache_kafka.distribution import UnavailableError
from tests.tools.apache_kafka.node import NodeError

PORT = 19092
USER = "loader"


@click.command()
@click.argument("topics", nargs=-1)
def main(topics: tuple[str, ...]) -> None:
    """Run Apache Kafka on loopback until Ctrl-C, and print the variables to use.

    TOPICS are created first; the trades go to the first one. Without any: trades, queue-events, queue-control.
    """
    # Both ways to end take the one path out of the `with` blocks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="kafka-") as directory:
        click.echo("Starting Apache Kafka ...", err=True)
        try:
            with Cluster(Path(directory), port=PORT) as cluster:
                _serve(cluster, topics or ("trades", "queue-events", "queue-control"))
        except (UnavailableError, NodeError) as error:
            sys.exit(str(error))


def _serve(cluster: Cluster, topics: tuple[str, ...]) -> None:
    for topic in topics:
        cluster.create_topic(topic)
        cluster.grant(USER, topic, "READ", "WRITE")
    cluster.grant(USER, "*", "WRITE", kind="TRANSACTIONAL_ID")
    # As a whole it is a file for `--env-file`.
    click.echo(
        f"""\
# Without credentials, in place of all that follows:
# export KAFKA_BOOTSTRAP_SERVERS={cluster.bootstrap_servers} KAFKA_TOPIC={topics[0]}

# With SCRAM-SHA-512 over TLS:
export KAFKA_BOOTSTRAP_SERVERS={cluster.sasl_bootstrap_servers}
export KAFKA_TOPIC={topics[0]}
export KAFKA_USER_PRODUCER={USER}
export KAFKA_PASSWORD_PRODUCER={shlex.quote(cluster.users[USER])}
export CA_PATH={shlex.quote(str(cluster.ca_path))}"""
    )
    click.echo("Ctrl-C ends it; its data is not kept.", err=True)
    (node,) = cluster.nodes
    node.wait()
    raise NodeError(f"{node} ended by itself\n{node.log_tail()}")


if __name__ == "__main__":
    main()
