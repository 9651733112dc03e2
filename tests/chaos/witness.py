"""The independent reader's judgement: a topic, compared with what the exchange issued, digit by digit."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from confluent_kafka import Message

from loader_ws_trades.sandbox import Market, Trade
from tests.chaos.outcome import Counts


def compare(
    market: Market, records: Iterable[Message], *, goal: int | None = None, excused: Collection[int] = ()
) -> Counts:
    """Count what is wrong with the records of a topic, in the order of their offsets.

    Args:
        market: what issued the trades; all from its first position on are owed.
        records: what is on the topic.
        goal: an id up to which trades are owed, even if the topic ends before.
        excused: ids that may be missing.
    """
    issued = market.placed(0, market.issued)
    places = {trade.id: (position, trade) for position, trade in issued}
    seen: set[int] = set()
    newest = places[goal][0] if goal in places else -1
    on_topic = duplicated = out_of_order = altered = 0
    furthest = -1
    for record in records:
        on_topic += 1
        fields = _fields(record)
        position, trade = places.get(int(fields.get("trade_id", -1)), (-1, None))
        if trade is None or not _is_unaltered(record, fields, trade, market.symbol):
            altered += 1
        if position < 0:
            continue
        if position in seen:
            duplicated += 1
        elif position < furthest:
            out_of_order += 1
        seen.add(position)
        furthest = max(furthest, position)
    newest = max(newest, furthest)
    owed = [trade.id for position, trade in issued if position <= newest]
    missing = {trade_id for trade_id in owed if places[trade_id][0] not in seen}
    return Counts(len(owed), on_topic, len(missing.difference(excused)), duplicated, out_of_order, altered)


def named_ids(messages: Iterable[str]) -> set[int]:
    """The ids that these texts name as missing, as in `missing trade ids 100-107, 110`."""
    found: set[int] = set()
    for message in messages:
        for text in re.findall(r"[Mm]issing trade ids ([\d, -]+)", message):
            for part in text.strip(", ").split(", "):
                first, _, last = part.partition("-")
                found |= set(range(int(first), int(last or first) + 1))
    return found


def _fields(record: Message) -> dict[str, Any]:
    """The fields of a record, its numbers as the text that they were written in."""
    try:
        fields = json.loads(record.value() or b"", parse_float=str, parse_int=str)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_unaltered(record: Message, fields: dict[str, Any], trade: Trade, symbol: str) -> bool:
    milliseconds = trade.time // 1000
    expected = {
        "trade_id": str(trade.id),
        "price": trade.price,
        "quantity": trade.quantity,
        "timestamp": str(milliseconds),
        "is_buyer_maker": trade.is_buyer_maker,
        "symbol": symbol,
    }
    # Compared as lists: the order of the fields is a part of the contract.
    return (
        list(fields.items()) == list(expected.items())
        and record.key() == symbol.encode()
        and record.timestamp()[1] == milliseconds
    )
