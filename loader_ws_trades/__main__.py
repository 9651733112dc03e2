"""Entry point of the console script, and of `python -m loader_ws_trades`."""

from __future__ import annotations

import os
import signal

from loader_ws_trades import streams


def main() -> None:
    """Run the command line; a signal before or after it ends the process without a trace."""
    streams.prepare()
    handler = signal.getsignal(signal.SIGINT)
    # Unless it is ignored, as in the background of a shell.
    quietly = handler is signal.default_int_handler
    if quietly:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The first process of a container ignores signals without a handler. A run installs its own.
    terminable = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if terminable:
        signal.signal(signal.SIGTERM, _terminate)
    from loader_ws_trades.cli.main import cli  # noqa: PLC0415 - it takes a while

    try:
        if quietly:
            signal.signal(signal.SIGINT, handler)
        cli()
    finally:
        if quietly:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if terminable:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _frame: object) -> None:
    # An exception could be swallowed or printed by whatever is being imported or called.
    os._exit(128 + number)


if __name__ == "__main__":
    main()
