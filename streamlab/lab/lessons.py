"""A lesson at work: `lesson()` checks the servers, makes a namespace of this run's own, and hands out its parts.

::

    lab = lesson("01_postgres_cdc", needs=["postgres"], seed=7)
    lab.dsn, lab.mysql, lab.kafka        # addresses, inside the run's own schema and database
    lab.slot(), lab.topic("orders")      # names of the run's own, written down before they are used
    lab.predict(...), lab.reveal(...)    # the reader commits to an answer first
    lab.wrong(...)                       # a cell that fails for the reason that it teaches
    lab.check(...), lab.carry_on(...)    # exercises
    lab.close()                          # everything of this run is gone

A second `lesson()` of the same name in one kernel closes the first: the cell can be run again. A kernel that ends
closes what is open; what a killed one left is dropped by the next lesson that starts (`streamlab.stack.namespace`).
For the main thread alone.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from streamlab import settings
from streamlab.errors import LessonError
from streamlab.lab import checks, table
from streamlab.lab import source as sources
from streamlab.lab.live import Rendered, details, is_live, note, show
from streamlab.lab.predict import Prediction, Predictions
from streamlab.lab.results import Results
from streamlab.lab.services import ensure_running
from streamlab.lab.topology import topology
from streamlab.lab.wrong import Wrong
from streamlab.stack import SERVICES, Home, Stack
from streamlab.stack.namespace import Namespace, reap
from streamlab.workload import MySQLTarget, PostgresTarget, Shop
from streamlab.workload.target import Target

if TYPE_CHECKING:
    from streamlab.connect import MySQLSignals
    from streamlab.lab.workers import Workers

__all__ = ["Lesson", "lesson"]

log = logging.getLogger(__name__)

_open: dict[str, Lesson] = {}


def lesson(slug: str, *, needs: Sequence[str] = (), seed: int | None = None, start: bool | None = None) -> Lesson:
    """Begin a lesson.

    Parameters
    ----------
    slug : str
        The notebook's name without its suffix, such as ``00_start_here``.
    needs : sequence of str
        The services that it uses: postgres, mysql, kafka, connect.
    seed : int, optional
        The lesson's parameter of that name, for its results.
    start : bool, optional
        Whether servers that are missing are started; by default yes, unless ``STREAMLAB_AUTOSTART=0``.

    Raises
    ------
    LessonError
        A service is unknown, does not serve and may not or cannot be started, or is of a version that will not do.
    """
    if unknown := [name for name in needs if name not in SERVICES]:
        raise LessonError(f"There is no service called {unknown[0]}.", f"Services: {', '.join(SERVICES)}.")
    if (earlier := _open.get(slug)) is not None:
        earlier.close()
    home = Home()
    stack = Stack(home)
    if start is None:
        start = settings.flag("STREAMLAB_AUTOSTART") is not False
    pictured = ensure_running(stack, needs, start=start)
    for name in reap(home):
        log.info("tidied what %s had left", name)
    checks.load(slug)
    # Under the lock: a reset that has looked for live runs must not miss one that is just beginning.
    with home.locked():
        namespace = Namespace(slug, home)
    try:
        begun = Lesson(namespace, stack, tuple(needs), seed, pictured=pictured)
    except BaseException:
        namespace.close()
        raise
    _open[slug] = begun
    show(note("said", f"{slug}, run {namespace.run}", begun.where()))
    return begun


class Lesson:
    """One run of a lesson; made by `lesson`. For the main thread alone.

    Attributes
    ----------
    namespace : Namespace
        The run's own names: what is made under them is dropped by `close`.
    results : Results
        What the run has found out so far.
    live : bool
        Whether a person looks at the notebook while it runs.
    """

    def __init__(
        self, namespace: Namespace, stack: Stack, needs: tuple[str, ...], seed: int | None, *, pictured: bool = False
    ) -> None:
        self._pictured = pictured
        self.namespace = namespace
        self.slug = namespace.slug
        self.live = is_live()
        self.needs = needs
        self._stack = stack
        self.results = Results(self.slug, run=namespace.run, seed=seed)
        self.results.expect_checks(list(checks.exercises(self.slug)))
        self._predictions = Predictions(self.results, self.live)
        self._checked: dict[str, checks.Checked] = {}
        self._closing = contextlib.ExitStack()
        if "postgres" in needs:
            schema = namespace.postgres_schema()
            with psycopg.connect(str.__str__(settings.postgres_dsn()), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        if "mysql" in needs:
            self._make_database(namespace.mysql_database())

    @staticmethod
    def _make_database(name: str) -> None:
        import pymysql

        from streamlab.sql import mysql_identifier

        with (
            pymysql.connect(**settings.mysql_address().arguments(), autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"CREATE DATABASE {mysql_identifier(name)} CHARACTER SET utf8mb4")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lesson({self.slug}, run {self.namespace.run}{', closed' if self.namespace.closed else ''})"

    # -- addresses --------------------------------------------------------------------------------

    @cached_property
    def dsn(self) -> settings.Dsn:
        """PostgreSQL as the role that owns the shop; unqualified names are in the run's own schema."""
        self._want("postgres")
        text = str.__str__(settings.postgres_dsn())
        options = f"{conninfo_to_dict(text).get('options') or ''} -c search_path={self.namespace.name}".strip()
        return settings.Dsn(make_conninfo(text, options=options, application_name=self.namespace.name))

    @cached_property
    def mysql(self) -> settings.MySQLAddress:
        """MySQL as the role that owns the shop, in the run's own database."""
        self._want("mysql")
        return replace(settings.mysql_address(), database=self.namespace.name)

    @property
    def kafka(self) -> str:
        """Kafka's bootstrap servers."""
        self._want("kafka")
        return settings.kafka_bootstrap()

    def _want(self, service: str) -> None:
        if service not in self.needs:
            raise LessonError(
                f"Lesson {self.slug} does not say that it needs {service}.", f"Add it: needs=[..., {service!r}]."
            )

    def shop(self, service: str = "postgres", **parameters: Any) -> Shop:
        """A shop of this run, opened and filled with its first customers and products; closed by `close`.

        Parameters
        ----------
        service : str
            postgres or mysql.
        **parameters
            As `streamlab.workload.Shop` takes them. `seed` is the lesson's, unless it is given.
        """
        self._want(service)
        if self.results.seed is not None:
            parameters.setdefault("seed", self.results.seed)
        target: Target
        if service == "postgres":
            target = PostgresTarget(settings.postgres_dsn(), self.namespace.name)
        else:
            target = MySQLTarget(settings.mysql_address(), self.namespace.name)
        shop = self._closing.enter_context(Shop(target, **parameters))
        shop.create()
        return shop

    def signals(self, name: str = "signals") -> MySQLSignals:
        """The run's own signal table in MySQL. Debezium's user may write its marks there until `close`."""
        import pymysql

        from streamlab.connect import MySQLSignals

        self._want("mysql")
        database, role = self.namespace.name, settings.mysql_address("cdc").user
        admin = settings.mysql_address("admin").arguments(database=database)
        connection = self._closing.enter_context(pymysql.connect(**admin, autocommit=True))
        made = MySQLSignals(connection, f"{database}.{name}")
        made.create()
        made.grant(role)
        self._closing.callback(made.revoke, role)
        return made

    def workers(self, count: int = 3) -> Workers:
        """Workers of Kafka Connect of this run's own, which may be killed; gone with `close`."""
        from streamlab.lab.workers import Workers

        self._want("kafka")
        return self._closing.enter_context(Workers(self.namespace, count))

    # -- names ------------------------------------------------------------------------------------

    @property
    def schema(self) -> str:
        """The run's own schema of PostgreSQL."""
        self._want("postgres")
        return self.namespace.name

    def slot(self, name: str = "") -> str:
        """The name of a replication slot of this run."""
        return self.namespace.slot(name)

    def publication(self, name: str = "") -> str:
        """The name of a publication of this run."""
        return self.namespace.publication(name)

    def topic(self, name: str) -> str:
        """The name of a topic of this run."""
        return self.namespace.topic(name)

    def topic_prefix(self, name: str = "") -> str:
        """What a connector's topics of this run begin with."""
        return self.namespace.topic_prefix(name)

    def group(self, name: str = "") -> str:
        """The name of a consumer group of this run."""
        return self.namespace.group(name)

    def connector(self, name: str = "") -> str:
        """The name of a connector of this run."""
        return self.namespace.connector(name)

    # -- what is shown ----------------------------------------------------------------------------

    def where(self) -> str:
        """Which servers the run uses, in a line of text."""
        rows = {row.name: row for row in self._stack.status()}
        told = (
            f"{rows[name].title} {rows[name].version} at {rows[name].host}:{rows[name].port}" for name in self.needs
        )
        return ", ".join(told) or "no servers needed"

    def picture(self) -> Any:
        """The servers of this lesson: port, health, and how long each took to start.

        None, once, where the start of the servers has just left that very picture in the cell.
        """
        if self._pictured:
            self._pictured = False
            return None
        return topology(self._stack.status(), only=self.needs or None)

    def table(self, rows: Iterable[Any], *headings: str, **options: Any) -> Rendered:
        """A small table; see `streamlab.lab.table.render`."""
        return table.render(rows, *headings, **options)

    def source(self, *objects: Any, docstrings: bool = True) -> Rendered:
        """The package's own code, from the object itself; see `streamlab.lab.source.render`."""
        return sources.render(*objects, docstrings=docstrings)

    def hint(self, *texts: str) -> None:
        """Hints that a reader unfolds, one after the other."""
        for number, text in enumerate(texts, 1):
            show(details("A hint" if len(texts) == 1 else f"Hint {number}", text))

    # -- predict, run, explain --------------------------------------------------------------------

    def predict(
        self, name: str, question: str, among: Sequence[Any], feedback: Mapping[Any, str] | None = None
    ) -> None:
        """Ask for a guess before the answer appears.

        Parameters
        ----------
        name : str
            What `reveal` calls it.
        question : str
            What is asked.
        among : sequence
            The choices.
        feedback : mapping, optional
            Choice -> what to say to those who chose it and were wrong.
        """
        prediction: Prediction = self._predictions.ask(name, question, among, feedback)
        del prediction  # a value here would be displayed as the cell's result

    def reveal(self, name: str, value: Any) -> None:
        """Show what it is, and compare it with the guess."""
        self._predictions.reveal(name, value)

    def measured(self, name: str, value: float, unit: str) -> None:
        """Keep a figure in the results."""
        self.results.measure(name, value, unit)

    def wrong(self, title: str, what: str = "rows") -> Wrong:
        """A block that fails for the reason that it teaches; see `streamlab.lab.wrong`."""
        return Wrong(title, what, self.results.shown_wrong)

    # -- exercises --------------------------------------------------------------------------------

    def check(self, name: str, answer: Any) -> checks.Checked:
        """Check an exercise's answer by doing the real thing.

        An answer that was not attempted is replaced by the reference solution, which is said and not counted. A wrong
        answer gets its hint; in a batch run it ends the run.

        Raises
        ------
        CheckFailed
            The answer does not pass, in a batch run.
        LessonError
            The lesson has no such exercise, or its own solution does not pass.
        """
        task = checks.exercise(self.slug, name)
        checked = checks.evaluate(self, task, answer)
        self._checked[name] = checked
        self.results.check(checked.result)
        show(checked.rendered)
        if checked.result.outcome == "failed" and not self.live:
            raise checks.failure(task, checked)
        return checked

    def carry_on(self, name: str) -> Any:
        """What the lesson goes on with: the reader's answer where it passed, else the reference solution.

        Which of the two it is stands in the output.
        """
        task = checks.exercise(self.slug, name)
        checked = self._checked.get(name)
        if checked is not None and checked.passed:
            return checked.answer
        show(note("open", f"{name}: the lesson goes on with the reference solution.", "It does not count as passed."))
        return task.solution

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop everything that this run made. Idempotent.

        Raises
        ------
        LessonError
            Something could not be dropped, in a batch run. The next lesson that starts tries again.
        """
        if _open.get(self.slug) is self:
            del _open[self.slug]
        if self.namespace.closed:
            return
        self._predictions.close()
        try:
            self._closing.close()
        finally:
            # Also where a shop could not say goodbye, because its server has died.
            problems = self.namespace.close()
            self.results.finish()
        if problems:
            if not self.live:
                raise LessonError(
                    f"{self.slug} left something behind: {'; '.join(problems)}",
                    "See: streamlab status; streamlab doctor",
                )
            show(note("missed", "Not everything could be tidied; the next lesson tries again.", *problems))
        else:
            show(note("said", f"{self.slug}: what this run made is gone.", f"It took {self.results.seconds:.0f} s."))


def _close_all() -> None:
    for each in list(_open.values()):
        # The interpreter is ending: nobody could be told, and the next lesson tidies.
        with contextlib.suppress(Exception):
            each.close()


atexit.register(_close_all)
