"""A Quix Streams source over websocket-client, without that one's slow UTF-8 check, with Quix's own serializer."""

from __future__ import annotations

import json
import logging
import threading

import websocket
from quixstreams import Application
from quixstreams.sources import Source

from tests.tools.bench.baselines.job import Job, record
from tests.tools.bench.baselines.reads import stamp_reads


class Trades(Source):  # type: ignore[misc, unused-ignore]
    """Runs in a process of its own, which Quix Streams starts."""

    def __init__(self, job: Job) -> None:
        super().__init__(name="trades")
        self._job = job

    def run(self) -> None:
        stamps = self._job.stamps()
        if stamps:
            stamp_reads(stamps)
            deliver = type(self.producer)._on_delivery

            def on_delivery(error: object, message: object) -> None:
                deliver(self.producer, error, message)
                stamps.count_report()

            self.producer._on_delivery = on_delivery
            # It serves reports when it produces; between two trades nobody would.
            threading.Thread(target=self._serve, daemon=True).start()
        connection = websocket.create_connection(self._job.url, skip_utf8_validation=True)
        for _ in range(self._job.count):
            frame = json.loads(connection.recv())
            if stamps:
                stamps.count_frame()
            message = self.serialize(key=frame["s"], value=record(frame))
            self.produce(value=message.value, key=message.key, timestamp=frame["T"])
        self.flush()
        self._job.save(stamps)
        connection.close(timeout=0)

    def _serve(self) -> None:
        while True:
            self.producer.poll(0.1)


def main(job: Job) -> None:
    app = Application(
        broker_address=job.servers,
        consumer_group="bench",
        auto_create_topics=False,
        loglevel=logging.WARNING,
        producer_extra_config={"acks": "all", "linger.ms": 1},
    )
    source = Trades(job)
    app.add_source(source, app.topic(job.topic, key_serializer="str", value_serializer="json"))
    app.run()


if __name__ == "__main__":
    main(Job())
