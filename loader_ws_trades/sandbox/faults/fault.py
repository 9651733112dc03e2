"""The base classes of faults, with the moment at which they strike."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, NamedTuple, Protocol

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.pending_answer import PendingAnswer
from loader_ws_trades.sandbox.exchange.state import ExchangeState
from loader_ws_trades.sandbox.faults.frame_filters import FrameFilter
from loader_ws_trades.sandbox.market.market import Market


class Injector(Protocol):
    """What a fault may use to take effect."""

    @property
    def state(self) -> ExchangeState:
        """The state of the exchange."""

    def market(self, fault: Fault) -> Market:
        """Return the market whose trades a fault affects; raises `ValueError` if there is none."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a time."""

    def add_filter(self, frame_filter: FrameFilter) -> None:
        """Put a filter between the stream and its subscribers."""

    def activate(self, fault: Fault, *, seconds: float | None, times: int | None) -> None:
        """Keep a fault active for a time and for a number of uses; none: no limit."""

    def strike(self, fault: Fault) -> None:
        """Make a fault strike now."""


class Context(NamedTuple):
    """The state of the exchange when a fault strikes."""

    injector: Injector
    connections: list[Client]
    """The connections that it affects."""
    position: int
    """Position of the next trade of the fault's market."""


@dataclass(frozen=True, kw_only=True)
class Fault(ABC):
    """What goes wrong, and when; a value without state.

    At most one of `at`, `at_id` and `after` is given; none: at once. Trades are those of one market.
    """

    at: float | None = None
    """Seconds after the exchange first started."""
    at_id: int | None = None
    """Before the trade of that id is sent, or the first later one."""
    after: int | None = None
    """After that many trades since the exchange first started."""
    symbol: str | None = None
    """The market; none: the exchange's first."""
    connection: int | None = None
    """Only on the connection of that number, from 1; `at` and `after` then count from its opening."""
    each: bool = False
    """Also on each later connection, as with a pool of servers that drains."""
    until: float | None = None
    """With `each`: seconds after the exchange first started, from which new connections are spared."""

    in_advance: ClassVar[bool] = False
    """Whether the trade it starts with is fixed in advance, even if nobody is connected then."""
    needs_connection: ClassVar[bool] = True
    """Whether, given a connection number, it strikes once that connection is open."""

    def __post_init__(self) -> None:
        moments = [value for value in (self.at, self.at_id, self.after) if value is not None]
        if len(moments) > 1:
            raise ValueError("only one of at, at_id and after may be given")
        if self.at_id is not None and self.connection is not None:
            raise ValueError("at_id and connection cannot be combined")
        if moments and moments[0] < 0:
            raise ValueError("at, at_id and after must not be below 0")
        if (self.each and self.connection is None) or (self.until is not None and not self.each):
            raise ValueError("each needs a connection to start with, until needs each")
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
    def strike(self, context: Context) -> None:
        """Take effect, in the exchange's event loop."""


@dataclass(frozen=True, kw_only=True)
class LastingFault(Fault):
    """A fault that is active for `lasting` seconds, or `times` times; neither: once."""

    lasting: float | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting", "times")

    def strike(self, context: Context) -> None:
        """Become active."""
        once = 1 if self.lasting is None else None
        context.injector.activate(self, seconds=self.lasting, times=self.times or once)


@dataclass(frozen=True, kw_only=True)
class OnHandshake(LastingFault):
    """A fault of the next WebSocket handshakes; `connection`: of what would be the connection of that number."""

    needs_connection: ClassVar[bool] = False

    @abstractmethod
    def respond(self, connection: Client) -> None:
        """Handle the handshake in place of the exchange."""


@dataclass(frozen=True, kw_only=True)
class OnOpening(LastingFault):
    """A fault of the next WebSocket connections as they open."""

    needs_connection: ClassVar[bool] = False

    @abstractmethod
    def on_open(self, connection: Client, state: ExchangeState) -> None:
        """Act before the first trade is sent."""


@dataclass(frozen=True, kw_only=True)
class OnAnswer(LastingFault):
    """A fault of the next REST answers."""

    path: str | None = None
    """Only paths with this ending, as in `historicalTrades`."""
    every: int | None = None
    """Only every n-th of these requests, starting with the n-th; none: each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("every")

    @abstractmethod
    def answer(self, pending: PendingAnswer) -> None:
        """Handle the request in place of the exchange."""


def check_status(status: int) -> None:
    """Raise `ValueError` for anything but an HTTP status of a redirect or an error."""
    if status < HTTPStatus.MULTIPLE_CHOICES or status not in set(HTTPStatus):
        raise ValueError("status must be an HTTP status from 300 on")


def check_header(name: str, value: object) -> None:
    """Raise `ValueError` for a value that does not fit into a header line."""
    if not re.fullmatch(r"[\x20-\x7e\xa0-\xff]*", str(value)):
        raise ValueError(f"{name} must be one line of Latin-1")
