"""A client of Kubernetes' API: JSON over HTTPS, with a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import urllib3

_TIMEOUT = 30.0
_STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server refused a request; `code` is the HTTP status, the message says why in its own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Api:
    """Kubernetes' API, as one user who may do everything; threads may share it."""

    def __init__(self, url: str, ca: Path, token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._pool = urllib3.PoolManager(maxsize=4, ca_certs=str(ca))

    def get(self, path: str) -> dict[str, Any]:
        """Read an object, or a list of them."""
        return self._request("GET", path)

    def items(self, path: str) -> list[dict[str, Any]]:
        """Read the objects of a list."""
        found: list[dict[str, Any]] = self.get(path)["items"]
        return found

    def create(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """Make an object."""
        return self._request("POST", path, json.dumps(content).encode(), "application/json")

    def apply(self, path: str, manifest: str, *, dry: bool = False) -> dict[str, Any]:
        """Make an object out of a YAML document as it stands; a field that is unknown or double is refused.

        Args:
            path: the collection.
            manifest: one YAML document.
            dry: only have it checked and completed.
        """
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self._request("POST", path + query, manifest.encode(), "application/yaml")

    def patch_status(self, path: str, status: dict[str, Any]) -> None:
        """Merge into an object's status, its lists by their keys, as the kubelet does."""
        self._request("PATCH", f"{path}/status", json.dumps({"status": status}).encode(), _STRATEGIC)

    def delete(self, path: str, **options: object) -> None:
        """Delete an object; one that is already gone is fine."""
        try:
            self._request("DELETE", path, json.dumps(options).encode(), "application/json")
        except ApiError as error:
            if error.code != 404:
                raise

    def is_ready(self) -> bool:
        """Whether the server answers, and all of it has started."""
        try:
            url = f"{self.url}/readyz"
            return self._pool.request("GET", url, headers=self._headers, retries=False, timeout=2).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        answer = self._pool.request(
            method, f"{self.url}{path}", body=body, headers=headers, retries=False, timeout=_TIMEOUT
        )
        content = json.loads(answer.data)
        if answer.status >= 400:
            raise ApiError(answer.status, str(content.get("message", content)))
        found: dict[str, Any] = content
        return found
