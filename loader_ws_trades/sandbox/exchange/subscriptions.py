"""The streams that one client is subscribed to, by its URL or by the commands it sends."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from loader_ws_trades.sandbox.exchange.frames import Form
from loader_ws_trades.sandbox.exchange.stream import Stream, Subscriber

TOO_MANY = 4
"""Code of the error that ends the connection."""
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")


class Subscriptions:
    """The streams of one client by name, unknown ones included."""

    def __init__(self, subscriber: Subscriber, streams: Mapping[str, Stream], most: int) -> None:
        """Allow at most `most` streams."""
        self._subscriber = subscriber
        self._streams = streams
        self._most = most
        self._names: dict[str, None] = {}

    def subscribe(self, names: list[str]) -> bool:
        """Add streams; return false if there would be too many."""
        if len(self._names.keys() | names) > self._most:
            return False
        for name in names:
            self._names[name] = None
            if name in self._streams:
                self._streams[name].add(self._subscriber)
        return True

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove streams."""
        for name in names:
            self._names.pop(name, None)
            if name in self._streams:
                self._streams[name].remove(self._subscriber)

    def silence(self, name: str) -> None:
        """Send nothing of a stream, although it remains subscribed."""
        if name in self._names and name in self._streams:
            self._streams[name].remove(self._subscriber)

    def restore(self, name: str) -> None:
        """Send a stream again that was silenced."""
        if name in self._names and name in self._streams:
            self._streams[name].add(self._subscriber)

    def names(self) -> list[str]:
        """Return the names of the streams."""
        return list(self._names)

    def clear(self) -> None:
        """Remove all streams."""
        self.unsubscribe(self.names())


def parse_target(target: str) -> tuple[list[str], Form] | None:
    """Return the streams that a request target names, and their form; none if it is not a stream's."""
    url = urlsplit(target)
    query = parse_qs(url.query)
    combined = url.path == "/stream"
    if not target.isascii() or not (combined or url.path == "/ws" or url.path.startswith("/ws/")):
        return None
    path = "/".join(query.get("streams", [])) if combined else unquote(url.path.removeprefix("/ws"))
    names = [name for name in path.split("/") if name]
    return names, Form(combined, "MICROSECOND" in query.get("timeUnit", []))


def answer_command(message: bytes, subscriptions: Subscriptions) -> dict[str, Any]:
    """Execute a client's command, and return the answer."""
    try:
        request = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {"code": 3, "msg": f"Invalid JSON: {error}"}
    problem = _problem(request)
    if problem is not None:
        return {"code": 2, "msg": f"Invalid request: {problem}"}
    result: list[str] | None = None
    if request["method"] == "SUBSCRIBE":
        if not subscriptions.subscribe(request["params"]):
            return {"error": {"code": TOO_MANY, "msg": "Too many subscriptions"}, "id": request.get("id")}
    elif request["method"] == "UNSUBSCRIBE":
        subscriptions.unsubscribe(request["params"])
    else:
        result = subscriptions.names()
    return {"result": result, "id": request.get("id")}


def _problem(request: object) -> str | None:
    """Return what is wrong with a command."""
    if not isinstance(request, dict) or "method" not in request:
        return "missing field `method`"
    method, params, request_id = request["method"], request.get("params"), request.get("id")
    if method not in METHODS:
        known = ", ".join(f"`{name}`" for name in METHODS)
        return f"unknown variant `{method}`, expected one of {known}"
    if request_id is not None and not (
        (isinstance(request_id, int) and not isinstance(request_id, bool))
        or (isinstance(request_id, str) and len(request_id) <= 36)
    ):
        return "request ID must be a number or a string of at most 36 characters"
    if method != METHODS[2] and not (isinstance(params, list) and all(isinstance(name, str) for name in params)):
        return "params must be a list of stream names"
    return None
