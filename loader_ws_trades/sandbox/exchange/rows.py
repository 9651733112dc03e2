"""The rows of REST answers: trades, and aggregates of them."""

from decimal import Decimal
from itertools import groupby
from typing import Any

from loader_ws_trades.sandbox.market.history import BLOCK, Trade
from loader_ws_trades.sandbox.market.market import Market

_DAY = 24 * 3600 * 1000  # ms


def trade_row(trade: Trade) -> dict[str, Any]:
    """Return a trade as a row."""
    return {
        "id": trade.id,
        "price": trade.price,
        "qty": trade.quantity,
        "quoteQty": f"{Decimal(trade.price) * Decimal(trade.quantity):.8f}",
        "time": trade.time // 1000,
        "isBuyerMaker": trade.is_buyer_maker,
        "isBestMatch": True,
    }


def ticker_row(market: Market, now: int, *, full: bool) -> dict[str, Any]:
    """Return the statistics of the 24 h before `now` (ms); without trades in them the ids are -1.

    Highs, lows and volumes are omitted: they would have to be computed from every trade.
    """
    stop = market.issued
    start = market.sequence_start
    if market.history.origin is None:  # recorded trades keep their times, and may be old
        start = max(start, market.position_at((now - _DAY) * 1000))
    pieces = list(market.numbering.pieces(start, stop))
    count = sum(piece.part.stop - piece.part.start for piece in pieces)
    zero = Trade(-1, "0.00000000", "0.00000000", 0, False)
    first, last = (
        (market.trades(pieces[0].position, pieces[0].position + 1)[0], last_trades(market, stop, 1)[0])
        if count
        else (zero, zero)
    )
    prices = {"lastPrice": last.price}
    if full:
        change = Decimal(last.price) - Decimal(first.price)
        percent = change / Decimal(first.price) * 100 if count else change
        prices = {"priceChange": f"{change:.8f}", "priceChangePercent": f"{percent:.3f}", **prices}
        prices["lastQty"] = last.quantity
    return {
        "symbol": market.symbol,
        "openPrice": first.price,
        **prices,
        "openTime": now - _DAY,
        "closeTime": now,
        "firstId": first.id,
        "lastId": last.id,
        "count": count,
    }


def first_trades(market: Market, begin: int, stop: int, limit: int) -> list[Trade]:
    """Return the first `limit` trades of the positions from `begin` up to `stop`."""
    found: list[Trade] = []
    while begin < stop and len(found) < limit:
        end = min(begin + limit - len(found), stop)
        found += market.trades(begin, end)
        begin = end
    return found


def last_trades(market: Market, stop: int, limit: int) -> list[Trade]:
    """Return the last `limit` trades of the current sequence before the position `stop`."""
    found: list[Trade] = []
    sequence_start = market.sequence_start
    while stop > sequence_start and len(found) < limit:
        begin = max(stop - limit + len(found), sequence_start)
        found = market.trades(begin, stop) + found
        stop = begin
    return found


def _block_aggregates(market: Market, number: int, stop: int) -> list[dict[str, Any]]:
    """Return the aggregates of one block up to `stop`: trades of the same millisecond, price and side.

    An aggregate ends with its block, so that it is the same in every answer. Its id is the position of its first
    trade, counted from 1: ascending, but with gaps, and not a trade id.
    """
    rows, sequence_start = [], market.sequence_start
    placed = market.placed(max(number * BLOCK, sequence_start), min(stop, (number + 1) * BLOCK))
    for (moment, price, maker), group in groupby(
        placed, key=lambda one: (one[1].time // 1000, one[1].price, one[1].is_buyer_maker)
    ):
        members = list(group)
        quantity = sum(Decimal(trade.quantity) for _, trade in members)
        rows.append(
            {
                "a": members[0][0] - sequence_start + 1,
                "p": price,
                "q": f"{quantity:.8f}",
                "f": members[0][1].id,
                "l": members[-1][1].id,
                "T": moment,
                "m": maker,
                "M": True,
            }
        )
    return rows


def first_aggregates(market: Market, begin: int, stop: int, limit: int) -> list[dict[str, Any]]:
    """Return the first `limit` aggregates that begin at one of the positions from `begin` up to `stop`."""
    found: list[dict[str, Any]] = []
    lowest = begin - market.sequence_start + 1
    for number in range(begin // BLOCK, -(-stop // BLOCK)):
        found += [row for row in _block_aggregates(market, number, stop) if row["a"] >= lowest]
        if len(found) >= limit:
            break
    return found[:limit]


def last_aggregates(market: Market, stop: int, limit: int) -> list[dict[str, Any]]:
    """Return the last `limit` aggregates of the current sequence before the position `stop`."""
    found: list[dict[str, Any]] = []
    for number in range((stop - 1) // BLOCK, market.sequence_start // BLOCK - 1, -1):
        found = _block_aggregates(market, number, stop) + found
        if len(found) >= limit:
            break
    return found[-limit:]
