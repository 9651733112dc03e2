"""Which streams a target names, and those that one client has subscribed to."""

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs, unquote, urlsplit

from loader_ws_trades.sandbox.exchange.frames import Form
from loader_ws_trades.sandbox.exchange.stream import Stream, Subscriber


class Subscriptions:
    """The streams of one client, by name; it may name unknown ones too."""

    def __init__(self, subscriber: Subscriber, streams: Mapping[str, Stream], most: int) -> None:
        """Allow at most that many of them."""
        self._subscriber = subscriber
        self._streams = streams
        self._most = most
        self._names: dict[str, None] = {}

    def subscribe(self, names: list[str]) -> bool:
        """Add streams; false if they are too many."""
        if len(self._names.keys() | names) > self._most:
            return False
        for name in names:
            self._names[name] = None
            if name in self._streams:
                self._streams[name].add(self._subscriber)
        return True

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Take streams away."""
        for name in names:
            self._names.pop(name, None)
            if name in self._streams:
                self._streams[name].remove(self._subscriber)

    def names(self) -> list[str]:
        """Return the names of the streams."""
        return list(self._names)

    def clear(self) -> None:
        """Take all streams away."""
        self.unsubscribe(self.names())


def wanted(target: str) -> tuple[list[str], Form] | None:
    """Return the streams that a target names, and their form; none for a target that is no stream's."""
    url = urlsplit(target)
    query = parse_qs(url.query)
    combined = url.path == "/stream"
    if not target.isascii() or not (combined or url.path == "/ws" or url.path.startswith("/ws/")):
        return None
    path = "/".join(query.get("streams", [])) if combined else unquote(url.path.removeprefix("/ws"))
    names = [name for name in path.split("/") if name]
    return names, Form(combined, "MICROSECOND" in query.get("timeUnit", []))
