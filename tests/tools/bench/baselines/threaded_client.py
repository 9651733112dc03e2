"""websocket-client as it comes, json, and confluent-kafka's `produce` with delivery reports."""

from __future__ import annotations

import json
import threading
from typing import Any

import websocket
from confluent_kafka import KafkaError, Message, Producer

from tests.tools.bench.baselines.job import Job, record
from tests.tools.bench.baselines.reads import stamp_reads


def main(job: Job) -> None:
    stamps = job.stamps()
    left = job.count

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error:
            raise RuntimeError(error)
        if stamps:
            stamps.count_report()

    producer = Producer({"bootstrap.servers": job.servers, "acks": "all", "linger.ms": 1, "on_delivery": on_delivery})
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            producer.poll(0.1)

    def on_message(app: websocket.WebSocketApp, message: str) -> None:
        nonlocal left
        if not left:
            return
        if stamps:
            stamps.count_frame()
        frame: dict[str, Any] = json.loads(message)
        value = json.dumps(record(frame))
        while True:
            try:
                producer.produce(job.topic, value, frame["s"], timestamp=frame["T"])
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
        left -= 1
        if not left:
            app.close()

    server = threading.Thread(target=serve)
    if stamps:
        stamp_reads(stamps)
        # `poll(0)` after each trade is quicker, but the last report of a burst would wait for the next trade.
        server.start()
    websocket.WebSocketApp(job.url, on_message=on_message).run_forever()
    stopped.set()
    if stamps:
        server.join()
    producer.flush(60)
    if left or len(producer):
        raise SystemExit(f"{left} trades were not read, {len(producer)} not delivered")
    job.save(stamps)


if __name__ == "__main__":
    main(Job())
