"""The loader, with a main loop that hangs while a file exists: `python stuck.py FILE run ...`.

The health check's own limits are shortened to two or three seconds over those of the settings, so that tests can also
exceed what it must tolerate.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

_LOOK = 0.05  # seconds between two looks whether it may go on


def _hang_while_exists(flag: Path) -> None:
    from loader_ws_trades.kafka.publisher import Publisher  # noqa: PLC0415 - see the end

    poll = Publisher.poll

    def held(self: Publisher, timeout: float) -> None:
        while flag.exists():
            threading.Event().wait(_LOOK)
        poll(self, timeout)

    Publisher.poll = held  # type: ignore[method-assign]


def _shorten() -> None:
    from loader_ws_trades.binance import feed_thread  # noqa: PLC0415 - see the end
    from loader_ws_trades.monitoring import monitor  # noqa: PLC0415 - see the end

    vars(monitor).update(_TURN=3.0, _START=3.0, SLACK=2.0)
    vars(feed_thread).update(SLACK=2.0)


if __name__ == "__main__":
    # This folder's modules must not stand before those that the loader imports.
    del sys.path[0]
    _hang_while_exists(Path(sys.argv.pop(1)))
    _shorten()
    from loader_ws_trades.cli.main import cli

    cli()
