"""What could keep this machine from running the lessons; each finding with what to do about it. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

from streamlab import settings
from streamlab.errors import StreamlabError
from streamlab.sql import load
from streamlab.stack import leases, machine, ports
from streamlab.stack.home import Home
from streamlab.stack.machine import Finding, Verdict
from streamlab.stack.manager import Stack
from streamlab.stack.objects import Kind
from streamlab.stack.process import tail
from streamlab.stack.services import SERVICES
from streamlab.stack.status import ServiceStatus

__all__ = ["Finding", "Verdict", "examine"]


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other. Changes nothing, and every wait is bounded."""
    yield machine.python()
    try:
        home = Home()
    except StreamlabError as error:
        yield Finding("Home", Verdict.FAIL, error.problem, error.fix)
        return
    yield machine.java(home)
    yield machine.maven(home)
    yield machine.mysqld(home)
    yield machine.disk(home)
    yield from _places(home)
    stack = Stack(home)
    try:
        rows = stack.status()
    except StreamlabError as error:
        yield Finding("State", Verdict.FAIL, error.problem, error.fix)
        rows = []
    yield machine.memory(sum(row.rss_bytes for row in rows))
    if rows:
        yield from _ports(home, rows)
        yield from _servers(stack, rows)
    owners: dict[str, str] = {}
    yield from _leases(home, owners)
    if any(row.name == "postgres" and row.state in {"running", "foreign"} for row in rows):
        yield from _slots(owners)


def _places(home: Home) -> Iterator[Finding]:
    """Whether the home and the cache can be used, or made."""
    for subject, path in (("Home", home.path), ("Cache", home.cache)):
        there = machine.existing(path)
        variable = f"STREAMLAB_{subject.upper()}"
        try:
            if subject == "Home":
                home._refuse_strange()
            home._reachable(there)
        except StreamlabError as error:
            yield Finding(subject, Verdict.FAIL, error.problem, error.fix)
            continue
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            why = f"{there} is not writable for you" if there.is_dir() else f"{there} is no directory"
            # A cache that cannot be written still serves what it holds.
            readable = subject == "Cache" and there == path and os.access(there, os.R_OK | os.X_OK)
            fix = f"Set {variable} to a directory of your own."
            yield Finding(subject, Verdict.WARN if readable else Verdict.FAIL, why, fix)
        else:
            yield Finding(subject, Verdict.OK, str(path) if there == path else f"{path} will be made")


def _ports(home: Home, rows: list[ServiceStatus]) -> Iterator[Finding]:
    try:
        base = ports.base_from_environment() or int(home.read().get("port_base", 0))
    except StreamlabError as error:
        yield Finding("Ports", Verdict.FAIL, error.problem, error.fix)
        return
    if not base:
        yield Finding("Ports", Verdict.OK, f"a free block of {ports.BLOCK} will be chosen, on {ports.HOST} alone")
        return
    taken = False
    for row in rows:
        if row.state == "running" or not row.ours:
            continue
        for each in (row.name, *SERVICES[row.name].port_names):
            port = base + ports.PORTS[each]
            if not ports.is_free(port):
                taken = True
                yield Finding(
                    "Port", Verdict.FAIL, f"{port} ({each}) is taken by {ports.holder(port)}",
                    "End that program, or set STREAMLAB_PORT_BASE to another block of a hundred ports.",
                )  # fmt: skip
    if not taken:
        yield Finding("Ports", Verdict.OK, f"{base} to {base + ports.BLOCK - 1}, on {ports.HOST} alone")


def _servers(stack: Stack, rows: list[ServiceStatus]) -> Iterator[Finding]:
    try:
        silent = set(stack.missing([row.name for row in rows if row.state == "running"]))
    except StreamlabError as error:
        yield Finding("Servers", Verdict.FAIL, error.problem, error.fix)
        return
    for row in rows:
        again = f"Run: streamlab up {row.name}"
        if row.state == "running" and row.name in silent:
            yield Finding(row.title, Verdict.WARN, f"runs (pid {row.pid}) and does not answer", again)
        elif row.state in {"running", "foreign"}:
            own = "" if row.ours else ", your own server"
            yield Finding(row.title, Verdict.OK, f"{row.version} at {row.host}:{row.port}{own}")
        elif row.state == "unreachable":
            yield Finding(row.title, Verdict.FAIL, row.problem, row.fix)
        elif row.state == "dead":
            last = tail(stack.home.path / row.name / "log", 1)
            yield Finding(row.title, Verdict.WARN, f"has died. Last line of its log: {last}", again)
        else:
            yield Finding(row.title, Verdict.OK, "not started")


def _leases(home: Home, owners: dict[str, str]) -> Iterator[Finding]:
    """Runs of lessons, live and dead; notes in `owners` which slot is whose."""
    try:
        live = leases.live(home)
        with leases.dead(home) as found:
            dead = [info for info, _ in found]
    except OSError as error:
        if home.leases.exists():
            yield Finding("Leases", Verdict.WARN, f"{error.filename} cannot be read: {error.strerror}",
                          "Set STREAMLAB_HOME to a directory of your own.")  # fmt: skip
        return
    for info in live:
        owners.update({each.name: f"lesson {info.slug} runs" for each in info.objects if each.kind is Kind.SLOT})
        yield Finding("Lesson", Verdict.OK, f"{info.slug} runs (pid {info.pid})")
    for info in dead:
        count = len(info.objects)
        yield Finding(
            "Leftover", Verdict.WARN,
            f"{info.slug} died and left {count} {'object' if count == 1 else 'objects'} ({info.name})",
            "The next lesson that starts removes them; or run: streamlab reset",
        )  # fmt: skip


def _slots(owners: dict[str, str]) -> Iterator[Finding]:
    """Replication slots that nobody reads hold back WAL, until the disk is full."""
    import psycopg

    try:
        dsn = settings.postgres_dsn("reader")
        with psycopg.connect(dsn, connect_timeout=2, autocommit=True) as connection:
            connection.execute(load("servers")["bounded"], ["3s"])
            rows = connection.execute(load("servers")["slots"]).fetchall()
    except (StreamlabError, psycopg.Error):
        # That the server does not answer is a finding of its own.
        return
    for name, _, active, status, _, retained in rows:
        drop = f"SELECT pg_drop_replication_slot('{name}')"
        detail = f"slot {name} holds {(retained or 0) / 2**20:.0f} MiB of WAL"
        if status == "lost":
            yield Finding(
                "Slot", Verdict.WARN, f"slot {name} has lost its WAL and cannot be read any more",
                f"Drop it, and let its reader begin with a new snapshot: {drop}",
            )  # fmt: skip
        elif active or name in owners:
            yield Finding("Slot", Verdict.OK, detail if active else f"{detail}; {owners[name]}")
        else:
            yield Finding("Slot", Verdict.WARN, f"{detail}, and nobody reads it", f"Read it, or drop it: {drop}")
