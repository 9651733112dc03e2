"""What a pod's specification makes of its one container: its variables, its command, its files, its ports; pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]
Sources = Mapping[tuple[str, str], Mapping[str, bytes]]
"""Contents of config maps and secrets, by kind (`ConfigMap`, `Secret`) and name."""

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class PodError(Exception):
    """The container cannot be made: what it needs is not there, or not known here; the message says what."""


def container_of(pod: Pod) -> Mapping[str, Any]:
    """Return the only container of a pod."""
    (container,) = pod["spec"]["containers"]
    found: Mapping[str, Any] = container
    return found


def sources(config_maps: Sequence[Mapping[str, Any]], secrets: Sequence[Mapping[str, Any]]) -> Sources:
    """Decode config maps and secrets as the API gives them."""
    found: dict[tuple[str, str], Mapping[str, bytes]] = {}
    for config_map in config_maps:
        data = config_map.get("data") or {}
        found["ConfigMap", config_map["metadata"]["name"]] = {key: text.encode() for key, text in data.items()}
    for secret in secrets:
        data = secret.get("data") or {}
        found["Secret", secret["metadata"]["name"]] = {key: base64.b64decode(text) for key, text in data.items()}
    return found


def environment(pod: Pod, given: Sources) -> dict[str, str]:
    """Return the variables of a pod's container, as the kubelet makes them.

    Those of `envFrom` come first, then those of `env` in their order; a ``$(NAME)`` in a value stands for a variable
    that was set before it.
    """
    variables: dict[str, str] = {}
    for entry in container_of(pod).get("envFrom", ()):
        for kind, reference in (("ConfigMap", entry.get("configMapRef")), ("Secret", entry.get("secretRef"))):
            if reference:
                content = _source(given, kind, reference)
                variables |= {entry.get("prefix", "") + key: value.decode() for key, value in content.items()}
    for entry in container_of(pod).get("env", ()):
        value = expanded(entry.get("value", ""), variables)
        if "valueFrom" in entry:
            found = _value_from(pod, entry["valueFrom"], given)
            if found is None:
                continue
            value = found
        variables[entry["name"]] = value
    return variables


def command(pod: Pod, variables: Mapping[str, str], entrypoint: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the command of a pod's container, whose image has this entrypoint and these arguments.

    A command of the pod's own replaces both, arguments of its own replace the image's.
    """
    container = container_of(pod)
    own = [expanded(text, variables) for text in container.get("command", ())]
    given = [expanded(text, variables) for text in container.get("args", ())]
    return [*own, *given] if own else [*entrypoint, *(given or arguments)]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in for ``$(NAME)``; one that is not known stays, and ``$$`` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else variables.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


@dataclass(frozen=True)
class Mount:
    """A folder in a container's file system, and the files in it by their names."""

    path: str
    files: Mapping[str, bytes]


def mounts(pod: Pod, given: Sources) -> list[Mount]:
    """Return what is mounted into a pod's container out of secrets and config maps, and the empty folders."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    return [
        Mount(mount["mountPath"].rstrip("/"), _files(volumes[mount["name"]], given))
        for mount in container_of(pod).get("volumeMounts", ())
    ]


def moved(text: str, moves: Mapping[str, str]) -> str:
    """Return a value with the path that it is, or lies below, replaced by where it is now."""
    for path, place in moves.items():
        if text == path or text.startswith(f"{path}/"):
            return place + text[len(path) :]
    return text


def ports(pod: Pod) -> list[int]:
    """Return the ports that a pod's container says it listens at."""
    return [port["containerPort"] for port in container_of(pod).get("ports", ())]


def _files(volume: Mapping[str, Any], given: Sources) -> dict[str, bytes]:
    if "emptyDir" in volume:
        return {}
    for kind, field, named in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
        if field in volume:
            source = volume[field]
            content = _source(given, kind, {"name": source[named], "optional": source.get("optional", False)})
            if "items" not in source:
                return dict(content)
            return {item["path"]: _key(content, kind, source[named], item["key"]) for item in source["items"]}
    raise PodError(f"volume {volume['name']}: its kind is not known here")


def _value_from(pod: Pod, source: Mapping[str, Any], given: Sources) -> str | None:
    kinds: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
        "fieldRef": lambda reference: _field(pod, reference["fieldPath"]),
        "configMapKeyRef": lambda reference: _referred(given, "ConfigMap", reference),
        "secretKeyRef": lambda reference: _referred(given, "Secret", reference),
    }
    for kind, read in kinds.items():
        if kind in source:
            return read(source[kind])
    raise PodError(f"a variable's valueFrom is not known here: {', '.join(source)}")


def _referred(given: Sources, kind: str, reference: Mapping[str, Any]) -> str | None:
    content = _source(given, kind, reference)
    if reference["key"] not in content and reference.get("optional"):
        return None
    return _key(content, kind, reference["name"], reference["key"]).decode()


def _source(given: Sources, kind: str, reference: Mapping[str, Any]) -> Mapping[str, bytes]:
    content = given.get((kind, reference["name"]))
    if content is None and not reference.get("optional"):
        raise PodError(f"there is no {kind} {reference['name']}")
    return content or {}


def _key(content: Mapping[str, bytes], kind: str, name: str, key: str) -> bytes:
    if key not in content:
        raise PodError(f"{kind} {name} has no key {key}")
    return content[key]


def _field(pod: Pod, path: str) -> str:
    if match := _KEYED.fullmatch(path):
        return str(pod["metadata"].get(match[1], {}).get(match[2], ""))
    known = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName")
    if path not in known:
        raise PodError(f"the field {path} is not known here")
    part, _, name = path.partition(".")
    return str(pod[part].get(name, ""))
