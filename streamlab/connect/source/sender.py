"""The producer beneath the connector: idempotent or transactional, bounded in memory and in time. A thin adapter.

Idempotent
    librdkafka numbers the records of each partition and the broker refuses a repetition, so a retry on the network
    neither duplicates nor reorders. It ends with the producer: after a restart what was not acknowledged is sent again.
Transactional
    Besides, a `transactional.id` names the connector for the broker. Whoever initialises it anew ends the open
    transaction of the one before and fences it: a former producer that wakes up (a zombie) can no longer write.

Both wait for all replicas in sync (``acks=all``). The partitioner is that of Java's clients, murmur2, so that topics of
Debezium and of this connector are partitioned alike; librdkafka's default is CRC32.

Source: KIP-98, "Exactly Once Delivery and Transactional Messaging"; librdkafka's INTRODUCTION.md, "Idempotent Producer"
and "Transactional producer".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from streamlab.errors import Fenced, NotDelivered, StreamlabError
from streamlab.failures import Failure, classify

__all__ = ["Sender", "judged", "refused"]

_kafka_log = logging.getLogger("streamlab.connect.kafka")
_SLICE: Final = 0.25
_GRACE: Final = 5.0
"""Seconds that a stop leaves to what is on its way."""

_DEFAULTS: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 5,
    "batch.num.messages": 50_000,
    "batch.size": 1_000_000,
    # Whichever is reached first: then whoever produces waits.
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 128 << 10,
    "delivery.report.only.error": True,
    "log_level": 0,
}
_FENCED: Final = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}


def refused(error: KafkaException, what: str) -> StreamlabError:
    """The error of this package for one of Kafka's."""
    problem: KafkaError = error.args[0]
    code = problem.code()
    if code in _FENCED or (code == KafkaError.INVALID_PRODUCER_EPOCH and problem.fatal()):
        return Fenced(
            "Another connector of this name has begun, and Kafka takes nothing from this one any more.",
            "Let that one go on. If both are wanted, give them different names.",
        )
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return NotDelivered(
            f"{what} failed: a record is larger than Kafka takes ({problem.str()}).",
            "Raise max.message.bytes of the topic, and message.max.bytes here (kafka=); or leave the column out.",
        )
    return NotDelivered(
        f"{what} failed: {problem.str()}.", "See: streamlab logs kafka; what was not stored comes again."
    )


def judged(error: object) -> Failure:
    """What a failure asks for, where a new producer and a stored position make every repetition safe."""
    cause = error.__cause__ if isinstance(error, NotDelivered) else None
    if isinstance(cause, KafkaException) and cause.args[0].fatal():
        return Failure.TRANSIENT  # fatal to the producer alone; `Fenced` is another class
    if isinstance(cause, TimeoutError):
        return Failure.TRANSIENT
    return classify(error)


class Sender:
    """One producer. Used by one thread.

    Parameters
    ----------
    configuration : mapping
        Settings of librdkafka, over the defaults of this module.
    transactional_id : str, optional
        Makes it transactional.
    stopping : threading.Event
        Ends waits, a few seconds after it was set.
    limit : float
        Seconds within which records have to be delivered.
    """

    def __init__(
        self, configuration: Mapping[str, Any], *, transactional_id: str | None, stopping: threading.Event,
        limit: float = 60.0,
    ) -> None:  # fmt: skip
        settings = {**_DEFAULTS, **configuration}
        if transactional_id is not None:
            settings |= {"transactional.id": transactional_id, "transaction.timeout.ms": round(limit * 1000)}
        else:
            settings.setdefault("message.timeout.ms", round(limit * 1000))
        self.transactional = transactional_id is not None
        self._stopping, self._limit = stopping, limit
        self._failed: KafkaError | None = None
        if not self.transactional:
            # Otherwise a commit fails by itself.
            settings["on_delivery"] = self._reported
        # Without a callback for errors, a fatal one is raised out of whichever callback runs.
        self._producer = Producer({**settings, "error_cb": self._erred}, logger=_kafka_log)
        self.produce = self._producer.produce
        """librdkafka's own; raises BufferError where `room` has to be waited for."""

    def _erred(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed = error

    def _reported(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def open(self) -> None:
        """Fence former producers of the same identity, and end their transactions.

        Raises
        ------
        NotDelivered
            The broker does not answer in time.
        """
        if self.transactional:
            self._repeat(self._producer.init_transactions, "Beginning as a transactional producer")

    def begin(self) -> None:
        """Begin a transaction, where there are some."""
        if self.transactional:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise refused(error, "Beginning a transaction") from error

    def send(self, topic: str, value: bytes, key: bytes, partition: int) -> None:
        """Produce one record, when there is room.

        Raises
        ------
        NotDelivered
            There is none in time, or it is refused.
        """
        while True:
            try:
                self.produce(topic, value, key, partition)
                return
            except BufferError:
                self.room()
            except KafkaException as error:
                raise refused(error, "Sending a record") from error

    def room(self) -> None:
        """Wait until the queue has room.

        Raises
        ------
        NotDelivered
            It has none in time, or a record was refused.
        """
        before, deadline = len(self._producer), self._deadline()
        while len(self._producer) >= before:
            self._step(self._producer.poll, 0.05, "Sending records")
            self._in_time(deadline, "Sending records")

    def flush(self) -> None:
        """Wait until all records are acknowledged by all replicas in sync.

        Raises
        ------
        NotDelivered
            One was refused, or they are not in time.
        """
        deadline = self._deadline()
        while self._step(self._producer.flush, _SLICE, "Sending records"):
            self._in_time(deadline, "Sending records")

    def commit(self) -> None:
        """Commit the transaction, where there are some. When it raises, it may have been committed nevertheless.

        Raises
        ------
        Fenced
            Another producer of the same identity has begun.
        NotDelivered
            It was not, or nobody knows.
        """
        if self.transactional:
            self._repeat(self._producer.commit_transaction, "Committing a transaction")

    def close(self) -> None:
        """Let go of the connection; what was not committed is taken back by the next producer. Idempotent."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._producer.flush(0)

    def _deadline(self) -> float:
        return time.monotonic() + self._limit

    def _repeat(self, step: Any, what: str) -> None:
        """A step that goes on where it was interrupted when it is called again."""
        deadline = self._deadline()
        while True:
            try:
                step(1.0)
                return
            except KafkaException as error:
                problem: KafkaError = error.args[0]
                if not problem.retriable() or problem.fatal() or problem.txn_requires_abort():
                    raise refused(error, what) from error
                self._in_time(deadline, what, error)

    def _step(self, step: Callable[[float], int], seconds: float, what: str) -> int:
        try:
            left = step(seconds)
            if self._failed is not None:
                raise KafkaException(self._failed)
        except KafkaException as error:
            raise refused(error, what) from error
        return left

    def _in_time(self, deadline: float, what: str, error: KafkaException | None = None) -> None:
        if self._stopping.is_set():
            deadline = min(deadline, self._grace())
        if time.monotonic() >= deadline:
            raise NotDelivered(
                f"{what} was not done within {self._limit:.0f} s.", "Is Kafka up? See: streamlab status"
            ) from (error or TimeoutError())

    _stop_seen: float | None = None

    def _grace(self) -> float:
        if self._stop_seen is None:
            self._stop_seen = time.monotonic()
        return self._stop_seen + _GRACE
