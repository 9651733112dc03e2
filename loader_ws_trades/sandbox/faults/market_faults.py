"""Faults of one market among many: listed, delisted, or silent on connections that are otherwise well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from loader_ws_trades.sandbox.faults.fault import Context, Fault
from loader_ws_trades.sandbox.market.market import Market, Status


@dataclass(frozen=True, kw_only=True)
class List(Fault):
    """A new market is listed: it issues `rate` trades a second from then on, the first with `first_id`."""

    symbol: str | None = "NEWUSDT"
    rate: int = 10
    first_id: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("rate")
        if self.first_id < 0:
            raise ValueError("first_id must not be below 0")

    def strike(self, context: Context) -> None:
        """List it; who has subscribed to its stream before gets nothing."""
        market = Market.generated(self.symbol or "", rate=self.rate, first_id=self.first_id)
        context.injector.state.list(market)


@dataclass(frozen=True, kw_only=True)
class Delist(Fault):
    """A market issues no more trades, and vanishes from REST, or remains with another `status`."""

    status: str | None = None
    """`BREAK`, for example; none: it vanishes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.status is not None and self.status not in get_args(Status):
            raise ValueError(f"status must be one of {', '.join(get_args(Status))}")

    def strike(self, context: Context) -> None:
        """End its trades."""
        market = context.injector.market(self)
        market.end()
        if self.status is None:
            context.injector.state.delist(market.symbol)
        else:
            market.status = cast("Status", self.status)


@dataclass(frozen=True, kw_only=True)
class Silent(Fault):
    """The open connections bring no more trades of one market; all else continues, and later connections are well."""

    lasting: float | None = None
    """Seconds; what was issued meanwhile is not sent. None: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting")

    def strike(self, context: Context) -> None:
        """Fall silent."""
        name = context.injector.market(self).stream
        for connection in context.connections:
            connection.subscriptions.silence(name)

        def end() -> None:
            for connection in context.connections:
                connection.subscriptions.restore(name)

        if self.lasting is not None:
            context.injector.later(self.lasting, end)
