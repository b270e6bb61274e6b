"""Carries planned transactions out, each exactly once, whatever happens to the connection.

A COMMIT whose answer was lost may have happened. Then a new session waits until the server has ended the
old one, which settles its transaction, and looks at one row of the plan: every action has an instant
of its own, so the row tells whether this transaction wrote it. Only if it did not, the plan is carried out
again. The same happens after an interrupt: a plan stays pending until its outcome is known.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from streamlab.errors import StreamlabError
from streamlab.failpoints import failpoint
from streamlab.retry import Failure, Retry, RetryPolicy, classify
from streamlab.workload.plan import PlannedTransaction
from streamlab.workload.target import Session, Target

__all__ = ["Writer"]

log = logging.getLogger(__name__)

_POLICY = RetryPolicy(attempts=40, seconds=60.0, base=0.05, cap=2.0)
_GONE_SECONDS = 30.0


class Writer:
    """One session at a time, and the plan that it is carrying out. Used by one thread at a time.

    Parameters
    ----------
    target : Target
        Where the tables are.
    on_commit : callable
        Called with each plan that is known to be committed, before it is pending no more. After an interrupt
        it may be called again with the same plan.
    """

    def __init__(self, target: Target, on_commit: Callable[[PlannedTransaction], object]) -> None:
        self._target = target
        self._on_commit = on_commit
        self._session: Session | None = None
        self._tried: tuple[Any, ...] | None = None
        self._begun = self._sent = False
        self.pending: PlannedTransaction | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a COMMIT of the pending plan was sent, and its outcome is not known."""
        return self._sent

    def session(self) -> Session:
        """The session, a new one if there is none."""
        if self._session is None:
            self._session = self._target.open()
        return self._session

    def begin(self, plan: PlannedTransaction) -> None:
        """Carry a plan out and leave its transaction open."""
        self.pending = plan
        Retry("workload.begin", _POLICY).call(self._begin)

    def commit(self, stop: threading.Event | None = None) -> None:
        """Commit the pending plan, which is carried out first where it has to be.

        Parameters
        ----------
        stop : threading.Event, optional
            Setting it ends the attempts.

        Raises
        ------
        RetriesExhausted
            The server could not be reached. The plan stays pending; `commit` may be called again.
        """
        plan = self.pending
        if plan is None:
            raise StreamlabError("There is no transaction to commit.", "It was committed or rolled back before.")
        try:
            self._attempt(stop)
            self._on_commit(plan)
            self.pending = self._tried = None
            self._sent = False
        except BaseException:
            self.close()  # so that a session which may have committed is never the one that is asked
            raise

    def rollback(self) -> None:
        """Roll the open transaction back.

        Raises
        ------
        StreamlabError
            Its COMMIT was sent and the answer was lost.
        """
        if self.in_doubt:
            raise StreamlabError("It is not known whether this transaction was committed.", "Call commit() again.")
        # The end of its session is the end of a transaction, and cannot fail.
        self.close()
        self.pending = self._tried = None

    def close(self) -> None:
        """End the session. A plan that is pending stays so."""
        session, self._session = self._session, None
        self._begun = False
        if session is not None:
            with contextlib.suppress(Exception):  # it may be broken in any way, and is not used again
                session.close()

    def _attempt(self, stop: threading.Event | None) -> None:
        # The first attempt is made even while the stop event is set: what was planned is finished if it can be.
        try:
            self._commit()
        except Exception as error:
            if classify(error) in {Failure.DATA, Failure.FATAL}:
                raise
            log.info("a transaction is tried again: %s", error)
            Retry("workload.commit", _POLICY, stop=stop).call(self._commit)

    def _begin(self) -> None:
        """Have the pending plan carried out in an open transaction, unless it is committed already."""
        if self.pending is None or self._begun:
            return
        session = self.session()
        try:
            if self._tried is not None and self._settled(session, self._tried):
                return
            self._tried = session.identity
            session.begin(self.pending.operations)
            self._begun = True
        except BaseException:  # an interrupt leaves the connection in the middle of its protocol
            self.close()
            raise

    def _commit(self) -> None:
        self._begin()
        if self._begun:
            session = self.session()
            self._begun = False  # from here on its outcome is open
            try:
                failpoint("workload.before_commit")
                self._sent = True
                session.commit()
                failpoint("workload.committed")
            except BaseException:
                self.close()
                raise

    def _settled(self, session: Session, tried: tuple[Any, ...]) -> bool:
        """Wait until the server has ended a session; tell whether that one committed the pending plan."""
        deadline = time.monotonic() + _GONE_SECONDS
        while session.is_alive(tried):
            if time.monotonic() > deadline:
                raise StreamlabError(
                    f"The server still holds a lost session after {_GONE_SECONDS:.0f} s.",
                    "Call again when it has noticed; nothing was lost or done twice.",
                )
            time.sleep(0.02)
        if self.pending is None:
            return True
        # Nothing in a plan comes after its last operation, so that row is as it left it, or was never touched.
        committed = session.holds(self.pending.operations[-1])
        if not committed:
            self._tried, self._sent = None, False
        log.info("%r was %s", self.pending, "committed" if committed else "not committed: carried out again")
        return committed
