"""HTTP to a Connect worker: what passes by itself is waited out, what does not becomes an error with a next step.

A worker answers 409 while its group rebalances, 503 while it starts, and 500 "Request timed out" or "can be safely
retried" where it could not get at what it needs in time; its first answers after a start may take more than five
seconds. All of these are repeated until a limit; every request of this package may be repeated, because each one says
what shall be true afterwards. A 404 is repeated only where the caller knows that the thing was made a moment ago:
a worker learns of new connectors from a topic.

Source: Kafka's documentation, "Kafka Connect", section "REST API" (KIP-26, KIP-745, KIP-875, KIP-1017).
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import httpx

from streamlab.errors import ConnectError

__all__ = ["Rest", "path", "reason"]

_PASSING = ("timed out", "can be safely retried", "rebalanc", "failed to start up yet", "still be running")
_PAUSE = 0.1
_LONGEST = 20.0
"""Seconds that one request may take; a first one just after a start takes more than five."""


def path(*parts: str) -> str:
    """A path of a URL: a name may hold spaces and signs. (A slash in one is refused by the worker itself.)"""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def reason(answer: httpx.Response) -> str:
    """What a worker says about an answer that is no success; at most 1200 characters."""
    try:
        told = answer.json()
    except ValueError:
        return answer.text[:1200]
    return str(told.get("message") or told)[:1200] if isinstance(told, dict) else str(told)[:1200]


class Rest:
    """Requests to one worker. Threads may share it.

    Parameters
    ----------
    url : str
        Base URL of the worker.
    limit : float
        Seconds for which a request is repeated.
    """

    def __init__(self, url: str, *, limit: float = 30.0) -> None:
        self.url = url
        self._limit = limit
        self._http = httpx.Client(base_url=url, timeout=_LONGEST)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self, method: str, path: str, *, limit: float | None = None, young: bool = False, **options: Any
    ) -> httpx.Response:
        """The answer to a request, once the worker's passing refusals are over.

        Parameters
        ----------
        method, path : str
            As HTTP names them.
        limit : float, optional
            Seconds after which the last answer is returned, whatever it is; by default the limit of all requests.
        young : bool
            Repeat a 404 too: the thing was made a moment ago.

        Raises
        ------
        ConnectError
            Nobody answers, for `limit` seconds.
        """
        deadline = time.monotonic() + (self._limit if limit is None else limit)
        while True:
            try:
                answer = self._http.request(method, path, **options)
                if not _passing(answer, young) or time.monotonic() > deadline:
                    return answer
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise ConnectError(
                        f"Kafka Connect at {self.url} does not answer: {error}.", "Run: streamlab up connect"
                    ) from error
            time.sleep(_PAUSE)


def _passing(answer: httpx.Response, young: bool) -> bool:
    if answer.status_code in {409, 503}:
        # 409 is also the answer to a name that is taken by POST; this package makes connectors with PUT.
        return True
    if answer.status_code == 404:
        return young
    return answer.status_code == 500 and any(word in answer.text.lower() for word in _PASSING)
