"""A client that reads all streams and does nothing with them: `python -m tests.tools.bench.drain URL PAIRS SECONDS`.

It says how many trades a second came, and by how many milliseconds the newest were late at most in the last quarter.
"""

from __future__ import annotations

import json
import re
import select
import sys
import time
from urllib.parse import quote

from websocket import create_connection

from loader_ws_trades.sandbox.market.crowd import symbols

_EACH = 200  # streams of a connection
_WARM_UP = 3.0
_TIME = re.compile(rb'"T":(\d+)')


def main() -> None:
    """Read for so many seconds."""
    url, names, seconds = sys.argv[1], symbols(int(sys.argv[2])), float(sys.argv[3])
    names = [quote(f"{name.lower()}@trade") for name in names]
    groups = [names[start : start + _EACH] for start in range(0, len(names), _EACH)]
    clients = [create_connection(f"{url}?streams={'/'.join(group)}") for group in groups]
    sockets = [client.sock for client in clients if client.sock]
    begin = time.time() + _WARM_UP
    end = begin + seconds
    count, worst = 0, 0.0
    while (now := time.time()) < end:
        for ready in select.select(sockets, [], [], 0.1)[0]:
            data = ready.recv(1 << 20)
            if now > begin:
                count += data.count(b'"T":')
            found = _TIME.search(data) if now > end - seconds / 4 else None
            worst = max(worst, time.time() * 1000 - int(found[1])) if found else worst
    print(json.dumps({"rate": count / seconds, "worst": worst}), flush=True)  # noqa: T201 - the harness reads it


if __name__ == "__main__":
    main()
