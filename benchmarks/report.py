"""What a run says: the table, and the JSON for programs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from benchmarks.measure import Row
from streamlab.errors import StreamlabError

__all__ = ["figure", "machine", "origin", "refuse_unwritable", "table", "write_json"]


def figure(value: float | None, unit: str = "") -> str:
    """A figure as a person reads it: three digits that count.

    Examples
    --------
    >>> figure(0.04712, "s"), figure(1433.6, "MiB"), figure(None)
    ('0.0471 s', '1,434 MiB', '')
    """
    if value is None:
        return ""
    if value >= 1000:
        text = f"{value:,.0f}"
    elif value >= 100:
        text = f"{value:.0f}"
    else:
        # Never in powers of ten.
        text = f"{value:.{max(0, 2 - _exponent(value))}f}"
    return f"{text} {unit}".strip()


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def table(rows: Iterable[Row]) -> Table:
    """One line for each case and reference: medians, and the ratio with its range."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("work")
    for heading in ("reference", "ours", "ratio (min/median/max)", "goal"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("met", no_wrap=True)
    for row in rows:
        made.add_row(
            Text.assemble((f"{row.benchmark}:{row.case}", "bold"), f"  {row.work}"),
            _reference(row),
            Text("failed", "red") if row.error else figure(row.ours, row.unit),
            " / ".join(figure(value) for value in (min(row.ratios), row.ratio, max(row.ratios))) if row.ratios else "",
            "" if row.goal is None else f"{row.goal:g}",
            {True: Text("✓ yes", "green"), False: Text("✗ no", "red"), None: Text("")}[row.met],
        )
    return made


def _reference(row: Row) -> str:
    if row.reference is None:
        return ""
    # A limit has its figure in its name.
    if row.theirs is None or row.reference.startswith("limit: "):
        return row.reference
    return f"{row.reference}: {figure(row.theirs, row.unit)}"


def machine() -> str:
    """What runs beside a benchmark, which spoils absolute limits more than ratios."""
    cores = os.cpu_count() or 1
    text = f"{cores} {'core' if cores == 1 else 'cores'}"
    if not hasattr(os, "getloadavg"):
        return f"Measured on {text}."
    return f"Measured on {text}; load before: {os.getloadavg()[0]:.1f}."


def origin(*, quick: bool) -> dict[str, str | bool | int | None]:
    """When, of what and how a run is measured: what each entry of the JSON ends with.

    The commit ends in ``-dirty`` where files of the checkout differ from it; without git it is None.
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except OSError:
        commit = ""
    now = datetime.now(UTC)
    return {"date": f"{now:%Y-%m-%d}", "commit": commit or None, "quick": quick, "cores": os.cpu_count() or 1}


def refuse_unwritable(path: Path) -> None:
    """Say before a long run that its result could not be written.

    Raises
    ------
    StreamlabError
        There is no such directory, or it is not writable.
    """
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise StreamlabError(f"{path} cannot be written.", "Name a file in a directory that exists and is yours.")


def write_json(path: Path, rows: Iterable[Row], about: Mapping[str, object]) -> None:
    """Write the list of rows, each with what holds for all of them; whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump([{**row.as_json(), **about} for row in rows], file, indent=1, ensure_ascii=False)
            file.write("\n")
        # As open() would have made it; a temporary file is private.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
