"""The asyncio loop: websockets, json, aiokafka; pipelined, no send is awaited for its acknowledgement."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiokafka import AIOKafkaProducer
from websockets.asyncio.client import ClientConnection, connect

from tests.tools.bench.baselines.job import Job, record
from tests.tools.bench.stamps import Stamps


def _stamped(stamps: Stamps) -> type[ClientConnection]:
    """A connection that notes when its data came."""

    class Connection(ClientConnection):
        def data_received(self, data: bytes) -> None:
            stamps.note_read()
            super().data_received(data)

        def process_event(self, event: Any) -> None:
            if getattr(event, "opcode", None) == 1:
                stamps.count_frame()
            super().process_event(event)

    return Connection


async def main(job: Job) -> None:
    stamps = job.stamps()
    # 16 KiB a batch and no linger are its defaults; these are faster.
    producer = AIOKafkaProducer(bootstrap_servers=job.servers, acks="all", linger_ms=1, max_batch_size=256 * 1024)
    await producer.start()
    left = job.count
    try:
        async with connect(job.url, create_connection=_stamped(stamps) if stamps else None) as websocket:
            async for message in websocket:
                frame = json.loads(message)
                value = json.dumps(record(frame)).encode()
                sent = await producer.send(job.topic, value, key=frame["s"].encode(), timestamp_ms=frame["T"])
                if stamps:
                    sent.add_done_callback(lambda _sent: stamps.count_report())
                left -= 1
                if not left:
                    break
            await producer.flush()
    finally:
        await producer.stop()
    job.save(stamps)


if __name__ == "__main__":
    asyncio.run(main(Job()))
