"""What clients may ask over the WebSocket: to subscribe, to unsubscribe, to list their subscriptions."""

from typing import Any, Protocol

import msgspec

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")


class Subscriptions(Protocol):
    """The streams of one client."""

    def subscribe(self, names: list[str]) -> bool:
        """Add streams; false if they are too many."""

    def unsubscribe(self, names: list[str]) -> None:
        """Take streams away."""

    def names(self) -> list[str]:
        """Return the names of the streams, unknown ones too."""


def obey(message: bytes, subscriptions: Subscriptions) -> bytes:
    """Do what a client's message says, and return the answer to it."""
    return msgspec.json.encode(_answer(message, subscriptions))


def _answer(message: bytes, subscriptions: Subscriptions) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {"code": 3, "msg": f"Invalid JSON: {error}"}
    fault = _fault(request)
    if fault is not None:
        return {"code": 2, "msg": f"Invalid request: {fault}"}
    result: list[str] | None = None
    if request["method"] == "SUBSCRIBE":
        if not subscriptions.subscribe(request["params"]):
            return {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": request.get("id")}
    elif request["method"] == "UNSUBSCRIBE":
        subscriptions.unsubscribe(request["params"])
    else:
        result = subscriptions.names()
    return {"result": result, "id": request.get("id")}


def _fault(request: object) -> str | None:
    """Say what is wrong with a request."""
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
