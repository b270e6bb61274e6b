"""HTTP to the workers of Kafka Connect: what passes by itself is waited out, what does not becomes an error.

A worker answers 409 where it expects its group to rebalance (500 to what it would not forward), and 500 "Request timed
out" or "can be safely retried" where it could not get at what it needs in time, or "IO Error" where it could not
forward a request to the worker that leads the group; its first answers after a start may take more than five seconds.
All of these are repeated until a limit; every request of this package may be repeated, because each one says what shall
be true afterwards.

A 404 is repeated where the caller knows that the thing was made a moment ago, since a worker learns of new connectors
from a topic; and where the worker's HTTP server alone has answered, which has none of Connect's pages yet while the
worker starts. Then it has its pages, and for a moment it still reads its topics and knows no connector: so a 404 to a
question is believed of a worker alone that has said before that it is healthy. Until it has read them, its health is
503. Lists are believed at once; they are empty then.

Every worker of a group answers for all of it. One that nobody answers for, or that does not answer in time, is passed
over for the next one.

Source: Kafka's documentation, "Kafka Connect", section "REST API" (KIP-26, KIP-745, KIP-875, KIP-1017).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx

from streamlab.errors import ConnectError

__all__ = ["Rest", "answering", "path", "reason"]

_PASSING = (
    "timed out", "can be safely retried", "rebalanc", "failed to start up yet", "still be running",
    "io error trying to forward",
)  # fmt: skip
_PAUSE = 0.1
_LONGEST = 20.0
"""Seconds that one request may take; a first one just after a start takes more than five."""
_OTHERS = 8.0
"""The same, where there are other workers that can be asked instead."""
_HEALTH = 12.0
"""The same, for a worker's health: where it cannot tell within ten seconds, it says what it is at."""


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


def answering(urls: Sequence[str], limit: float) -> str:
    """The worker of a group that answers first, for a caller who cannot wait for one after the other.

    All are asked at once. Where none answers within `limit` seconds it is the first one: to ask that gives the error.
    """
    if len(urls) == 1:
        return urls[0]
    told: queue.Queue[str | None] = queue.Queue()

    def ask(url: str) -> None:
        try:
            # One that is starting answers that it has no page.
            told.put(url if httpx.get(url, timeout=limit).is_success else None)
        except httpx.HTTPError:
            told.put(None)

    for url in urls:
        # A daemon: a worker that says nothing must not keep the process from ending.
        threading.Thread(target=ask, args=(url,), name="streamlab-ask-worker", daemon=True).start()
    deadline = time.monotonic() + limit
    for _ in urls:
        try:
            if found := told.get(timeout=max(0.0, deadline - time.monotonic())):
                return found
        except queue.Empty:
            break
    return urls[0]


class Rest:
    """Requests to the workers of one group. Threads may share it.

    Parameters
    ----------
    url : str or sequence of str
        Base URL of a worker, or of several.
    limit : float
        Seconds for which a request is repeated.
    """

    def __init__(self, url: str | Sequence[str], *, limit: float = 30.0) -> None:
        self.urls = (url,) if isinstance(url, str) else tuple(url)
        self._limit = limit
        self._http = httpx.Client(timeout=_LONGEST if len(self.urls) == 1 else _OTHERS)
        # The worker that is asked: the one that answered last. Which one a thread sees is of no matter.
        self._turn = 0

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self, method: str, path: str, *, limit: float | None = None, young: bool = False, **options: Any
    ) -> httpx.Response:
        """The answer to a request, once the workers' passing refusals are over.

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
        healthy = ""
        while True:
            turn = self._turn
            url = self.urls[turn % len(self.urls)]
            try:
                answer = self._http.request(method, url + path, **options)
                passing = _passing(answer, young)
                if not passing and _is_unknown(answer) and healthy != url:
                    state = self._health(url, deadline)
                    if state == 200:
                        healthy = url
                        continue
                    passing = state == 503
                if not passing or time.monotonic() > deadline:
                    return answer
            except httpx.TransportError as error:
                self._turn = turn + 1
                if time.monotonic() > deadline:
                    raise ConnectError(
                        f"Kafka Connect at {', '.join(self.urls)} does not answer: {error}.",
                        "Run: streamlab up connect",
                    ) from error
            time.sleep(_PAUSE)

    def _health(self, url: str, deadline: float) -> int:
        """What a worker says of itself: 200 at once, or after ten seconds 503 (it starts) or 500; 0: nothing."""
        try:
            return self._http.get(
                url + "/health", timeout=max(0.1, min(_HEALTH, deadline - time.monotonic()))
            ).status_code
        except httpx.TransportError:
            return 0


def _is_unknown(answer: httpx.Response) -> bool:
    return answer.status_code == 404 and answer.request.method == "GET"


def _passing(answer: httpx.Response, young: bool) -> bool:
    if answer.status_code in {409, 503}:
        # 409 is also the answer to a name that is taken by POST; this package makes connectors with PUT.
        return True
    if answer.status_code == 404:
        # Connect itself says so in JSON.
        return young or not answer.headers.get("content-type", "").startswith("application/json")
    return answer.status_code == 500 and any(word in answer.text.lower() for word in _PASSING)
