"""Entry point of `python -m loader_ws_trades`."""

from loader_ws_trades.cli import main

main()
