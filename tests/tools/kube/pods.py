"""What a pod's specification makes of its one container: its variables, its files, its ports; pure.

Known is what the manifests of docker/k8s and the Job controller use; all else is rejected, and not passed over.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

Pod = Mapping[str, Any]
Secrets = Mapping[str, Mapping[str, bytes]]
"""The contents of secrets, by name and key."""

_LABEL = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class PodError(Exception):
    """The container cannot be made: what it needs is not there, or not known here; the message says what."""


def container_of(pod: Pod) -> Mapping[str, Any]:
    """Return the only container of a pod."""
    (container,) = pod["spec"]["containers"]
    if unknown := {"envFrom", "command", "args"} & set(container):
        raise PodError(f"not known here: {', '.join(unknown)}")
    found: Mapping[str, Any] = container
    return found


def decoded(secrets: Sequence[Mapping[str, Any]]) -> Secrets:
    """Decode secrets as the API gives them."""
    return {
        secret["metadata"]["name"]: {key: base64.b64decode(text) for key, text in secret.get("data", {}).items()}
        for secret in secrets
    }


def environment(pod: Pod) -> dict[str, str]:
    """Return the variables of a pod's container, among them the index that an Indexed Job passes on as a label."""
    variables: dict[str, str] = {}
    for entry in container_of(pod).get("env", ()):
        path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        if "valueFrom" not in entry and "$(" not in entry.get("value", ""):
            variables[entry["name"]] = entry.get("value", "")
        elif label := _LABEL.fullmatch(path):
            variables[entry["name"]] = str(pod["metadata"].get(label[1], {}).get(label[2], ""))
        else:
            raise PodError(f"the value of the variable {entry['name']} is not known here")
    return variables


def mounts(pod: Pod, secrets: Secrets) -> dict[str, dict[str, bytes]]:
    """Return the files by their names that are mounted into a pod's container, by the folder's path."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    return {
        mount["mountPath"].rstrip("/"): _files(volumes[mount["name"]], secrets)
        for mount in container_of(pod).get("volumeMounts", ())
    }


def _files(volume: Mapping[str, Any], secrets: Secrets) -> dict[str, bytes]:
    if "emptyDir" in volume:
        return {}
    try:
        source = volume["secret"]
        return {item["path"]: secrets[source["secretName"]][item["key"]] for item in source["items"]}
    except KeyError as error:
        raise PodError(f"volume {volume['name']}: {error} is missing, or its kind is not known here") from error


def moved(text: str, moves: Mapping[str, str]) -> str:
    """Return a value with the path that it is, or lies below, replaced by where it is now."""
    for path, place in moves.items():
        if text == path or text.startswith(f"{path}/"):
            return place + text[len(path) :]
    return text


def ports(pod: Pod) -> list[int]:
    """Return the ports that a pod's container says it listens at."""
    return [port["containerPort"] for port in container_of(pod).get("ports", ())]
