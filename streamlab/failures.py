"""What kind of failure an exception is: whether to try again, to park the record, or to stop.

A consumer can do three things about an error, and the wrong one loses data or floods the dead
letters: wait until an outage is over, set one bad record aside, or stop because no repetition
will ever help. `classify` decides from what the server said, not from the text of the message:
the SQLSTATE of PostgreSQL, the error number of MySQL, the error code of Kafka, the status of
HTTP, the errno of the operating system.

It is pure: no clock, no connection. A library that the process never imported cannot have raised
the error, so libraries are looked up in `sys.modules` and never imported here.

Sources: PostgreSQL's "Error Codes" appendix; MySQL's "Server Error Message Reference" and "Client
Error Message Reference"; the error table of the Kafka protocol (its column "retriable") and
librdkafka's local codes; RFC 9110 and RFC 6585 for HTTP.
"""

from __future__ import annotations

import errno
import sys
from enum import Enum
from typing import Any

from streamlab.errors import (
    CannotCapture,
    CheckpointBehind,
    DownloadError,
    Fenced,
    LogPurged,
    MissingTool,
    NotOurs,
    ProtocolError,
    RecordingError,
    RetriesExhausted,
    SettingsError,
    SlotInUse,
    SlotUnusable,
    StreamlabError,
    StreamLost,
    UnknownParameter,
    UnusableState,
)

__all__ = ["Failure", "classify", "error_code", "must_abort"]


class Failure(Enum):
    """What a failure asks for."""

    TRANSIENT = "transient"
    """The same work can succeed later: back off and try again; never a dead letter."""
    DATA = "data"
    """This record is at fault and will fail again: park it, go on with the others."""
    FATAL = "fatal"
    """No repetition helps, whatever the record: stop and say why."""
    UNKNOWN = "unknown"
    """Nothing is known: a few attempts, then treat it as the record's fault."""


# Exact codes come first, then the class (the first two characters).
_SQLSTATES = {
    "25P03": Failure.TRANSIENT,  # idle in transaction for too long: the session is gone, the work is not
    "25P04": Failure.TRANSIENT,  # transaction_timeout: likewise
    "25006": Failure.TRANSIENT,  # read-only transaction: connected to a standby in the middle of a failover
    "54000": Failure.DATA,  # this row is too large for an index or a page
    "55006": Failure.TRANSIENT,  # object in use: the slot's former reader is not gone yet
    "55P03": Failure.TRANSIENT,  # lock not available
    "57014": Failure.UNKNOWN,  # cancelled: by statement_timeout or by a person, the code does not say
    "57P04": Failure.FATAL,  # the database was dropped
    "58P01": Failure.FATAL,  # undefined file: the WAL segment that a slot needs has been removed
    "XX001": Failure.FATAL,  # data corrupted
    "XX002": Failure.FATAL,  # index corrupted
}
_SQLSTATE_CLASSES = {
    **dict.fromkeys(("08", "40", "53"), Failure.TRANSIENT),
    "57": Failure.TRANSIENT,  # operator intervention: 57P01 to 57P05; the exceptions stand above
    **dict.fromkeys(("21", "22", "23", "44"), Failure.DATA),
    **dict.fromkeys(
        ("0A", "0L", "0P", "25", "28", "2B", "2D", "2F", "34", "3B", "3D", "3F", "42", "54", "55", "F0"), Failure.FATAL
    ),
}

# A refused login reaches libpq's caller as text alone: psycopg has no SQLSTATE for it. English only;
# in another language the connection is tried again until the bounds are reached, which is safe.
_LOGIN_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed for user",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
    "certificate verify failed",
    "does not match host name",
)

_MYSQL = {
    # 0: pymysql's own number for a closed connection. 1021, 1037, 1038, 1041, 1114: disk or memory full.
    **dict.fromkeys(
        (0, 1020, 1021, 1037, 1038, 1040, 1041, 1053, 1077, 1079, 1114, 1129, 1152, 1158, 1159, 1160, 1161),
        Failure.TRANSIENT,
    ),
    # 1184, 1927, 3169, 4031: the server ended the session. 1205, 1213, 3572: locks. 1290, 1836: failover, read-only.
    **dict.fromkeys((1184, 1203, 1205, 1213, 1226, 1290, 1836, 1927, 3101, 3169, 3572, 4031), Failure.TRANSIENT),
    # Numbers from 2000 are the client's: no connection could be made, or it was lost.
    **dict.fromkeys((2002, 2003, 2005, 2006, 2012, 2013, 2055), Failure.TRANSIENT),
    **dict.fromkeys((1048, 1062, 1153, 1169, 1216, 1217, 1264, 1265, 1292, 1364, 1366), Failure.DATA),
    **dict.fromkeys((1406, 1411, 1416, 1441, 1451, 1452, 1525, 1557, 1586, 1690, 3140, 3156, 3157, 3819), Failure.DATA),
    # 1044, 1045, 1049, 1142, 1143, 1227, 1698: not allowed in. 1236: the binlog that is asked for was purged.
    **dict.fromkeys((1044, 1045, 1049, 1142, 1143, 1227, 1236, 1370, 1698, 2014, 2054, 2059, 2061), Failure.FATAL),
    **dict.fromkeys((1054, 1064, 1136, 1146, 1193, 1231, 1235, 1305), Failure.FATAL),
}
_MYSQL_CLASSES = {
    "DataError": Failure.DATA,
    "IntegrityError": Failure.DATA,
    "ProgrammingError": Failure.FATAL,
    "NotSupportedError": Failure.FATAL,
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KAFKA_TRANSIENT = _names(
    """
    _TRANSPORT _ALL_BROKERS_DOWN _TIMED_OUT _MSG_TIMED_OUT _TIMED_OUT_QUEUE _RESOLVE _WAIT_COORD _WAIT_CACHE
    _QUEUE_FULL _ISR_INSUFF _IN_PROGRESS _PREV_IN_PROGRESS _INTR _RETRY _UNKNOWN_BROKER _DESTROY_BROKER INVALID_MSG
    UNKNOWN_TOPIC_OR_PART LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION REQUEST_TIMED_OUT BROKER_NOT_AVAILABLE
    REPLICA_NOT_AVAILABLE NETWORK_EXCEPTION COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR
    NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND REBALANCE_IN_PROGRESS NOT_CONTROLLER
    CONCURRENT_TRANSACTIONS KAFKA_STORAGE_ERROR FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH
    LISTENER_NOT_FOUND FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH OFFSET_NOT_AVAILABLE PREFERRED_LEADER_NOT_AVAILABLE
    ELIGIBLE_LEADERS_NOT_AVAILABLE UNSTABLE_OFFSET_COMMIT THROTTLING_QUOTA_EXCEEDED UNKNOWN_TOPIC_ID
    INCONSISTENT_TOPIC_ID REBOOTSTRAP_REQUIRED TRANSACTION_ABORTABLE
    """
)
_KAFKA_DATA = _names(
    """
    _BAD_MSG _BAD_COMPRESSION _KEY_SERIALIZATION _VALUE_SERIALIZATION _KEY_DESERIALIZATION _VALUE_DESERIALIZATION
    _UNDERFLOW _INVALID_DIFFERENT_RECORD INVALID_MSG_SIZE MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE INVALID_TIMESTAMP
    INVALID_RECORD
    """
)
_KAFKA_FATAL = _names(
    """
    _FATAL _FENCED _AUTHENTICATION _SSL _INVALID_ARG _NOT_IMPLEMENTED _UNSUPPORTED_FEATURE _NOT_CONFIGURED
    _INCONSISTENT _GAPLESS_GUARANTEE _AUTO_OFFSET_RESET _LOG_TRUNCATION _UNKNOWN_PROTOCOL OFFSET_OUT_OF_RANGE
    TOPIC_EXCEPTION TOPIC_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED SASL_AUTHENTICATION_FAILED UNSUPPORTED_SASL_MECHANISM ILLEGAL_SASL_STATE
    SECURITY_DISABLED UNSUPPORTED_VERSION UNSUPPORTED_FOR_MESSAGE_FORMAT INVALID_CONFIG INVALID_REQUEST
    INVALID_PARTITIONS INVALID_REPLICATION_FACTOR INVALID_GROUP_ID INVALID_SESSION_TIMEOUT
    INVALID_TRANSACTION_TIMEOUT INVALID_REQUIRED_ACKS POLICY_VIOLATION INVALID_PRODUCER_EPOCH PRODUCER_FENCED
    TRANSACTION_COORDINATOR_FENCED FENCED_INSTANCE_ID GROUP_MAX_SIZE_REACHED
    """
)

# 408 timeout, 409 conflict (Kafka Connect: a rebalance is going on), 425 too early, 429 too many requests.
_HTTP_TRANSIENT = frozenset({408, 409, 425, 429})

_ERRNO = {
    **dict.fromkeys((errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EROFS), Failure.FATAL),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.ENOEXEC, errno.EAFNOSUPPORT), Failure.FATAL),
    **dict.fromkeys((errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.EMFILE), Failure.TRANSIENT),
    **dict.fromkeys((errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS), Failure.TRANSIENT),
    **dict.fromkeys((errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH), Failure.TRANSIENT),
    **dict.fromkeys((errno.ENETRESET, errno.ENOTCONN, errno.EADDRNOTAVAIL, errno.ESTALE), Failure.TRANSIENT),
}

_OURS_TRANSIENT = (StreamLost, SlotInUse)
_OURS_FATAL = (
    SettingsError, MissingTool, NotOurs, UnusableState, ProtocolError, UnknownParameter, Fenced, CheckpointBehind,
    RecordingError, CannotCapture, SlotUnusable, LogPurged,
)  # fmt: skip
_CAUSES_FOLLOWED = 8


def _is_a(error: object, module: str, name: str) -> bool:
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(error, found)


def _kafka_error(error: object) -> Any:
    if _is_a(error, "confluent_kafka", "KafkaError"):
        return error
    if _is_a(error, "confluent_kafka", "KafkaException") and isinstance(error, BaseException):
        first = error.args[0] if error.args else None
        return first if _is_a(first, "confluent_kafka", "KafkaError") else None
    return None


def _of_sqlstate(sqlstate: str) -> Failure:
    return _SQLSTATES.get(sqlstate) or _SQLSTATE_CLASSES.get(sqlstate[:2], Failure.UNKNOWN)


def _of_psycopg(error: Any) -> Failure:
    if sqlstate := error.sqlstate:
        return _of_sqlstate(sqlstate)
    if _is_a(error, "psycopg.errors", "PipelineAborted"):
        return Failure.UNKNOWN  # an echo: the error that aborted the pipeline came before it
    if _is_a(error, "psycopg", "OperationalError"):
        text = str(error)
        several_hosts = text.startswith("Multiple connection attempts failed")
        refused = not several_hosts and any(fragment in text for fragment in _LOGIN_REFUSED)
        return Failure.FATAL if refused else Failure.TRANSIENT
    if _is_a(error, "psycopg", "DataError") or _is_a(error, "psycopg", "IntegrityError"):
        return Failure.DATA  # found by psycopg itself before anything was sent, e.g. a NUL in a text
    if _is_a(error, "psycopg", "InternalError"):
        return Failure.UNKNOWN
    return Failure.FATAL  # InterfaceError, ProgrammingError, NotSupportedError: the call itself is wrong


def _of_pymysql(error: BaseException) -> Failure:
    number = error.args[0] if error.args else None
    if isinstance(number, int) and (known := _MYSQL.get(number)):
        return known
    for base in type(error).__mro__:
        if known := _MYSQL_CLASSES.get(base.__name__):
            return known
    # pymysql raises OperationalError for every number that it does not know, so the class says nothing.
    return Failure.UNKNOWN


def _of_kafka(error: Any) -> Failure:
    if error.fatal():
        return Failure.FATAL
    # An abortable transaction can be done again from its beginning; `must_abort` tells the two apart.
    if error.retriable() or error.txn_requires_abort():
        return Failure.TRANSIENT
    name = error.name()
    for names, failure in (
        (_KAFKA_TRANSIENT, Failure.TRANSIENT),
        (_KAFKA_DATA, Failure.DATA),
        (_KAFKA_FATAL, Failure.FATAL),
    ):
        if name in names:
            return failure
    return Failure.UNKNOWN


def _of_httpx(error: Any) -> Failure | None:
    if _is_a(error, "httpx", "HTTPStatusError"):
        status = error.response.status_code
        return Failure.TRANSIENT if status >= 500 or status in _HTTP_TRANSIENT else Failure.FATAL
    if _is_a(error, "httpx", "UnsupportedProtocol") or _is_a(error, "httpx", "LocalProtocolError"):
        return Failure.FATAL
    if _is_a(error, "httpx", "TransportError"):
        return Failure.TRANSIENT
    if _is_a(error, "httpx", "DecodingError"):
        return Failure.DATA
    if any(_is_a(error, "httpx", name) for name in ("TooManyRedirects", "InvalidURL", "StreamError")):
        return Failure.FATAL
    return None


def _of_os(error: OSError) -> Failure:
    if _is_a(error, "ssl", "SSLCertVerificationError"):
        return Failure.FATAL
    if isinstance(error, (ConnectionError, TimeoutError, BlockingIOError, InterruptedError)):
        return Failure.TRANSIENT
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return Failure.FATAL  # by class, because one that was raised by hand has no errno
    if _is_a(error, "socket", "gaierror"):  # its errno is a number of getaddrinfo's own
        return Failure.TRANSIENT if error.errno == sys.modules["socket"].EAI_AGAIN else Failure.UNKNOWN
    return _ERRNO.get(error.errno or 0, Failure.UNKNOWN)


def classify(error: object) -> Failure:
    """Decide what a failure asks for.

    Parameters
    ----------
    error : BaseException or confluent_kafka.KafkaError
        Kafka's callbacks hand over a `KafkaError`, which is no exception.

    Returns
    -------
    Failure
        For an error of this package that is not of a known kind, that of its `__cause__`.
        `Failure.FATAL` for what is no `Exception` (an interrupt, an exit). A handler's own
        exception (`KeyError`, ...) is `Failure.UNKNOWN`.

    Notes
    -----
    Pure; any number of threads may call it.
    """
    for _ in range(_CAUSES_FOLLOWED):
        if isinstance(error, RetriesExhausted):
            if getattr(error, "reason", "") == "stopped":
                return Failure.FATAL
        elif isinstance(error, _OURS_TRANSIENT):
            return Failure.TRANSIENT
        elif isinstance(error, _OURS_FATAL):
            return Failure.FATAL
        if not isinstance(error, StreamlabError) or error.__cause__ is None:
            break
        error = error.__cause__
    return _of_one(error)


def _of_one(error: object) -> Failure:
    kafka = _kafka_error(error)
    if kafka is not None:
        return _of_kafka(kafka)
    if not isinstance(error, Exception):
        return Failure.FATAL
    if isinstance(error, DownloadError):
        return Failure.TRANSIENT
    if _is_a(error, "psycopg", "Error"):
        return _of_psycopg(error)
    if _is_a(error, "pymysql.err", "MySQLError"):
        return _of_pymysql(error)
    if (known := _of_httpx(error)) is not None:
        return known
    if isinstance(error, OSError):
        return _of_os(error)
    if isinstance(error, UnicodeError) or _is_a(error, "json", "JSONDecodeError"):
        return Failure.DATA
    return Failure.UNKNOWN


def error_code(error: object) -> str | None:
    """The code that a server gave for an error, for a log, a label or a dead letter.

    Returns
    -------
    str or None
        SQLSTATE (``"23505"``), MySQL's number (``"1062"``), Kafka's name (``"_TIMED_OUT"``), the
        HTTP status (``"409"``) or the errno's name (``"ECONNREFUSED"``); None where there is none.
        An error of this package without a code answers with that of its `__cause__`.
    """
    for _ in range(_CAUSES_FOLLOWED):
        if not isinstance(error, StreamlabError) or error.__cause__ is None:
            break
        error = error.__cause__
    kafka = _kafka_error(error)
    if kafka is not None:
        return str(kafka.name())
    if _is_a(error, "psycopg", "Error"):
        return getattr(error, "sqlstate", None)
    if _is_a(error, "pymysql.err", "MySQLError") and isinstance(error, BaseException):
        number = error.args[0] if error.args else None
        return str(number) if isinstance(number, int) else None
    if _is_a(error, "httpx", "HTTPStatusError"):
        response: Any = getattr(error, "response", None)
        return str(response.status_code)
    if isinstance(error, OSError) and error.errno and not _is_a(error, "socket", "gaierror"):
        return errno.errorcode.get(error.errno)
    return None


def must_abort(error: object) -> bool:
    """Whether a Kafka producer has to abort its transaction, and seek back, before it tries again."""
    kafka = _kafka_error(error)
    return kafka is not None and bool(kafka.txn_requires_abort())
