"""What a run of a lesson found out: ``results/<lesson>.json``, for the runner and for comparisons.

The file is written after every change, whole or not at all, so that a run that dies leaves what it
had. Several runs of one lesson at once each write a whole file; the last one to change stays. A
runner that wants them apart names a file for each in ``STREAMLAB_RESULTS``.

::

    {"lesson": "01_postgres_cdc", "run": "k3v9qa", "seed": 7, "seconds": 12.3,
     "finished": true, "checks_passed": 1, "checks_total": 2,
     "checks": [{"name": "ack-order", "outcome": "passed", "detail": "200 of 200 orders arrived."}, ...],
     "predictions": [{"name": "seen", "predicted": 2, "actual": 1}, ...],
     "wrong": [{"title": "polling by timestamp loses late commits", "shown": "1 of 2 orders lost."}],
     "measured": {"round_trip": {"value": 4.1, "unit": "ms"}}}
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

__all__ = ["CheckResult", "CheckState", "Results", "default_path", "write_json"]

log = logging.getLogger(__name__)

CheckState = Literal["passed", "failed", "not attempted", "not run"]
"""Only "passed" counts as passed."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one exercise ended."""

    name: str
    outcome: CheckState
    detail: str = ""


def default_path(lesson: str) -> Path:
    """Where the results of a lesson go.

    ``STREAMLAB_RESULTS`` names a file, or a directory for ``<lesson>.json``. Without it: ``results/``
    of the checkout that this package runs from, else of the working directory.
    """
    if text := os.environ.get("STREAMLAB_RESULTS"):
        given = Path(text).expanduser().absolute()
        return given if given.suffix == ".json" and not given.is_dir() else given / f"{lesson}.json"
    checkout = Path(__file__).resolve().parents[2]
    root = checkout if (checkout / "notebooks").is_dir() and (checkout / "pyproject.toml").is_file() else Path.cwd()
    return root / "results" / f"{lesson}.json"


@dataclass(slots=True)
class Results:
    """What one run found out. For the thread of the lesson alone."""

    lesson: str
    run: str = ""
    seed: int | None = None
    path: Path | None = None
    checks: dict[str, CheckResult] = field(default_factory=dict)
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False
    _began: float = field(default_factory=time.monotonic)
    _seconds: float | None = None
    _warned: bool = False

    def __post_init__(self) -> None:
        if self.path is None:
            self.path = default_path(self.lesson)

    @property
    def seconds(self) -> float:
        """Seconds since the lesson began; until it was finished, once it was."""
        return time.monotonic() - self._began if self._seconds is None else self._seconds

    def expect_checks(self, names: list[str]) -> None:
        """Exercises that the lesson has: they count in the total from the start."""
        for name in names:
            self.checks.setdefault(name, CheckResult(name, "not run"))
        self.write()

    def check(self, result: CheckResult) -> None:
        """Record an exercise's outcome; a later one of the same name replaces it."""
        self.checks[result.name] = result
        self.write()

    def prediction(self, name: str, **facts: Any) -> None:
        """Record what was predicted, and later what it was."""
        self.predictions.setdefault(name, {"name": name}).update(facts)
        self.write()

    def shown_wrong(self, title: str, shown: str) -> None:
        """Record a failure that was shown and was the expected one."""
        self.wrong[title] = shown
        self.write()

    def measure(self, name: str, value: Any, unit: str) -> None:
        """Record a figure with its unit."""
        self.measured[name] = {"value": value, "unit": unit}
        self.write()

    def finish(self) -> None:
        """The lesson came to its end: the clock stops."""
        self._seconds, self.finished = self.seconds, True
        self.write()

    def document(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "lesson": self.lesson,
            "run": self.run,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "finished": self.finished,
            "checks_passed": sum(check.outcome == "passed" for check in self.checks.values()),
            "checks_total": len(self.checks),
            "checks": [asdict(check) for check in self.checks.values()],
            "predictions": list(self.predictions.values()),
            "wrong": [{"title": title, "shown": shown} for title, shown in self.wrong.items()],
            "measured": self.measured,
        }

    def write(self) -> None:
        """Write the file. A place that cannot be written costs the file, not the lesson, and is logged once."""
        if self.path is None:
            return
        try:
            write_json(self.path, self.document())
        except OSError as error:
            if not self._warned:
                log.warning("Results are not kept: %s cannot be written (%s).", self.path, error.strerror)
                self._warned = True


def write_json(path: Path, document: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(document, file, indent=1, default=_plain)
            file.write("\n")
        # mkstemp makes files private; results are for whoever may read the directory.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _plain(value: object) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if hasattr(value, "item"):  # a number of NumPy or pandas
        return value.item()
    return str(value)
