"""When websocket-client has read from its socket, for the baselines that use it."""

from __future__ import annotations

import socket

from websocket import _core, _socket

from tests.tools.bench.stamps import Stamps


def stamp_reads(stamps: Stamps) -> None:
    """Have every read of a socket noted from now on."""
    read = _socket.recv

    def noted(sock: socket.socket, size: int) -> bytes:
        found = read(sock, size)
        stamps.note_read()
        return found

    # `_core` imported it by name.
    vars(_core)["recv"] = noted
