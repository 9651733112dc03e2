"""confluent-kafka's producer, with our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as ConfluentProducer

from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.admin import SHORT_TIMEOUT
from loader_ws_trades.kafka.client import Client
from loader_ws_trades.kafka.errors import AbortableError, access_denied, error_text, run_error
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.lifecycle import Deadline


class Producer(Client):
    """A producer whose delivery reports go to `on_delivery`; `produce` is librdkafka's, and safe in any thread.

    Raises:
        ConfigurationError: if a property is rejected.
    """

    def __init__(
        self,
        properties: KafkaProperties,
        on_delivery: Callable[[KafkaError | None, Message], None],
        *,
        credentials: str,
    ) -> None:
        super().__init__(ConfluentProducer, properties, credentials, on_delivery=on_delivery)
        self.produce = self._client.produce
        self.begin_transaction = self._client.begin_transaction

    def __len__(self) -> int:
        return len(self._client)

    def poll(self, timeout: float) -> None:
        """Serve callbacks for at most `timeout` seconds, or until some were served.

        Raises:
            RunError: if the producer has failed for good.
        """
        try:
            self._client.poll(timeout)
        except KafkaException as error:
            raise run_error(error, "Writing to Kafka") from error

    def occupy(self, topic: str) -> None:
        """Keep librdkafka's thread from spinning while nothing is acknowledged.

        It would, once more than five records of a partition are in flight and others have waited for `linger.ms`
        (2.16), unless a request waits to be sent. So ask for metadata, and do not wait for it, until the connection
        takes no more. Of several brokers any one is asked: one that stops while others answer is not reached.
        """
        for _ in range(int(self.properties["max.in.flight"])):
            with contextlib.suppress(KafkaException):
                self.list_topics(topic, timeout=0.001)

    def init_transactions(self) -> None:
        """Fence off older producers with the same transactional id, and end what they left open.

        Raises:
            ConfigurationError: if the transactional id is not permitted; this producer cannot be used then.
            UnavailableError: if there was no answer in time; call it again.
            RunError: if the producer has failed for good.
        """
        try:
            self._client.init_transactions(SHORT_TIMEOUT)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                resource = f"the transactional id {self.properties['transactional.id']}"
                raise access_denied("WRITE", resource, "delivery", self.diagnosis.credentials) from error
            if cause.retriable():
                raise UnavailableError(
                    f"Kafka did not initialize transactions in time ({error_text(error)}); check the brokers"
                ) from error
            raise run_error(error, "Initializing transactions") from error

    def commit_transaction(self, timeout: float) -> bool:
        """Commit what was produced; False if that takes more than `timeout` seconds: call it again.

        Raises:
            AbortableError: if the transaction can only be aborted.
            RunError: if the producer has failed for good.
        """
        return self._end_transaction(self._client.commit_transaction, timeout)

    def abort_transaction(self, timeout: float) -> bool:
        """Undo what was produced since the last commit; as `commit_transaction`."""
        return self._end_transaction(self._client.abort_transaction, timeout)

    @staticmethod
    def _end_transaction(end: Callable[[float], object], timeout: float) -> bool:
        try:
            end(timeout)
        except KafkaException as error:
            cause = error.args[0]
            if cause.retriable():
                return False
            if cause.txn_requires_abort():
                raise AbortableError(error_text(error)) from error
            raise run_error(error, "Ending a transaction") from error
        return True

    def purge(self, deadline: Deadline) -> None:
        """Discard what is not delivered: each record gets a delivery report that says so, within `deadline`."""
        self._client.purge()
        while len(self._client):
            with contextlib.suppress(RunError):
                self.poll(min(0.1, deadline.remaining))
            if deadline.passed:
                return
