"""The stack: starts services side by side, knows what runs, stops what it started."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Literal

import psycopg

from streamlab import settings
from streamlab.errors import MissingTool, NotOurs, PortTaken, StackError, StreamlabError, UnusableState
from streamlab.stack import external
from streamlab.stack.cache import Cache
from streamlab.stack.home import Home
from streamlab.stack.process import Cancelled, ProcessRecord, end, stop, strays, wait_until
from streamlab.stack.service import Context, Service
from streamlab.stack.services import DEFAULT, SERVICES, known, waves, with_needs
from streamlab.stack.status import ServiceStatus, status
from streamlab.stack.threads import side_by_side

__all__ = ["Outcome", "Stack"]

_LOG = logging.getLogger("streamlab.stack")
_INTERRUPTED_LIMIT = 5.0
"""Seconds that a server which was just being started gets to end by itself."""

Listener = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `up` did for one service."""

    service: str
    state: Literal["started", "running", "foreign", "failed"]
    seconds: float
    version: str = ""
    error: StreamlabError | None = None


class _NeedFailed(StackError):
    """What a service needs could not be started."""


_NOT_MENDED = (Cancelled, MissingTool, PortTaken, UnusableState, _NeedFailed)
"""Failures that no download can mend."""


class Stack:
    """The servers of one home.

    An instance may be used by one thread at a time; processes are kept apart by the home's lock.

    Parameters
    ----------
    home : Home, optional
        By default the one that `streamlab.settings` names.
    """

    def __init__(self, home: Home | None = None) -> None:
        self.home = home or Home()
        self._cancel = threading.Event()
        self._writing = threading.Lock()

    # -- up ---------------------------------------------------------------------------------------

    def up(self, services: Iterable[str] | None = None, listener: Listener | None = None) -> list[Outcome]:
        """Start services that are not running, side by side, and wait until they serve.

        A server that the environment names is not started but looked at. One service's failure does not
        stop the others; its error is in its outcome. When interrupted, servers that this call started are
        stopped again.

        Parameters
        ----------
        services : iterable of str, optional
            Names; by default `DEFAULT`. What they need is started too.
        listener : callable, optional
            Called with a service's name and what is being done for it; from several threads.

        Raises
        ------
        StackError
            An unknown name, or a home that cannot be used.
        KeyboardInterrupt
            As it was; after the clean-up.
        """
        names = with_needs(list(DEFAULT if services is None else services))
        tell = listener or (lambda _service, _text: None)
        ours = [name for name in names if not settings.given(name)]
        outcomes = [_foreign(name) for name in names if settings.given(name)]
        if not ours:
            return outcomes
        unusable = {each.service for each in outcomes if each.error is not None}
        self._cancel.clear()
        with self.home.locked():
            self.home.keep_ports()
            context = self._context(tell)
            runs = {name: _Run(SERVICES[name](context)) for name in ours}
            # More threads than services would be idle; fewer could wait for each other.
            with ThreadPoolExecutor(len(ours), thread_name_prefix="streamlab-up") as pool:
                futures: dict[str, Future[Outcome]] = {}
                try:
                    for name, run in runs.items():
                        futures[name] = pool.submit(self._up_one, run, runs, unusable)
                    results = {name: future.result() for name, future in futures.items()}
                    if self._cancel.is_set():
                        raise Cancelled("Starting the servers was interrupted.", "Run the command again.")
                except BaseException:
                    with _undisturbed():
                        self._cancel.set()
                        # Each ends soon: whatever it waits for looks at the event.
                        wait(futures.values())
                        begun = {name: run.record for name, run in runs.items() if run.record is not None}
                        self._end_all(begun, context, _INTERRUPTED_LIMIT)
                    raise
        return [*outcomes, *(results[name] for name in ours)]

    def cancel(self) -> None:
        """Interrupt an `up` that runs in another thread: it stops what it started, and raises `Cancelled`."""
        self._cancel.set()

    def _context(self, tell: Listener) -> Context:
        return Context(self.home, Cache(self.home.cache, self._cancel), self._cancel, tell)

    def _up_one(self, run: _Run, runs: dict[str, _Run], unusable: set[str]) -> Outcome:
        service, begin = run.service, time.monotonic()
        try:
            if self._serves(service):
                version = str(self.home.read()["services"][service.name]["version"])
                run.spawned.set()
                return Outcome(service.name, "running", time.monotonic() - begin, version)
            self._start(run, runs, unusable)
        except (StreamlabError, OSError, subprocess.SubprocessError, psycopg.Error) as error:
            run.failed = True
            run.spawned.set()
            service.report("failed")
            told = error if isinstance(error, StreamlabError) else _explained(service, error)
            return Outcome(service.name, "failed", time.monotonic() - begin, error=told)
        except BaseException:
            run.failed = True
            run.spawned.set()
            raise
        seconds = time.monotonic() - begin
        service.report(f"up in {seconds:.1f} s")
        return Outcome(service.name, "started", seconds, service.version)

    def _serves(self, service: Service) -> bool:
        """Whether a server of ours runs that was started to the end, and answers."""
        record = self._record(service.name)
        if record is None or record.process() is None:
            return False
        # Without its time, the command that started it was killed before accounts and passwords were in place.
        return self.home.read()["services"][service.name].get("start_seconds") is not None and service.ready()

    def _start(self, run: _Run, runs: dict[str, _Run], unusable: set[str]) -> None:
        service = run.service
        if (old := self._record(service.name)) is not None and old.process() is not None:
            service.report("does not answer: ending it")
            stop(old, how=service.stop_signal, limit=service.stop_limit)
        self._end_strays(service)
        try:
            self._attempt(run, runs, unusable)
        except _NOT_MENDED:
            raise
        except (StackError, OSError, subprocess.SubprocessError) as failure:
            # The usual cause of a server that dies at once is a broken file: look at every byte, and fetch again.
            if run.record is not None:
                stop(run.record, how=service.stop_signal, limit=service.stop_limit)
                _tidy(service, served=False)
            broken = service.mend(launched=run.record is not None)
            if not broken:
                raise
            service.report(f"{broken}: making it again")
            try:
                self._attempt(run, runs, unusable)
            except (StackError, OSError, subprocess.SubprocessError) as again:
                raise again from failure

    def _attempt(self, run: _Run, runs: dict[str, _Run], unusable: set[str]) -> None:
        service = run.service
        service.install()
        for name in service.after:
            if name in unusable:
                raise _NeedFailed(
                    f"{service.title} needs {SERVICES[name].title}, and {settings.VARIABLES[name]} names one that "
                    "cannot be used.",
                    f"See above; then run: streamlab up {service.name}",
                )
            if (needed := runs.get(name)) is not None:
                needed.spawned.wait()
                if needed.failed:
                    raise _NeedFailed(
                        f"{service.title} needs {needed.service.title}, which could not be started.",
                        f"See above; then run: streamlab up {service.name}",
                    )
        if self._cancel.is_set():
            raise Cancelled(f"Starting {service.title} was interrupted.", "Run the command again.")
        self._launch(run)

    def _launch(self, run: _Run) -> None:
        service = run.service
        begin = time.monotonic()
        service.report("starting")
        run.record = service.start()
        # Written down before anything else can go wrong: a killed `up` leaves no server that nobody knows.
        self._remember(service, run.record, None)
        run.spawned.set()
        wait_until(
            service.ready,
            what=service.title,
            limit=service.start_limit,
            log=service.log,
            record=run.record,
            cancel=self._cancel,
        )
        service.started()
        self._remember(service, run.record, time.monotonic() - begin)

    # -- what runs --------------------------------------------------------------------------------

    def _record(self, name: str) -> ProcessRecord | None:
        entry = self.home.read()["services"].get(name)
        return ProcessRecord(**entry["process"]) if entry and entry.get("process") else None

    def _remember(self, service: Service, record: ProcessRecord | None, seconds: float | None) -> None:
        with self._writing:
            state = self.home.read()
            state["services"][service.name] = {
                "address": service.address(),
                "process": asdict(record) if record else None,
                "version": service.version,
                "start_seconds": seconds,
            }
            self.home.write(state)

    def _forget(self, name: str) -> None:
        with self._writing:
            state = self.home.read()
            if name in state["services"]:
                del state["services"][name]
                self.home.write(state)

    def _end_strays(self, service: Service) -> bool:
        """End what a killed command started for a service, and could not write down."""
        found = strays(service.room, self.home.user)
        for process in found:
            service.report("ending what an interrupted command left behind")
            end(process, how=service.stop_signal, limit=service.stop_limit)
        return bool(found)

    def status(self) -> list[ServiceStatus]:
        """What is known of every service; needs no lock and changes nothing."""
        return status(self.home)

    def missing(self, services: Iterable[str]) -> list[str]:
        """Those of the services that do not serve now: not started, dead, or not answering."""
        names = with_needs(list(services))
        own = [name for name in names if not settings.given(name)]
        absent = [name for name in names if settings.given(name) and external.look(name).problem]
        if own and not (self.home.path / "stack.json").exists():
            return [*absent, *own]
        if own:
            context = self._context(lambda _service, _text: None)
            absent += [name for name in own if not self._serves(SERVICES[name](context))]
        return absent

    def service(self, name: str) -> Service:
        """The object that runs a service of this stack, for its programs and paths."""
        return SERVICES[known(name)](self._context(lambda _service, _text: None))

    # -- down -------------------------------------------------------------------------------------

    def down(
        self, services: Iterable[str] | None = None, *, purge: bool = False, listener: Listener | None = None
    ) -> list[str]:
        """Stop what this home started, in the opposite order; returns the names of what was stopped.

        Parameters
        ----------
        services : iterable of str, optional
            Names; by default all.
        purge : bool
            Delete data, state and passwords too. Downloads are kept.

        Raises
        ------
        NotOurs
            `purge`, while the environment names servers that streamlab did not start.
        """
        tell = listener or (lambda _service, _text: None)
        if purge and (foreign := [name for name in SERVICES if settings.given(name)]):
            raise NotOurs(
                f"purge is refused while the environment names servers of your own ({', '.join(foreign)}).",
                "Unset " + ", ".join(settings.VARIABLES[name] for name in foreign) + ", and run it again.",
            )
        wanted = [known(name) for name in services] if services is not None else list(SERVICES)
        # What depends on a stopped service is stopped with it.
        wanted += [n for n, cls in SERVICES.items() if n not in wanted and set(cls.after) & set(wanted)]
        if not self.home.exists():
            return []
        with self.home.locked():
            if purge:
                self.home.forget_broken_state()
            self.home.read()
            context = self._context(tell)
            present = {n: self._record(n) for n in wanted if (self.home.path / n).exists()}
            stopped = self._end_all(present, context)
            if purge:
                self.home.remove()
        return stopped

    def _end_all(
        self, records: Mapping[str, ProcessRecord | None], context: Context, limit: float | None = None
    ) -> list[str]:
        """End servers side by side, those that need others first; the names of those that ran."""
        ended = []
        for wave in waves(list(records)):
            was = side_by_side(
                lambda name: self._end(SERVICES[name](context), records[name], limit), wave, name="streamlab-down"
            )
            ended += [name for name, ran in zip(wave, was, strict=True) if ran]
        return ended

    def _end(self, service: Service, record: ProcessRecord | None, limit: float | None) -> bool:
        was = False
        if record is not None:
            service.report("stopping")
            service.ending()
            was = stop(record, how=service.stop_signal, limit=service.stop_limit if limit is None else limit)
        left = self._end_strays(service)
        if was or left:
            entry = self.home.read()["services"].get(service.name) or {}
            _tidy(service, served=entry.get("start_seconds") is not None)
        self._forget(service.name)
        if record is not None or left:
            service.report("stopped" if was or left else "was not running")
        return was or left


@dataclass(slots=True)
class _Run:
    """One service on its way up."""

    service: Service
    spawned: threading.Event
    record: ProcessRecord | None
    failed: bool

    def __init__(self, service: Service) -> None:
        self.service = service
        self.spawned = threading.Event()
        self.record = None
        self.failed = False


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off Ctrl-C while servers are ended, which takes a few seconds: else a second one would leave them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _explained(service: Service, error: Exception) -> StackError:
    """What the operating system, a program or the server itself refused, as an error of ours."""
    _LOG.debug("%s could not be started", service.title, exc_info=error)
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.strerror}: {os.fsdecode(error.filename)}" if error.filename else error.strerror
        return StackError(
            f"{service.title} could not be started: {what}.", "Look at its permissions and at the space on the disk."
        )
    return StackError(
        f"{service.title} could not be started: {str(error).strip() or type(error).__name__}.",
        f"See: streamlab logs {service.name}",
    )


def _tidy(service: Service, *, served: bool) -> None:
    try:
        service.ended(served=served)
    except (StreamlabError, OSError) as error:
        # Only the next start is slower.
        _LOG.warning("%s has stopped, but was not tidied: %s", service.title, error)


def _foreign(name: str) -> Outcome:
    begin = time.monotonic()
    seen = external.look(name)
    seconds = time.monotonic() - begin
    if seen.problem:
        return Outcome(name, "failed", seconds, seen.version, StackError(seen.problem, seen.fix))
    return Outcome(name, "foreign", seconds, seen.version)
