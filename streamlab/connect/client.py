"""Kafka Connect's REST interface: connectors made, changed, watched, moved and deleted by name.

Every method says what shall be true afterwards, may be repeated, and returns when the worker tells that it is so. What
a worker refuses for a moment is waited out (`streamlab.connect.rest`). After a change, a worker goes on telling the
failure of before, until the new task has said something: a caller need not know.

A configuration is linted before the worker sees it: the worker takes every key, also one that nothing reads.

Source: Kafka's documentation, "Kafka Connect", section "REST API".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from streamlab.connect.answers import ConnectorOffset, ConnectorStatus, Part
from streamlab.connect.lint import Level, lint
from streamlab.connect.reader import ConnectReader, logs, missing
from streamlab.connect.rest import path, reason
from streamlab.errors import ConnectError, ConnectorFailed, ConnectorMissing, ConnectorRefused

__all__ = ["ConnectClient"]

log = logging.getLogger(__name__)

_STALE = 5.0
"""Seconds after a change for which a failure of before may still be told; then it is believed to be a new one."""
_POLL = 0.05


class ConnectClient(ConnectReader):
    """One group of workers, asked and told. Threads may share it.

    Parameters
    ----------
    url : str or sequence of str, optional
        Base URL of a worker, or of several of one group, each of which answers for all; by default those that
        `streamlab.settings` knows.
    limit : float
        Seconds for which a request is repeated that a worker refuses for the moment, or that nobody answers.
    """

    def __init__(self, url: str | Sequence[str] | None = None, *, limit: float = 30.0) -> None:
        super().__init__(url, limit=limit)
        # Failures of before, by connector: they are told until the restarted part has said something.
        self._before: dict[str, tuple[float, set[Part]]] = {}

    # -- connectors ----------------------------------------------------------------------------------

    def apply(self, name: str, configuration: Mapping[str, str], *, check: bool = True) -> None:
        """Create a connector, or change it to this configuration. Idempotent; a part that had failed starts again.

        Parameters
        ----------
        name : str
            Name of the connector.
        configuration : mapping of str to str
            Connect's configuration, without the name.
        check : bool
            Lint it first; False leaves everything to the worker, which ignores what it does not know.

        Raises
        ------
        ConnectorRefused
            The lint found an error, or the worker refuses the configuration; the reasons are in the message.
        """
        wanted = dict(configuration)
        if check:
            wrong = [each for each in lint(wanted, self.catalog()) if each.level is Level.ERROR]
            if wrong:
                raise ConnectorRefused(
                    f"The lint refuses {name}: " + " ".join(each.problem for each in wrong),
                    " ".join(dict.fromkeys(each.fix for each in wrong if each.fix)),
                )
        failed = self._forgive(name)
        answer = self._rest.request("PUT", path("connectors", name, "config"), json=wanted)
        if not answer.is_success:
            raise ConnectorRefused(f"Kafka Connect refuses {name}: {reason(answer)}", "Correct the configuration.")
        with self._lock:
            self._applied[name] = time.monotonic()
        if failed:
            # A task whose own configuration has not changed is left as it is, also where it has failed.
            self._restart(name)

    def wait_ready(self, name: str, *, limit: float = 60.0) -> ConnectorStatus:
        """Wait until the connector and all tasks are RUNNING, one task at least.

        After a change to a connector that works, its worker may tell the RUNNING of before for a moment.

        Raises
        ------
        ConnectorFailed
            The connector or a task failed; the beginning of its trace is in the message.
        ConnectorMissing
            There is no such connector, after `limit` seconds.
        ConnectError
            It is not ready after `limit` seconds.
        """
        return self._wait(name, lambda status: status.ready, "ready", limit)

    def pause(self, name: str, *, limit: float = 30.0) -> None:
        """Let the tasks process nothing, with everything kept open; wait until they are PAUSED."""
        self._command("PUT", name, "pause")
        self._wait(name, lambda status: all(part.state == "PAUSED" for part in status.parts), "paused", limit)

    def resume(self, name: str, *, limit: float = 60.0) -> None:
        """Go on after `pause` or `stop`; wait until it is ready.

        Raises
        ------
        ConnectorFailed
            It cannot go on; the beginning of the trace is in the message.
        """
        self._forgive(name)
        self._command("PUT", name, "resume")
        self.wait_ready(name, limit=limit)

    def stop(self, name: str, *, limit: float = 30.0) -> None:
        """End the tasks and keep configuration and offsets; wait until that is so. Offsets can be changed then."""
        self._forgive(name)
        self._command("PUT", name, "stop")
        self._wait(name, lambda s: s.connector.state == "STOPPED" and not s.tasks, "stopped", limit)

    def restart(self, name: str, *, only_failed: bool = True, limit: float = 60.0) -> None:
        """Start failed parts again, or all of them; wait until the connector is ready.

        Raises
        ------
        ConnectorFailed
            A part failed again.
        """
        if only_failed:
            self._forgive(name)
            self._restart(name)
            self.wait_ready(name, limit=limit)
        else:
            # The worker's own restart of everything goes on telling RUNNING until it begins.
            self.stop(name, limit=limit)
            self.resume(name, limit=limit)

    def delete(self, name: str, *, forget: bool = False) -> bool:
        """Delete a connector; whether there was one.

        Parameters
        ----------
        name : str
            Name of the connector.
        forget : bool
            Forget its offsets too. Otherwise a later connector of this name goes on where this one ended. A slot or a
            schema history topic that belongs to it is not touched in either case.
        """
        if forget:
            try:
                self.stop(name)
                self.reset_offsets(name)
            except ConnectorMissing:
                return False
            except ConnectError as error:
                # A connector that cannot even be loaded has no offsets to be reset; it can be deleted.
                log.warning("The offsets of %s are not forgotten: %s", name, error.problem)
        answer = self._rest.request("DELETE", path("connectors", name), young=self._is_young(name))
        with self._lock:
            self._applied.pop(name, None)
            self._before.pop(name, None)
        if answer.status_code == 404:
            return False
        if not answer.is_success:
            raise ConnectError(f"Kafka Connect does not delete {name}: {reason(answer)}", logs())
        return True

    # -- offsets -------------------------------------------------------------------------------------

    def alter_offsets(self, name: str, offsets: Iterable[ConnectorOffset]) -> None:
        """Set where a stopped connector goes on; parts that are not named stay as they are.

        Raises
        ------
        ConnectError
            It is not stopped, or its plugin refuses the offsets.
        """
        body = {"offsets": [{"partition": dict(o.partition), "offset": o.offset and dict(o.offset)} for o in offsets]}
        self._ask("PATCH", path("connectors", name, "offsets"), name, json=body)

    def reset_offsets(self, name: str) -> None:
        """Forget where a stopped connector has come to: it begins anew.

        What else it keeps is the caller's to drop: the replication slot of a PostgreSQL source, the schema history
        topic of a MySQL source.

        Raises
        ------
        ConnectError
            It is not stopped, or its plugin refuses.
        """
        self._ask("DELETE", path("connectors", name, "offsets"), name)

    # -- how -----------------------------------------------------------------------------------------

    def _command(self, method: str, name: str, *words: str, **options: Any) -> None:
        self._ask(method, path("connectors", name, *words), name, **options)

    def _restart(self, name: str) -> None:
        self._command("POST", name, "restart", params={"includeTasks": "true", "onlyFailed": "true"})

    def _forgive(self, name: str) -> bool:
        """Note what has failed until now: while it is told unchanged, it is no news. Whether there is something."""
        answer = self._rest.request("GET", path("connectors", name, "status"))
        failed = set(ConnectorStatus.of(answer.json()).failed) if answer.is_success else set()
        with self._lock:
            self._before[name] = (time.monotonic(), failed)
        return bool(failed)

    def _news(self, status: ConnectorStatus) -> list[Part]:
        """What has failed since the last change; a failure that is told for long is believed."""
        with self._lock:
            since, before = self._before.get(status.name, (0.0, set()))
            # A part that has been in another state since: if it fails in the same way again, that is news.
            before &= set(status.failed)
            return [part for part in status.failed if part not in before or time.monotonic() - since > _STALE]

    def _wait(self, name: str, done: Callable[[ConnectorStatus], bool], what: str, limit: float) -> ConnectorStatus:
        deadline = time.monotonic() + limit
        while True:
            answer = self._rest.request("GET", path("connectors", name, "status"))
            status = ConnectorStatus.of(answer.json()) if answer.is_success else None
            if status and done(status):
                return status
            if status and what != "stopped" and (news := self._news(status)):
                where = "" if news[0].task is None else f", task {news[0].task}"
                raise ConnectorFailed(f"Connector {name}{where} failed: {news[0].error}", logs(news[0].worker))
            if time.monotonic() > deadline:
                if status is None:
                    raise missing(name)
                told = ", ".join(part.state for part in status.parts)
                raise ConnectError(
                    f"Connector {name} is not {what} after {limit:.0f} s: {told}.", logs(status.connector.worker)
                )
            time.sleep(_POLL)
