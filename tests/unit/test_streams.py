"""Standard error: what is dropped first when nobody reads, and that writing never blocks or fails."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest

from loader_ws_trades.streams import HIGH, LOW, NORMAL, LineQueue, StandardError
from tests.tools.waiting import wait_for
from tests.unit.clock import FakeClock

ROOM = 30  # bytes: three lines of ten


def line(text: str) -> bytes:
    return f"{text:9}\n".encode()


def put(queue: LineQueue, *lines: tuple[str, int]) -> None:
    for text, rank in lines:
        queue.put(line(text), rank)


def taken(queue: LineQueue) -> list[str]:
    return [queue.take().decode().strip() for _ in range(len(queue))]


@pytest.mark.parametrize(
    ("waiting", "comes", "left"),
    [
        ("low low ids", ("new", LOW), "low ids new"),
        ("warning low ids", ("new", LOW), "warning ids new"),
        ("warning low ids", ("new", NORMAL), "warning ids new"),
        ("warning warning ids", ("new", LOW), "warning warning ids"),  # it is dropped itself
        ("warning warning ids", ("new", NORMAL), "warning ids new"),
        ("ids warning ids", ("new", HIGH), "ids ids new"),
        ("ids ids ids", ("new", NORMAL), "ids ids ids"),
        ("ids ids ids", ("new", HIGH), "ids ids new"),
    ],
)
def test_a_full_queue_drops_the_oldest_line_of_the_lowest_rank(waiting: str, comes: tuple[str, int], left: str) -> None:
    ranks = {"low": LOW, "warning": NORMAL, "ids": HIGH}
    queue = LineQueue(ROOM)
    put(queue, *((text, ranks[text]) for text in waiting.split()), comes)
    assert (taken(queue), queue.dropped) == (left.split(), 1)


def test_a_line_that_never_fits_drops_no_more_than_it_outranks() -> None:
    queue = LineQueue(ROOM)
    put(queue, ("ids", HIGH), ("info", LOW))
    queue.put(b"x" * (ROOM + 1), NORMAL)
    assert (taken(queue), queue.dropped) == (["ids"], 2)


class Reader:
    """What stands behind standard error: reads while `gate` is open, and fails with `error` if there is one."""

    def __init__(self) -> None:
        self.read = b""
        self.gate = threading.Event()
        self.gate.set()
        self.waited_for = threading.Event()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.waited_for.set()
        assert self.gate.wait(10)
        if self.error:
            raise self.error
        self.read += data[:7]  # never all at once
        return len(data[:7])


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def errors(reader: Reader) -> Iterator[StandardError]:
    made = StandardError(LineQueue(ROOM), "utf-8", reader.write)
    yield made
    reader.gate.set()
    made.finish(10)


def test_printed_text_and_queued_lines_are_written_in_order(reader: Reader, errors: StandardError) -> None:
    print("printed", file=errors)
    errors.put_text("put\n", HIGH)
    errors.finish(10)
    assert reader.read == b"printed\nput\n"


def test_characters_missing_in_the_encoding_are_escaped(reader: Reader) -> None:
    errors = StandardError(LineQueue(), "ascii", reader.write)
    print("\u20ac", file=errors)
    errors.put_text("\u20ac\ud800\n", HIGH)
    errors.finish(10)
    assert reader.read == rb"\u20ac" b"\n" rb"\u20ac\ud800" b"\n"


def test_writing_does_not_wait_for_the_reader(reader: Reader, errors: StandardError) -> None:
    reader.gate.clear()
    errors.put(line("stuck"), LOW)
    assert reader.waited_for.wait(10)
    for number in range(100):
        errors.put(line(f"info {number}"), LOW)
    errors.put(line("ids"), HIGH)
    errors.put(line("warning"), NORMAL)
    assert errors.dropped == 99
    reader.gate.set()
    errors.finish(10)
    assert reader.read.splitlines() == [
        b"stuck    ",
        b"99 lines of the log were dropped",
        b"info 99  ",
        b"ids      ",
        b"warning  ",
    ]


def test_dropped_lines_are_counted_and_reported_once_writing_works_again(reader: Reader, errors: StandardError) -> None:
    reader.error = OSError(errno.ENOSPC, "No space left on device")
    for text in ("one", "two"):
        errors.put(line(text), HIGH)
        wait_for(lambda: not errors.waiting, "an attempt")
    assert errors.dropped == 2
    reader.error = None
    errors.put(line("three"), HIGH)
    errors.put(line("four"), HIGH)
    errors.finish(10)
    assert reader.read.splitlines() == [b"2 lines of the log were dropped", b"three    ", b"four     "]


def test_finish_does_not_wait_for_a_line_that_is_stuck(reader: Reader, errors: StandardError, clock: FakeClock) -> None:
    reader.gate.clear()
    errors.put(line("stuck"), HIGH)
    assert reader.waited_for.wait(10)
    clock.advance(1.0)
    errors.finish(1.0)  # with a clock that stands still it would never end if it waited
    assert reader.read == b""


def test_lines_after_the_end_are_discarded(reader: Reader, errors: StandardError) -> None:
    errors.finish(10)
    print("late", file=errors, flush=True)
    assert (reader.read, errors.dropped) == (b"", 0)
