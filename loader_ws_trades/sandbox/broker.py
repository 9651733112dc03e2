"""A Kafka broker inside this process: librdkafka's mock cluster, up at once, for demonstrations and quick tests."""

from types import TracebackType

from confluent_kafka import KafkaException, Producer


class EmbeddedBroker:
    """A broker as a context manager, reachable from other processes too.

    It creates any topic it is asked about, with 4 partitions of at most 5 MiB each. It has no TLS, no authentication
    and no lookup by time, and it neither deduplicates nor fences.
    """

    def __init__(self) -> None:
        self.bootstrap_servers = ""
        """`host:port` to connect to, once the broker is started."""
        self._cluster: Producer | None = None

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 10.0) -> None:
        """Start the broker; raises `confluent_kafka.KafkaException` if it is not up within `timeout` seconds."""
        # The cluster lives and dies with this client.
        self._cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._cluster.list_topics(timeout=timeout).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def stop(self) -> None:
        """Stop the broker and discard its data."""
        self._cluster = None

    def create_topics(self, *names: str, timeout: float = 10.0) -> None:
        """Create topics; raises `confluent_kafka.KafkaException` if one is not there within `timeout` seconds."""
        if self._cluster is None:
            raise RuntimeError("the embedded broker is not started")
        for name in names:
            # Asking the mock broker about a topic creates it.
            error = self._cluster.list_topics(name, timeout).topics[name].error
            if error is not None:
                raise KafkaException(error)
