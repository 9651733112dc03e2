"""Writes to one client; what is written can be held back for a while or dropped."""

import asyncio
import socket
import struct
from collections.abc import Iterator

_HIGH_WATER = 1024 * 1024


class Writer:
    """Writes to a client; what may not be sent yet is held back and counts as backlog."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._held: list[bytes] = []
        self._held_size = 0
        self._holding_trades = False
        self._holding_all = False
        self._shut = False
        self._slow_stream: asyncio.Task[None] | None = None
        self._room, self._free = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._free.set()

    @property
    def silent(self) -> bool:
        """Whether nothing is sent, for now or for good; a slow stream is not silence."""
        return self._holding_all or self._shut

    @property
    def stuck(self) -> bool:
        """Whether it will not recover by itself."""
        return self._shut or self._slow_stream is not None

    @property
    def backlog(self) -> int:
        """Bytes that are written or held back, and not yet read by the client."""
        return 0 if self._closed else self._transport.get_write_buffer_size() + self._held_size

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._write(data, held=self._holding_all)

    def write_trades(self, data: bytes) -> None:
        """Send trade frames."""
        self._write(data, held=self._holding_all or self._holding_trades)

    def hold(self, *, trades_only: bool) -> None:
        """Hold back what is written from now on."""
        self._holding_trades = True
        self._holding_all = self._holding_all or not trades_only
        self._free.clear()

    def release(self) -> None:
        """Send what was held back, and all that follows."""
        self._holding_trades = self._holding_all = False
        self._send_held()

    def shut(self) -> None:
        """Drop all that is written from now on."""
        self._shut = True
        self._free.set()

    def stream_slowly(self, chunks: Iterator[bytes], pause: float = 0.0) -> None:
        """Send `chunks` as the client reads them, `pause` seconds before each, and hold back all other writes.

        Does nothing while it is silent: that may be in the middle of a frame.
        """
        if not self.silent and self._slow_stream is None:
            self._free.clear()
            self._slow_stream = asyncio.create_task(self._send(chunks, pause))

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent, or is gone."""
        await self._room.wait()
        await self._free.wait()

    def pause(self) -> None:
        """The client reads too slowly."""
        self._room.clear()

    def resume(self) -> None:
        """The client has caught up."""
        self._room.set()

    def lost(self) -> None:
        """The client is gone."""
        self.shut()
        self.resume()
        if self._slow_stream is not None:
            self._slow_stream.cancel()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        endpoint = self._transport.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    @property
    def _closed(self) -> bool:
        # Python 3.10 drops a TLS connection's transport one turn before it reports the loss: `is_closing` fails then.
        return self._transport.get_extra_info("socket") is None or self._transport.is_closing()

    def _write(self, data: bytes, *, held: bool) -> None:
        if self._shut or not data or self._closed:
            return
        if held or self._slow_stream is not None:
            self._held.append(data)
            self._held_size += len(data)
        else:
            self._transport.write(data)

    async def _send(self, chunks: Iterator[bytes], pause: float) -> None:
        for chunk in chunks:
            await self._room.wait()
            # A client that reads at once never lets the buffer fill.
            await asyncio.sleep(pause)
            if self._shut or self._closed:
                return
            self._transport.write(chunk)
        self._slow_stream = None
        self._send_held()

    def _send_held(self) -> None:
        if self._holding_trades or self._slow_stream is not None:
            return
        held, self._held, self._held_size = self._held, [], 0
        self.write(b"".join(held))
        self._free.set()
