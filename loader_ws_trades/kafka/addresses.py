"""Which addresses can be connected to, and why the others cannot."""

from __future__ import annotations

import socket
from functools import partial

from loader_ws_trades.kafka.errors import plain
from loader_ws_trades.lifecycle import Deadline, Task

_MOST = 100  # addresses that are tried at once


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def unreachable(addresses: list[str], seconds: float) -> dict[str, str]:
    """Those of `addresses` that cannot be connected to within `seconds`, and why."""
    found: dict[str, str] = {}

    def connect(address: str) -> None:
        try:
            socket.create_connection(split(address), seconds).close()
        except TimeoutError:
            found[address] = "no answer in time"
        except (OSError, ValueError, OverflowError) as error:
            found[address] = getattr(error, "strerror", None) or str(error)

    # In parallel and not joined beyond the time: a name server may take longer than a connection.
    tasks = {address: Task("connect", partial(connect, address)) for address in addresses[:_MOST]}
    for task in tasks.values():
        task.start()
    deadline = Deadline(seconds)
    for address, task in tasks.items():
        if not task.join(deadline.remaining):
            found.setdefault(address, "no answer in time")
    return {address: found[address] for address in tasks if address in found}


def listed(away: dict[str, str]) -> str:
    """What `unreachable` found, for a sentence."""
    return ", ".join(f"{plain(address)} ({plain(reason)})" for address, reason in away.items())
