"""What is known of every service: ours from the home's state and the process, the user's own by a look at them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import psutil

from streamlab import settings
from streamlab.stack import external, ports
from streamlab.stack.home import Home
from streamlab.stack.process import ProcessRecord
from streamlab.stack.services import DEFAULT, SERVICES

__all__ = ["ServiceStatus", "State", "status"]

State = Literal["running", "stopped", "dead", "foreign", "unreachable"]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One row of `streamlab status`. Sizes in bytes, times in seconds."""

    name: str
    title: str
    state: State
    version: str
    host: str
    port: int
    pid: int | None
    rss_bytes: int
    start_seconds: float | None
    ours: bool
    problem: str = ""
    fix: str = ""


def status(home: Home) -> list[ServiceStatus]:
    """What is known of every service that is started by default or was asked for; needs no lock, changes nothing."""
    state = home.read()
    rows = []
    # Side by side: each may take as long as a server that does not answer.
    with ThreadPoolExecutor(len(SERVICES), thread_name_prefix="streamlab-status") as pool:
        looked = {n: pool.submit(_foreign_status, n, c.title) for n, c in SERVICES.items() if settings.given(n)}
    for name, cls in SERVICES.items():
        if name in looked:
            rows.append(looked[name].result())
            continue
        entry = state["services"].get(name)
        if entry is None and name not in DEFAULT:
            # On demand, and nobody has asked for it.
            continue
        port = int(state.get("port_base", 0)) + ports.PORTS[name] if "port_base" in state else 0
        record = ProcessRecord(**entry["process"]) if entry and entry.get("process") else None
        process = record.process() if record else None
        rows.append(
            ServiceStatus(
                name=name,
                title=cls.title,
                state="running" if process else ("dead" if record else "stopped"),
                version=str(entry["version"]) if entry else "",
                host=ports.HOST,
                port=port,
                pid=process.pid if process else None,
                rss_bytes=_memory(process) if process else 0,
                start_seconds=entry.get("start_seconds") if entry else None,
                ours=True,
            )
        )
    return rows


def _memory(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


def _foreign_status(name: str, title: str) -> ServiceStatus:
    seen = external.look(name)
    return ServiceStatus(
        name=name,
        title=title,
        state="unreachable" if seen.problem else "foreign",
        version=seen.version,
        host=seen.host,
        port=seen.port,
        pid=None,
        rss_bytes=0,
        start_seconds=None,
        ours=False,
        problem=seen.problem,
        fix=seen.fix,
    )
