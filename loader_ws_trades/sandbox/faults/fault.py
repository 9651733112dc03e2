"""What every fault of the simulated exchange has: a moment at which it strikes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, NamedTuple, Protocol

from loader_ws_trades.sandbox.exchange.asked import Asked
from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.venue import Venue
from loader_ws_trades.sandbox.faults.tampering import Tampering
from loader_ws_trades.sandbox.market.market import Market


class Injector(Protocol):
    """What a fault may do at the exchange."""

    @property
    def market(self) -> Market:
        """The market whose trades are meant."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a time."""

    def tamper(self, tampering: Tampering) -> None:
        """Change the trade frames on their way to clients."""

    def activate(self, fault: Fault, *, seconds: float | None, times: int | None) -> None:
        """Keep a fault active for a time and for a number of times; none: without end."""

    def strike(self, fault: Fault) -> None:
        """Let a fault strike now."""


class Occasion(NamedTuple):
    """What a fault finds when it strikes."""

    faults: Injector
    connections: list[Client]
    """Those that it concerns."""
    position: int
    """Position of the market's next trade."""


@dataclass(frozen=True, kw_only=True)
class Fault(ABC):
    """Something that goes wrong once: when it does, and what it is; a value, without a state.

    At most one of `at`, `at_id` and `after` is said; none of them: at once. Trades are those of the exchange's first
    market.
    """

    at: float | None = None
    """Seconds after the exchange first started."""
    at_id: int | None = None
    """Before the trade of that id goes out, or the first one after it that does."""
    after: int | None = None
    """When that many trades have been issued since the exchange first started."""
    connection: int | None = None
    """Only on the connection of that number, counted from 1; `at` and `after` then count from its opening."""
    each: bool = False
    """Also on each connection that opens after that one, as with a pool of servers that drains."""
    until: float | None = None
    """With `each`: seconds after the exchange first started from which new connections are spared."""

    ahead: ClassVar[bool] = False
    """Whether it is settled beforehand which trade it begins with, whoever listens then."""
    awaits_connection: ClassVar[bool] = True
    """Whether it strikes the connection of a number when that is open, and not on its way there."""

    def __post_init__(self) -> None:
        moments = [value for value in (self.at, self.at_id, self.after) if value is not None]
        if len(moments) > 1:
            raise ValueError("at, at_id and after exclude each other")
        if self.at_id is not None and self.connection is not None:
            raise ValueError("at_id and connection exclude each other")
        if moments and moments[0] < 0:
            raise ValueError("at, at_id and after must not be below 0")
        if (self.each and self.connection is None) or (self.until is not None and not self.each):
            raise ValueError("each needs a connection to begin with, until needs each")
        self.require_positive("connection", "until")

    @classmethod
    def kind(cls) -> str:
        """Return the name of this kind of fault, as in `server-shutdown`."""
        return re.sub("(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def require_positive(self, *names: str) -> None:
        """Raise `ValueError` for fields that are given and not above 0."""
        for name in names:
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be above 0")

    @abstractmethod
    def strike(self, occasion: Occasion) -> None:
        """Do it, in the exchange's event loop."""


@dataclass(frozen=True, kw_only=True)
class Passing(Fault):
    """A fault that stays for `lasting` seconds, or for the next `times`; neither: for the next one."""

    lasting: float | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting", "times")

    def strike(self, occasion: Occasion) -> None:
        """Stay, to be met by whom it concerns."""
        next_one = 1 if self.lasting is None else None
        occasion.faults.activate(self, seconds=self.lasting, times=self.times or next_one)


@dataclass(frozen=True, kw_only=True)
class OnHandshake(Passing):
    """What becomes of the next WebSocket handshakes; `connection`: of those that would be the one of that number."""

    awaits_connection: ClassVar[bool] = False

    @abstractmethod
    def receive(self, connection: Client) -> None:
        """Answer the handshake, or do not."""


@dataclass(frozen=True, kw_only=True)
class OnOpening(Passing):
    """What becomes of the next WebSocket connections as they open."""

    awaits_connection: ClassVar[bool] = False

    @abstractmethod
    def greet(self, connection: Client, venue: Venue) -> None:
        """Do something before the first trade goes out."""


@dataclass(frozen=True, kw_only=True)
class OnAnswer(Passing):
    """What becomes of the next REST answers."""

    path: str | None = None
    """Only for paths that end so, as in `historicalTrades`."""
    every: int | None = None
    """Only for every so many-th of these requests, beginning with the one of that number; none: for each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("every")

    @abstractmethod
    def give(self, asked: Asked) -> None:
        """Answer the request otherwise, or do not."""


def check_status(status: int) -> None:
    """Raise `ValueError` for what is no HTTP status of a refusal."""
    if status < HTTPStatus.MULTIPLE_CHOICES or status not in set(HTTPStatus):
        raise ValueError("status must be an HTTP status from 300 on")


def check_header(name: str, value: object) -> None:
    """Raise `ValueError` for what no line of HTTP can say, whatever it may mean."""
    if not re.fullmatch(r"[\x20-\x7e\xa0-\xff]*", str(value)):
        raise ValueError(f"{name} must be one line of Latin-1")
