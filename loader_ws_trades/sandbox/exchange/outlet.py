"""The way out to one client; it can be stopped up for a while, or for good."""

import asyncio
import socket
import struct
from collections.abc import Iterator

_HIGH_WATER = 1024 * 1024


class Outlet:
    """Writes to a client; what may not go out yet is kept, and counts as backlog."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._held: list[bytes] = []
        self._held_size = 0
        self._holds_trades = False
        self._holds_all = False
        self._shut = False
        self._occupied: asyncio.Task[None] | None = None
        self._room, self._free = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._free.set()

    @property
    def silent(self) -> bool:
        """Whether nothing goes out, for now or for good; not while it is occupied."""
        return self._holds_all or self._shut

    @property
    def stuck(self) -> bool:
        """Whether it will not go on by itself as if nothing had been."""
        return self._shut or self._occupied is not None

    @property
    def backlog(self) -> int:
        """Bytes that are written or kept, and not taken by the client."""
        return 0 if self._gone else self._transport.get_write_buffer_size() + self._held_size

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._write(data, held=self._holds_all)

    def write_trades(self, data: bytes) -> None:
        """Send trade frames."""
        self._write(data, held=self._holds_all or self._holds_trades)

    def hold(self, *, trades_only: bool) -> None:
        """Keep what is written from now on."""
        self._holds_trades = True
        self._holds_all = self._holds_all or not trades_only
        self._free.clear()

    def release(self) -> None:
        """Send what was kept, and all that follows."""
        self._holds_trades = self._holds_all = False
        self._let_go()

    def shut(self) -> None:
        """Drop all that is written from now on."""
        self._shut = True
        self._free.set()

    def occupy(self, chunks: Iterator[bytes], pause: float = 0.0) -> None:
        """Send `chunks` as the client takes them, and keep what else is written until then.

        Before each of them pass `pause` seconds. Nothing is done where nothing goes out: that may be in
        the middle of a frame.
        """
        if not self.silent and self._occupied is None:
            self._free.clear()
            self._occupied = asyncio.create_task(self._send(chunks, pause))

    async def drained(self) -> None:
        """Wait until the client has taken most of what was sent, or is gone."""
        await self._room.wait()
        await self._free.wait()

    def pause(self) -> None:
        """Take note that the client reads too slowly."""
        self._room.clear()

    def resume(self) -> None:
        """Take note that the client has caught up."""
        self._room.set()

    def lost(self) -> None:
        """Take note that the client is gone."""
        self.shut()
        self.resume()
        if self._occupied is not None:
            self._occupied.cancel()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        endpoint = self._transport.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    @property
    def _gone(self) -> bool:
        # Python 3.10 loses a TLS connection's own transport a turn before it tells: then even `is_closing` fails.
        return self._transport.get_extra_info("socket") is None or self._transport.is_closing()

    def _write(self, data: bytes, *, held: bool) -> None:
        if self._shut or not data or self._gone:
            return
        if held or self._occupied is not None:
            self._held.append(data)
            self._held_size += len(data)
        else:
            self._transport.write(data)

    async def _send(self, chunks: Iterator[bytes], pause: float) -> None:
        for chunk in chunks:
            await self._room.wait()
            # A client that reads at once never lets the buffer fill.
            await asyncio.sleep(pause)
            if self._shut or self._gone:
                return
            self._transport.write(chunk)
        self._occupied = None
        self._let_go()

    def _let_go(self) -> None:
        if self._holds_trades or self._occupied is not None:
            return
        held, self._held, self._held_size = self._held, [], 0
        self.write(b"".join(held))
        self._free.set()
