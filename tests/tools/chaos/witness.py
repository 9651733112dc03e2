"""The independent reader's judgement: a topic, compared with what the exchange issued, digit by digit."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from loader_ws_trades.sandbox import Market, Trade
from tests.tools.chaos.outcome import Counts

_MOST_NAMED = 1_000_000  # ids in a range: more than any row loses, and few enough to be held


_MINUTE = 60_000  # milliseconds


def compare(
    market: Market,
    records: Iterable[Message],
    *,
    goal: int | None = None,
    excused: Collection[int] = frozenset(),
    behind: float = 0.0,
) -> Counts:
    """Count what is wrong with the records of a topic, in the order of their offsets.

    Args:
        market: what issued the trades; all from its first position on are owed.
        records: what is on the topic.
        goal: an id up to which trades are owed, even if the topic ends before.
        excused: ids that may be missing.
        behind: seconds by which the loader's clock was behind; records of trades ahead of it may have its time.
    """
    issued = market.placed(0, market.issued)
    places = {trade.id: (position, trade) for position, trade in issued}
    seen: set[int] = set()
    wrong: dict[str, list[str]] = {"lost": [], "duplicated": [], "out of order": [], "altered": []}
    on_topic, furthest = 0, -1
    for record in records:
        on_topic += 1
        fields = _fields(record)
        position, trade = places.get(_id(fields), (-1, None))
        if trade is None or not _is_unaltered(record, fields, trade, market.symbol, behind):
            wrong["altered"].append(str(fields.get("trade_id")))
        if trade is None:
            continue
        if position in seen:
            wrong["duplicated"].append(str(trade.id))
        elif position < furthest:
            wrong["out of order"].append(str(trade.id))
        seen.add(position)
        furthest = max(furthest, position)
    newest = max(furthest, places[goal][0] if goal in places else -1)
    owed = [(position, trade.id) for position, trade in issued if position <= newest]
    wrong["lost"] = [str(trade_id) for position, trade_id in owed if position not in seen and trade_id not in excused]
    return Counts(
        issued=len(owed),
        on_topic=on_topic,
        lost=len(wrong["lost"]),
        duplicated=len(wrong["duplicated"]),
        out_of_order=len(wrong["out of order"]),
        altered=len(wrong["altered"]),
        examples="; ".join(f"{what}: {', '.join(ids[:5])}" for what, ids in wrong.items() if ids),
    )


def named_ids(messages: Iterable[str]) -> set[int]:
    """The ids that these texts name as missing, as in `missing trade ids 100-107, 110`."""
    found: set[int] = set()
    for message in messages:
        for text in re.findall(r"[Mm]issing trade ids ([\d, -]+)", message):
            for part in text.strip(", ").split(", "):
                first, _, last = part.partition("-")
                ids = range(int(first), int(last or first) + 1)
                assert len(ids) <= _MOST_NAMED, f"{part} are named as missing"
                found.update(ids)
    return found


def _fields(record: Message) -> dict[str, Any]:
    """The fields of a record, its numbers as the text that they were written in."""
    try:
        fields = json.loads(record.value() or b"", parse_float=str, parse_int=str)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _id(fields: dict[str, Any]) -> int:
    text = fields.get("trade_id")
    return int(text) if isinstance(text, str) and text.isdecimal() else -1


def _is_unaltered(record: Message, fields: dict[str, Any], trade: Trade, symbol: str, behind: float) -> bool:
    milliseconds = trade.time // 1000
    expected = {
        "trade_id": str(trade.id),
        "price": trade.price,
        "quantity": trade.quantity,
        "timestamp": str(milliseconds),
        "is_buyer_maker": trade.is_buyer_maker,
        "symbol": symbol,
    }
    kind, stamped = record.timestamp()
    early = milliseconds - stamped - behind * 1000  # of the time that the loader's clock may have shown
    # Compared as lists: the order of the fields is a part of the contract.
    return (
        list(fields.items()) == list(expected.items())
        and record.key() == symbol.encode()
        # The broker's own time, where the topic says so.
        and (stamped == milliseconds or kind == TIMESTAMP_LOG_APPEND_TIME or (behind > 0 and abs(early) < _MINUTE))
    )
