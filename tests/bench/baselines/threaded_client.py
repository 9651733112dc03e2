"""websocket-client as it comes, json, and confluent-kafka's `produce` with delivery reports."""

from __future__ import annotations

import json
import threading
from typing import Any

import websocket
from confluent_kafka import KafkaError, Message, Producer

from tests.bench.baselines.job import Job, record
from tests.bench.baselines.reads import stamp_reads


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
                stopped.wait(0.01)
        left -= 1
        if not left:
            app.close()

    if stamps:
        stamp_reads(stamps)
    server = threading.Thread(target=serve)
    server.start()
    # Its teardown waits 3 s for the peer's close frame by default; that is no part of the work.
    websocket.WebSocketApp(job.url, on_message=on_message).run_forever()
    stopped.set()
    server.join()
    producer.flush(60)
    if left or len(producer):
        raise SystemExit(f"{left} trades were not read, {len(producer)} not delivered")
    job.save(stamps)


if __name__ == "__main__":
    main(Job())
