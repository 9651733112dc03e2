"""Trades as stream frames, WebSocket framing included, encoded a block at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise, repeat
from typing import NamedTuple

from loader_ws_trades.sandbox.market.history import Block, Shape
from loader_ws_trades.sandbox.market.market import Market

_FEW = 64
"""Frames up to which a block is not encoded as a whole: most markets send one at a time."""
_PAYLOAD = '{"e":"trade","E":%%d,"s":"%s","t":%%d,"p":"%s","q":"%s","T":%%d,"m":%s,"M":true}'
_WRAPPED = '{"stream":"%s","data":%s}'


class Form(NamedTuple):
    """The form of a client's frames: wrapped with the stream's name, times in microseconds."""

    combined: bool
    microseconds: bool


@dataclass
class Batch:
    """Whole frames of consecutive positions, as they are sent."""

    market: Market
    position: int
    """Position of the first of them."""
    ids: Sequence[int]
    ends: Sequence[int]
    """Where each of the frames ends in `data`."""
    data: bytes

    def split(self, count: int) -> "tuple[Batch, Batch]":
        """Return the first `count` frames, and the others."""
        middle = self.ends[count - 1] if count else 0
        head = Batch(self.market, self.position, self.ids[:count], self.ends[:count], self.data[:middle])
        ends = [end - middle for end in self.ends[count:]]
        return head, Batch(self.market, self.position + count, self.ids[count:], ends, self.data[middle:])

    def frames(self) -> Iterator[bytes]:
        """Yield the frames one by one."""
        return (self.data[start:end] for start, end in pairwise((0, *self.ends)))


def text_frame(payload: bytes) -> bytes:
    """Return a server's text frame (RFC 6455): one fragment, not masked."""
    return header(len(payload)) + payload


def payload(frame: bytes) -> bytes:
    """Return the payload of a server's frame of less than 64 KiB."""
    return frame[2:] if frame[1] < 126 else frame[4:]


def header(length: int, first: int = 0x81) -> bytes:
    """Return the header of a server's frame; `first` is its first byte: the final flag and the opcode."""
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


class Encoder:
    """The frames of one market; caches recent blocks, because many clients and ticks share a block."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._encoded = lru_cache(maxsize=8)(self._encode)
        self._template = lru_cache(maxsize=64)(self._uniform_template)

    def batches(self, start: int, stop: int, form: Form) -> list[Batch]:
        """Return the frames of the positions from `start` up to `stop`."""
        found = []
        for position, number, shift, part in self._market.numbering.pieces(start, stop):
            block = self._market.numbering.block(number, shift)
            if part.stop - part.start <= _FEW:
                frames = [self._frame(block, place, form) for place in range(part.start, part.stop)]
                ends: Sequence[int] = list(accumulate(map(len, frames)))
                data = b"".join(frames)
            else:
                ends, data = self._encoded(number, shift, form)
                if part.stop - part.start < len(ends):
                    begin = ends[part.start - 1] if part.start else 0
                    ends = [end - begin for end in ends[part]]
                    data = data[begin : begin + ends[-1]]
            found.append(Batch(self._market, position, block.ids[part], ends, data))
        return found

    def _frame(self, block: Block, place: int, form: Form) -> bytes:
        shape, time = block.shape, self._market.origin + block.times[place]
        if not form.microseconds:
            time //= 1000
        text = self._text(form, shape.prices[place], shape.quantities[place], maker=shape.makers[place])
        return text_frame((text % (time, block.ids[place], time)).encode())

    def _text(self, form: Form, price: str, quantity: str, *, maker: bool) -> str:
        """Return a trade's JSON without its id and times, as a format."""
        text = _PAYLOAD % (self._market.symbol, price, quantity, "true" if maker else "false")
        return _WRAPPED % (self._market.stream, text) if form.combined else text

    def _encode(self, number: int, shift: int, form: Form) -> tuple[Sequence[int], bytes]:
        block = self._market.numbering.block(number, shift)
        digits = len(str(block.ids[0]))
        # After a restart at a low id, earlier ids of the block are below 0; they are never sent.
        if block.ids[0] >= 0 and digits == len(str(block.ids[-1])):
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
            encoded = self._text(form, price, quantity, maker=maker).encode()
            length = len(encoded) - 3 * len("%d") + 2 * time_digits + id_digits
            head = header(length)
            frames.append(head.replace(b"%", b"%%") + encoded)
            lengths.append(len(head) + length)
        return list(accumulate(lengths)), b"".join(frames)
