"""When websocket-client has read from its socket, for the baselines that use it."""

from __future__ import annotations

from websocket import _core, _socket

from tests.bench.stamps import Stamps


def stamp_reads(stamps: Stamps) -> None:
    """Have every read of a socket noted from now on."""
    read = _socket.recv

    def noted(sock: object, size: int) -> object:
        found = read(sock, size)
        stamps.note_read()
        return found

    # It was imported by name.
    _core.recv = noted
