"""The command `schema`: what the messages look like, for programs."""

from __future__ import annotations

from importlib import resources

import click
import msgspec

from loader_ws_trades.cli.group import Command, examples, say

_DOCUMENT = resources.files("loader_ws_trades") / "asyncapi.json"
MESSAGES = ("record", "event", "command")


class _Components(msgspec.Struct):
    schemas: dict[str, msgspec.Raw]


class _Document(msgspec.Struct):
    components: _Components


@click.command(
    cls=Command,
    epilog=examples(
        "loader-ws-trades schema > asyncapi.json",
        "loader-ws-trades schema record | jq .properties.price",
    ),
)
@click.argument("message", type=click.Choice(MESSAGES), required=False, metavar="[record|event|command]")
def schema(message: str | None) -> None:
    """Print the message schemas as AsyncAPI, or [record|event|command] as JSON Schema."""
    text = _DOCUMENT.read_bytes()
    if message:
        # As it stands there: to read a number and to write it again may change its digits.
        text = msgspec.json.format(bytes(msgspec.json.decode(text, type=_Document).components.schemas[message]))
    say(text.decode().rstrip())
