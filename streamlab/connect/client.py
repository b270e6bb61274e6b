"""Kafka Connect's REST interface: create or update a connector, wait until it works, delete it.

A worker answers 409 while its group rebalances and 404 for a moment after a connector was made; both are waited out.
A connector is ready when it and at least one task of it are RUNNING; a failed task raises with the
first lines of its trace.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from streamlab import settings
from streamlab.errors import StreamlabError

__all__ = ["ConnectClient"]


class ConnectClient:
    """One worker group. Threads may share it.

    Parameters
    ----------
    url : str, optional
        Base URL of a worker; by default the one that `streamlab.settings` knows.
    """

    def __init__(self, url: str | None = None) -> None:
        self._http = httpx.Client(base_url=url or settings.connect_url(), timeout=30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _request(self, method: str, path: str, *, limit: float = 30.0, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + limit
        while True:
            try:
                answer = self._http.request(method, path, **options)
                if answer.status_code != 409 or time.monotonic() > deadline:
                    return answer
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise StreamlabError(
                        f"Kafka Connect does not answer: {error}.", "Run: streamlab up connect"
                    ) from error
            time.sleep(0.1)

    def apply(self, name: str, configuration: Mapping[str, str]) -> None:
        """Create a connector, or change it to this configuration. Idempotent.

        Raises
        ------
        StreamlabError
            The worker refuses the configuration; its reasons are in the message.
        """
        answer = self._request("PUT", f"/connectors/{name}/config", json=dict(configuration))
        if not answer.is_success:
            raise StreamlabError(f"Kafka Connect refuses {name}: {_reason(answer)}", "Correct the configuration.")

    def wait_ready(self, name: str, *, limit: float = 60.0) -> None:
        """Wait until the connector and a task of it are RUNNING.

        Raises
        ------
        StreamlabError
            A task failed (with the beginning of its trace), or `limit` seconds passed.
        """
        deadline = time.monotonic() + limit
        while True:
            answer = self._request("GET", f"/connectors/{name}/status")
            state = answer.json() if answer.is_success else {}
            parts = [state["connector"], *state["tasks"]] if state else []
            for part in parts:
                if part["state"] == "FAILED":
                    trace = "\n".join(part.get("trace", "").splitlines()[:4])
                    raise StreamlabError(f"Connector {name} failed: {trace}", "See: streamlab logs connect")
            if len(parts) > 1 and all(part["state"] == "RUNNING" for part in parts):
                return
            if time.monotonic() > deadline:
                told = ", ".join(part["state"] for part in parts) or f"HTTP {answer.status_code}"
                raise StreamlabError(
                    f"Connector {name} is not ready after {limit:.0f} s: {told}.", "See: streamlab logs connect"
                )
            time.sleep(0.05)


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("message", answer.text))[:600]
    except ValueError:
        return answer.text[:600]
