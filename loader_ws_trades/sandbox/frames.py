"""Trades as stream frames, WebSocket framing included, encoded a block at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, repeat
from typing import NamedTuple

from loader_ws_trades.sandbox.history import Block, Shape
from loader_ws_trades.sandbox.market import Market

_PAYLOAD = '{"e":"trade","E":%%d,"s":"%s","t":%%d,"p":"%s","q":"%s","T":%%d,"m":%s,"M":true}'
_WRAPPED = '{"stream":"%s","data":%s}'


class Form(NamedTuple):
    """How a client wants its frames: wrapped with the stream's name, times in microseconds."""

    combined: bool
    microseconds: bool


@dataclass(frozen=True)
class Batch:
    """Consecutive whole frames, as they go to a client."""

    ids: Sequence[int]
    ends: Sequence[int]
    """Where each of the frames ends in `data`."""
    data: bytes


def text_frame(payload: bytes) -> bytes:
    """Return a server's text frame (RFC 6455): one fragment, not masked."""
    return _header(len(payload)) + payload


class Encoder:
    """The frames of one market; keeps the blocks encoded last, because many clients and ticks share a block."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._encoded = lru_cache(maxsize=8)(self._encode)
        self._template = lru_cache(maxsize=64)(self._uniform_template)

    def batches(self, start: int, stop: int, form: Form) -> Iterator[Batch]:
        """Yield the frames of the positions from `start` up to `stop`."""
        for number, block, part in self._market.pieces(start, stop):
            ends, data = self._encoded(number, form)
            if part.stop - part.start == len(ends):
                yield Batch(block.ids, ends, data)
            else:
                begin = ends[part.start - 1] if part.start else 0
                yield Batch(block.ids[part], [end - begin for end in ends[part]], data[begin : ends[part.stop - 1]])

    def _encode(self, number: int, form: Form) -> tuple[Sequence[int], bytes]:
        block = self._market.history.block(number)
        digits = len(str(block.ids[0]))
        if digits == len(str(block.ids[-1])):
            ends, template = self._template(block.shape, form, digits)
        else:
            ends, template = self._make_template(block.shape, form, [len(str(trade_id)) for trade_id in block.ids])
        times = self._times(block, form)
        return ends, template % tuple(chain.from_iterable(zip(times, block.ids, times, strict=True)))

    def _times(self, block: Block, form: Form) -> Sequence[int]:
        origin = self._market.origin
        if form.microseconds:
            return [origin + offset for offset in block.times]
        return [(origin + offset) // 1000 for offset in block.times]

    def _uniform_template(self, shape: Shape, form: Form, digits: int) -> tuple[Sequence[int], bytes]:
        return self._make_template(shape, form, repeat(digits))

    def _make_template(self, shape: Shape, form: Form, digits: Iterable[int]) -> tuple[Sequence[int], bytes]:
        """Return the frames of a block without their ids and times, as a format, and where they will end.

        One `%` fills in a whole block, at a third of the time that a frame at a time would take.
        """
        time_digits = 16 if form.microseconds else 13
        frames, lengths = [], []
        for price, quantity, maker, id_digits in zip(
            shape.prices, shape.quantities, shape.makers, digits, strict=False
        ):
            text = _PAYLOAD % (self._market.symbol, price, quantity, "true" if maker else "false")
            if form.combined:
                text = _WRAPPED % (self._market.stream, text)
            payload = text.encode()
            length = len(payload) - 3 * len("%d") + 2 * time_digits + id_digits
            header = _header(length)
            frames.append(header.replace(b"%", b"%%") + payload)
            lengths.append(len(header) + length)
        return list(accumulate(lengths)), b"".join(frames)


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((0x81, length))
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")
