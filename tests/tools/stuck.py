"""The loader, with a part that hangs on purpose: `python stuck.py HOW FILE run ...`.

Once FILE exists, HOW happens; removing FILE ends it where that can help. The health check's own limits are shortened to
two or three seconds over those of the settings, so that tests can also exceed what it must tolerate.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

_LOOK = 0.05  # seconds between two looks whether it may go on


class _GoneError(Exception):
    """Ends a thread without anybody noticing."""


def _held(owner: Any, name: str, flag: Path, first: Callable[[], None]) -> None:
    """Let `first` happen before each call of a function while `flag` exists."""
    call = getattr(owner, name)

    @wraps(call)
    def held(*arguments: Any, **named: Any) -> Any:
        if flag.exists():
            first()
        return call(*arguments, **named)

    setattr(owner, name, held)


def _break(how: str, flag: Path) -> None:
    from loader_ws_trades import errors  # noqa: PLC0415 - see the end
    from loader_ws_trades.binance import connection, feed, feed_thread  # noqa: PLC0415
    from loader_ws_trades.kafka import checkpoint, publisher  # noqa: PLC0415
    from loader_ws_trades.pipeline import trade  # noqa: PLC0415

    def stand_still() -> None:
        while flag.exists():
            threading.Event().wait(_LOOK)

    def be_gone() -> None:
        raise _GoneError

    def be_unavailable() -> None:
        raise errors.UnavailableError("the brokers do not answer")

    if how == "main-loop":
        _held(publisher.Publisher, "poll", flag, stand_still)
    elif how == "feed-hangs":
        _held(trade.FrameDecoder, "decode", flag, stand_still)
    elif how == "connecting-hangs":
        _held(connection.Connection, "run", flag, stand_still)
    elif how == "feed-dies":
        run = feed_thread.FeedThread.run

        def end_quietly(self: feed_thread.FeedThread, *arguments: Any) -> None:
            try:
                run(self, *arguments)
            except _GoneError:
                return

        feed_thread.FeedThread.run = end_quietly  # type: ignore[method-assign, assignment]
        _held(feed.Feed, "on_end", flag, be_gone)
    elif how == "no-checkpoint":
        _held(checkpoint.Search, "run", flag, be_unavailable)
    elif how != "nothing":
        raise ValueError(how)


def _shorten() -> None:
    from loader_ws_trades.binance import feed_thread  # noqa: PLC0415 - see the end
    from loader_ws_trades.monitoring import health  # noqa: PLC0415 - see the end

    vars(health).update(_TURN=3.0, _START=3.0, SLACK=2.0)
    vars(feed_thread).update(SLACK=2.0, CONNECT_LIMIT=2.0, _NAME_LIMIT=0.0)


if __name__ == "__main__":
    # This folder's modules must not stand before those that the loader imports.
    del sys.path[0]
    how, file = sys.argv[1:3]
    sys.argv[1:3] = []
    _break(how, Path(file))
    _shorten()
    from loader_ws_trades.cli.main import cli

    cli()
