"""What a run needs of the source it loads from and of the sink it loads into."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from loader_ws_trades.kafka import Startup
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.trade import Trade


class Source(Protocol):
    """Where frames come from, in threads of its own."""

    def start(
        self,
        take: Callable[[list[bytes]], bool],
        in_order: Callable[[], bool],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """Begin; `take` gets the frames and blocks while the sink is full, `in_order` says whether none is missing."""

    def tick(self) -> None:
        """Do what the time has come for; called by the main thread now and again."""

    def rotate(self, why: str) -> None:
        """Replace what is read from, without a gap."""

    def close(self) -> None:
        """Stop reading, without waiting."""

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end; whether it has come."""

    def trouble(self) -> str | None:
        """Why nothing can come at present, if so."""


class Sink(Protocol):
    """Where trades go; `put` is called in the source's threads, all else in the main one."""

    @property
    def delivered(self) -> int:
        """Trades that are where they belong."""

    @property
    def in_flight(self) -> int:
        """Trades taken and not delivered yet."""

    def open(self, startup: Startup) -> None:
        """Wait until it can be written to."""

    def put(self, trades: Iterable[Trade]) -> int:
        """Take trades in order, without blocking; how many were taken."""

    def poll(self, timeout: float) -> None:
        """Note what was delivered; raises when the run cannot go on."""

    def drain(self) -> None:
        """Wait for no more company for what was taken: little or nothing comes behind it."""

    def give_up(self, deadline: Deadline) -> list[int]:
        """Let go of what is not delivered; its ids."""
