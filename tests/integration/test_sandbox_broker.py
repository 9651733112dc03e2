"""The embedded broker."""

from confluent_kafka import Consumer, Producer, TopicPartition

from loader_ws_trades.sandbox import EmbeddedBroker


def test_what_is_written_can_be_read() -> None:
    with EmbeddedBroker() as broker:
        broker.create_topics("trades", "queue-events")
        servers = {"bootstrap.servers": broker.bootstrap_servers}
        producer = Producer(servers | {"log_level": 0})
        assert {"trades", "queue-events"} <= producer.list_topics(timeout=5).topics.keys()
        producer.produce("trades", b"1", partition=0)
        assert producer.flush(10) == 0
        consumer = Consumer(servers | {"group.id": "test", "log_level": 0})
        consumer.assign([TopicPartition("trades", 0, 0)])
        message = consumer.poll(10)
        assert message is not None
        assert message.value() == b"1"
        consumer.close()
