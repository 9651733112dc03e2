"""Many markets at rates as uneven as those of the real exchange."""

from __future__ import annotations

import zlib
from itertools import chain, islice, product
from string import ascii_uppercase
from typing import Literal

from loader_ws_trades.sandbox.market.history import PATTERNS, Generated, Patterns
from loader_ws_trades.sandbox.market.market import Market

_REAL = [
    *("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "BNBUSDT", "BTCUSDC", "ETHUSDC", "ADAUSDT", "SUIUSDT"),
    *("LINKUSDT", "AVAXUSDT", "LTCUSDT", "TRXUSDT", "PEPEUSDT", "SOLUSDC", "ETHBTC", "XRPUSDC", "DOTUSDT"),
    "币安人生USDT",
]
_QUOTES = ("USDT", "USDC", "BTC", "TRY")
_OFFSET, _EXPONENT = 15, 2.4
_IDS = 10**7


def symbols(count: int) -> list[str]:
    """Return `count` symbols, well-known ones first, then `AAAUSDT`, `AAAUSDC` and so on."""
    invented = ("".join(letters) + quote for letters, quote in product(product(ascii_uppercase, repeat=3), _QUOTES))
    return list(islice(dict.fromkeys(chain(_REAL, islice(invented, count + len(_REAL)))), count))


def rates(count: int, total: float) -> list[float]:
    """Return how `total` trades a second spread over `count` pairs, by Zipf's and Mandelbrot's law.

    Of 1,600 pairs at 3,000 trades/s the first has 250, ten have half of all, and 734 have less than one a minute.
    """
    weights = [(rank + _OFFSET) ** -_EXPONENT for rank in range(1, count + 1)]
    return [total * weight / sum(weights) for weight in weights]


def crowd(count: int, total: float, *, seed: int = 0, start: Literal["now", "subscriber"] = "now") -> list[Market]:
    """Return `count` markets that issue `total` trades a second together, each with ids of its own.

    They share blocks of prices and quantities, but no two have the same one at the same time: 1,600 take some MB.
    """
    patterns = Patterns(seed)
    markets = []
    for rank, (symbol, rate) in enumerate(zip(symbols(count), rates(count, total), strict=True), 1):
        number = zlib.crc32(f"{seed}/{symbol}".encode())
        first_id, first_pattern = rank * _IDS + number % _IDS, number % PATTERNS
        history = Generated(symbol, patterns, rate=rate, first_id=first_id, first_pattern=first_pattern)
        markets.append(Market(history, start=start))
    return markets
