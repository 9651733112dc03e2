"""Lines of the exchange's public spot archives decoded as trades; what is no such line, told in words.

Source: the "trades" files of the exchange's public data: id, price, qty, quoteQty, time, isBuyerMaker, isBestMatch.
"""

from __future__ import annotations

import re

from loader_ws_trades.pipeline.trade import DECIMAL, Trade

_COLUMNS = ("id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch")
_HEADER = [name.lower() for name in _COLUMNS]

_ID = "[0-9]{1,18}"
# The first 13 digits are milliseconds; three more, from 10**15 on, make it microseconds.
_TIME = "([1-9][0-9]{0,12})(?:(?<=[0-9]{13})[0-9]{3})?"
_BOOLEAN = "(?:[Tt]rue|[Ff]alse)"

# One call of the pattern decodes and checks a whole chunk: three times as fast as a loop over split lines.
_find_rows = re.compile(
    rf"^({_ID}),({DECIMAL}),({DECIMAL}),[^,\n]*,{_TIME},(?:([Tt])rue|[Ff]alse),{_BOOLEAN}\r?$", re.MULTILINE
).findall

# What each column that is used must look like, and what to call it if it does not.
_FORMS = {
    0: (re.compile(_ID), "whole number of at most 18 digits"),
    1: (re.compile(DECIMAL), "plain decimal number"),
    2: (re.compile(DECIMAL), "plain decimal number"),
    4: (re.compile(_TIME), "time in milliseconds or microseconds"),
    5: (re.compile(_BOOLEAN), "True or False"),
    6: (re.compile(_BOOLEAN), "True or False"),
}


class BadLineError(ValueError):
    """A line that is no trade: its index in the text it stood in, from 0, and what is wrong, for a sentence."""

    def __init__(self, index: int, fault: str) -> None:
        super().__init__(fault)
        self.index = index


class OtherKindError(ValueError):
    """The file holds something else than spot trades; the text says what, as in "futures trades"."""


def decode_lines(text: str, symbol: str) -> list[Trade]:
    r"""The trades of `symbol` in `text`, lines that each end in "\n", in their order; blank ones are passed over.

    Times become milliseconds: what is 10**15 or more is in microseconds.

    Raises:
        BadLineError: for the first line that is no trade.
    """
    rows = _find_rows(text)
    if len(rows) != text.count("\n"):
        _find_fault(text)
    return [Trade(int(row), price, qty, int(time), maker != "", symbol) for row, price, qty, time, maker in rows]


def is_header(line: str) -> bool:
    """Whether a file's first line is the header of a spot archive, in any case, with or without underscores.

    Raises:
        OtherKindError: if the line, a header or a row, is that of another kind of archive.
    """
    fields = re.sub(r'[\s_"]', "", line).lower().split(",")
    if fields == _HEADER:
        return True
    if fields[0].isdigit():
        kind = _kind_of_row(fields)
    elif fields[0] == "id" and len(fields) == 6:
        kind = "futures trades"
    elif fields[0] in {"a", "aggtradeid", "aggregatetradeid"}:
        kind = "aggregated trades"
    elif fields[0] == "opentime":
        kind = "candlesticks"
    else:
        kind = None
    if kind:
        raise OtherKindError(kind)
    return False


def _kind_of_row(fields: list[str]) -> str | None:
    # Aggregated trades of spot have eight columns, of futures seven: their sixth is a time, where a trade has its side.
    if len(fields) == 8 or (len(fields) == 7 and fields[3].isdigit() and fields[5].isdigit()):
        return "aggregated trades"
    return {6: "futures trades", 12: "candlesticks"}.get(len(fields))


def _find_fault(text: str) -> None:
    for index, line in enumerate(text.split("\n")):
        if line.strip() and not _find_rows(line):
            raise BadLineError(index, _fault(line.rstrip("\r")))


def _fault(line: str) -> str:
    fields = line.split(",")
    if len(fields) != len(_COLUMNS):
        columns = f"{len(fields)} column{'s' if len(fields) > 1 else ''}"
        return f"has {columns} where a spot archive has {len(_COLUMNS)}: {line!r:.80}"
    for column, (form, what) in _FORMS.items():
        if not form.fullmatch(fields[column]):
            return f"has the {_COLUMNS[column]} {fields[column]!r:.40}, which is no {what}"
    return f"is no trade: {line!r:.80}"
