"""Entry point of the console script, and of `python -m loader_ws_trades`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; Ctrl-C before it begins, or behind its end, ends the process without a trace."""
    handler = signal.getsignal(signal.SIGINT)
    # Not where it is ignored, as in the background of a shell.
    quietly = handler is signal.default_int_handler
    if quietly:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from loader_ws_trades.cli import main as cli  # noqa: PLC0415 - it takes a while

    try:
        if quietly:
            signal.signal(signal.SIGINT, handler)
        cli()
    finally:
        if quietly:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
