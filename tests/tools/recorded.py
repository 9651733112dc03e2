"""The 40,000 recorded trades, where they exist, or as many generated ones in the same form."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from loader_ws_trades.sandbox import Market

SHARED = Path(__file__).parents[3] / "shared" / "data" / "POLUSDT-frames-2025-10-10.jsonl.gz"
COUNT = 40_000


def frames_file(folder: Path) -> Path:
    """A file of 40,000 frames of POLUSDT, one a line."""
    if SHARED.exists():
        return SHARED
    made = folder / "frames.jsonl.gz"
    if made.exists():  # generated again, its trades would have other times
        return made
    market = Market.generated("POLUSDT", rate=1000, seed=40, past=COUNT)
    with gzip.open(made, "wt") as file:
        for trade in market.trades(0, COUNT):
            time = trade.time // 1000
            frame = {"e": "trade", "E": time, "s": "POLUSDT", "t": trade.id, "p": trade.price, "q": trade.quantity}
            file.write(
                json.dumps(frame | {"T": time, "m": trade.is_buyer_maker, "M": True}, separators=(",", ":")) + "\n"
            )
    return made


def frames(path: Path) -> list[dict[str, Any]]:
    """The frames of a file, decoded by the standard library."""
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def archive_file(folder: Path) -> Path:
    """The same trades as an archive of the exchange, its checksum beside it."""
    published = SHARED.with_name("POLUSDT-trades-2025-10-10.zip")
    if published.exists():
        return published
    made = folder / published.name
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        rows = (
            f"{frame['t']},{frame['p']},{frame['q']},1.0,{frame['T']}000,{frame['m']},True\n"
            for frame in frames(frames_file(folder))
        )
        file.writestr(f"{made.stem}.csv", "".join(rows))
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    made.with_name(f"{made.name}.CHECKSUM").write_text(f"{digest}  {made.name}\n", "utf-8")
    return made
