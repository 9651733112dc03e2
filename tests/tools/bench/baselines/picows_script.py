"""A bare script on the fastest libraries: picows (Cython) on uvloop, msgspec with typed structs, confluent-kafka."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import uvloop
from confluent_kafka import KafkaError, Message, Producer
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.tools.bench.baselines.job import Job

_LINGER_MS = 5  # librdkafka's default, and since Kafka 4.0 that of the Java client


class Frame(msgspec.Struct):
    """What it needs of a trade."""

    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class Record(msgspec.Struct):
    """The same six fields as the loader's, with floats."""

    trade_id: int
    price: float
    quantity: float
    timestamp: int
    is_buyer_maker: bool
    symbol: str


def main(job: Job) -> None:
    stamps = job.stamps()
    left, failed = job.count, 0

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        nonlocal failed
        if error:
            failed += 1
        elif stamps:
            stamps.count_report()

    producer = Producer(
        {"bootstrap.servers": job.servers, "acks": "all", "linger.ms": _LINGER_MS, "on_delivery": on_delivery}
    )
    decode, encode = msgspec.json.Decoder(Frame).decode, msgspec.json.Encoder().encode

    class Trades(WSListener):  # type: ignore[misc, unused-ignore]
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            nonlocal left
            if frame.msg_type != WSMsgType.TEXT or not left:
                return
            if stamps:
                stamps.note_read()
                stamps.count_frame()
            trade = decode(frame.get_payload_as_memoryview())
            value = encode(Record(trade.t, float(trade.p), float(trade.q), trade.T, trade.m, trade.s))
            while True:
                try:
                    producer.produce(job.topic, value, trade.s, timestamp=trade.T)
                    break
                except BufferError:
                    producer.poll(0.01)
            producer.poll(0)
            left -= 1
            if not left:
                transport.disconnect()

    async def read() -> None:
        transport, _ = await ws_connect(Trades, job.url)
        await transport.wait_disconnected()

    if stamps:
        # `poll(0)` after each trade is cheap, but a report would wait for the next trade.
        threading.Thread(target=_serve, args=[producer], daemon=True).start()
    uvloop.run(read())
    producer.flush(60)
    if left or failed or len(producer):
        raise SystemExit(f"{left} trades were not read, {failed} rejected, {len(producer)} not delivered")
    job.save(stamps)


def _serve(producer: Any) -> None:
    while True:
        producer.poll(0.1)


if __name__ == "__main__":
    main(Job())
