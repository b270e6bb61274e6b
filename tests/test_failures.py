"""Failures are classified by what the server said, and no library is imported to find out."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import subprocess
import sys
from typing import Any

import confluent_kafka
import httpx
import psycopg
import pymysql
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, reject
from hypothesis import strategies as st
from psycopg import errors as pg

from streamlab import errors, failures
from streamlab.failures import Failure, classify, error_code, must_abort

TRANSIENT, DATA, FATAL, UNKNOWN = Failure


def caused(error: errors.StreamlabError, cause: BaseException) -> errors.StreamlabError:
    error.__cause__ = cause
    return error


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1/")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("08006", TRANSIENT),
        ("08P01", TRANSIENT),
        ("40001", TRANSIENT),
        ("40P01", TRANSIENT),
        ("53100", TRANSIENT),
        ("53300", TRANSIENT),
        ("57P01", TRANSIENT),
        ("57P02", TRANSIENT),
        ("57P03", TRANSIENT),
        ("57P05", TRANSIENT),
        ("55006", TRANSIENT),
        ("55P03", TRANSIENT),
        ("25006", TRANSIENT),
        ("25P03", TRANSIENT),
        ("22001", DATA),
        ("22P02", DATA),
        ("23502", DATA),
        ("23505", DATA),
        ("21000", DATA),
        ("44000", DATA),
        ("54000", DATA),
        ("28000", FATAL),
        ("28P01", FATAL),
        ("42601", FATAL),
        ("42P01", FATAL),
        ("42501", FATAL),
        ("3D000", FATAL),
        ("3F000", FATAL),
        ("0A000", FATAL),
        ("25P02", FATAL),
        ("55000", FATAL),
        ("57P04", FATAL),
        ("58P01", FATAL),
        ("XX001", FATAL),
        ("57014", UNKNOWN),
        ("58030", UNKNOWN),
        ("P0001", UNKNOWN),
        ("XX000", UNKNOWN),
    ],
)
def test_postgresql_by_sqlstate(sqlstate: str, expected: Failure) -> None:
    error = pg.lookup(sqlstate)("text that says nothing")
    assert classify(error) is expected
    assert error_code(error) == sqlstate


def test_every_sqlstate_of_psycopg_has_an_answer_and_classes_agree_with_its_exceptions() -> None:
    kinds = [one for one in vars(pg).values() if isinstance(one, type) and issubclass(one, psycopg.Error)]
    known = {one.sqlstate: one for one in kinds if one.sqlstate is not None}
    assert len(known) > 200
    for sqlstate, kind in known.items():
        answer = classify(kind("x"))
        if issubclass(kind, (psycopg.DataError, psycopg.IntegrityError)) and sqlstate[:2] in {"22", "23"}:
            assert answer is DATA, sqlstate
        if issubclass(kind, psycopg.ProgrammingError) and sqlstate[:2] == "42":
            assert answer is FATAL, sqlstate


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"), TRANSIENT),
        (psycopg.OperationalError("connection failed: Connection refused"), TRANSIENT),
        (psycopg.OperationalError("connection failed: FATAL:  the database system is starting up"), TRANSIENT),
        (psycopg.errors.ConnectionTimeout("connection timeout expired"), TRANSIENT),
        (psycopg.OperationalError('connection failed: FATAL:  password authentication failed for user "a"'), FATAL),
        (psycopg.OperationalError('connection failed: FATAL:  database "nope" does not exist'), FATAL),
        (psycopg.OperationalError('connection failed: FATAL:  role "nope" does not exist'), FATAL),
        (
            psycopg.OperationalError(
                'Multiple connection attempts failed. All failures were:\n- a: refused\n- b: role "x" does not exist'
            ),
            TRANSIENT,
        ),
        (psycopg.errors.PipelineAborted("pipeline aborted"), UNKNOWN),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), DATA),
        (psycopg.InterfaceError("the cursor is closed"), FATAL),
        (psycopg.ProgrammingError("cannot adapt type"), FATAL),
        (psycopg.NotSupportedError("no"), FATAL),
        (psycopg.InternalError("no"), UNKNOWN),
    ],
)
def test_postgresql_without_sqlstate(error: psycopg.Error, expected: Failure) -> None:
    assert classify(error) is expected
    assert error_code(error) is None


def test_psycopgs_own_refusals() -> None:
    """No server is needed for these: psycopg raises them itself."""
    with pytest.raises(psycopg.DataError) as caught:
        psycopg.adapt.Transformer().get_dumper("a\0b", psycopg.adapt.PyFormat.TEXT).dump("a\0b")
    assert classify(caught.value) is DATA
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(host="127.0.0.1", port=held.getsockname()[1], connect_timeout=5)
    assert classify(refused.value) is TRANSIENT


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1040, TRANSIENT),
        (1053, TRANSIENT),
        (1205, TRANSIENT),
        (1213, TRANSIENT),
        (1290, TRANSIENT),
        (2003, TRANSIENT),
        (2006, TRANSIENT),
        (2013, TRANSIENT),
        (3572, TRANSIENT),
        (4031, TRANSIENT),
        (1048, DATA),
        (1062, DATA),
        (1264, DATA),
        (1292, DATA),
        (1366, DATA),
        (1406, DATA),
        (1452, DATA),
        (3140, DATA),
        (3819, DATA),
        (1044, FATAL),
        (1045, FATAL),
        (1049, FATAL),
        (1054, FATAL),
        (1064, FATAL),
        (1142, FATAL),
        (1146, FATAL),
        (1236, FATAL),
        (1317, UNKNOWN),
        (3024, UNKNOWN),
    ],
)
def test_mysql_by_number(number: int, expected: Failure) -> None:
    kind = pymysql.err.error_map.get(number, pymysql.err.OperationalError)
    error = kind(number, "text that says nothing")
    assert classify(error) is expected
    assert error_code(error) == str(number)


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (pymysql.err.InterfaceError(0, ""), TRANSIENT, "0"),
        (pymysql.err.DataError(1111111, "unheard of"), DATA, "1111111"),
        (pymysql.err.ProgrammingError("no number"), FATAL, None),
        (pymysql.err.OperationalError(), UNKNOWN, None),
        (pymysql.err.InternalError("Packet sequence number wrong"), UNKNOWN, None),
    ],
)
def test_mysql_without_a_known_number(error: Exception, expected: Failure, code: str | None) -> None:
    assert classify(error) is expected
    assert error_code(error) == code


def test_mysql_that_is_not_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(pymysql.err.OperationalError) as refused:
            pymysql.connect(host="127.0.0.1", port=held.getsockname()[1], connect_timeout=5)
    assert classify(refused.value) is TRANSIENT
    assert error_code(refused.value) == "2003"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._TRANSPORT, TRANSIENT),
        (KafkaError._ALL_BROKERS_DOWN, TRANSIENT),
        (KafkaError._TIMED_OUT, TRANSIENT),
        (KafkaError._QUEUE_FULL, TRANSIENT),
        (KafkaError.LEADER_NOT_AVAILABLE, TRANSIENT),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TRANSIENT),
        (KafkaError.REBALANCE_IN_PROGRESS, TRANSIENT),
        (KafkaError._VALUE_DESERIALIZATION, DATA),
        (KafkaError.MSG_SIZE_TOO_LARGE, DATA),
        (KafkaError.INVALID_RECORD, DATA),
        (KafkaError._FENCED, FATAL),
        (KafkaError._AUTHENTICATION, FATAL),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, FATAL),
        (KafkaError.PRODUCER_FENCED, FATAL),
        (KafkaError.INVALID_PRODUCER_EPOCH, FATAL),
        (KafkaError.UNKNOWN_MEMBER_ID, UNKNOWN),
        (KafkaError.UNKNOWN, UNKNOWN),
    ],
)
def test_kafka_by_code(code: int, expected: Failure) -> None:
    error = KafkaError(code)
    assert classify(error) is expected, "as callbacks hand it over"
    assert classify(KafkaException(error)) is expected, "as calls raise it"
    assert error_code(KafkaException(error)) == error.name() == error_code(error)


def test_kafka_says_itself_what_to_do() -> None:
    assert classify(KafkaException(KafkaError(KafkaError.UNKNOWN, "x", fatal=True))) is FATAL
    assert classify(KafkaException(KafkaError(KafkaError.UNKNOWN, "x", retriable=True))) is TRANSIENT
    abort = KafkaException(KafkaError(KafkaError.UNKNOWN, "x", txn_requires_abort=True))
    assert classify(abort) is TRANSIENT
    assert must_abort(abort)
    assert classify(KafkaException(KafkaError(KafkaError._TRANSPORT, "x", fatal=True))) is FATAL
    assert not must_abort(KafkaException(KafkaError(KafkaError._TRANSPORT)))
    assert not must_abort(ValueError())
    assert classify(KafkaException()) is UNKNOWN
    assert classify(KafkaException("text")) is UNKNOWN


def test_every_name_in_the_tables_of_kafka_exists_and_stands_in_one_of_them() -> None:
    names = {name for name in dir(KafkaError) if isinstance(getattr(KafkaError, name), int) and name.upper() == name}
    tables = [failures._KAFKA_TRANSIENT, failures._KAFKA_DATA, failures._KAFKA_FATAL]
    for number, table in enumerate(tables):
        assert table <= names
        for other in tables[number + 1 :]:
            assert not table & other


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("x"), TRANSIENT),
        (httpx.ConnectTimeout("x"), TRANSIENT),
        (httpx.ReadTimeout("x"), TRANSIENT),
        (httpx.PoolTimeout("x"), TRANSIENT),
        (httpx.RemoteProtocolError("x"), TRANSIENT),
        (httpx.LocalProtocolError("x"), FATAL),
        (httpx.UnsupportedProtocol("x"), FATAL),
        (httpx.InvalidURL("x"), FATAL),
        (httpx.TooManyRedirects("x"), FATAL),
        (httpx.DecodingError("x"), DATA),
        (status(500), TRANSIENT),
        (status(503), TRANSIENT),
        (status(408), TRANSIENT),
        (status(409), TRANSIENT),
        (status(429), TRANSIENT),
        (status(400), FATAL),
        (status(401), FATAL),
        (status(404), FATAL),
        (status(422), FATAL),
    ],
)
def test_http(error: Exception, expected: Failure) -> None:
    assert classify(error) is expected
    if isinstance(error, httpx.HTTPStatusError):
        assert error_code(error) == str(error.response.status_code)


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), TRANSIENT, "ECONNREFUSED"),
        (ConnectionResetError("by hand"), TRANSIENT, None),
        (BrokenPipeError(errno.EPIPE, "x"), TRANSIENT, "EPIPE"),
        (TimeoutError("x"), TRANSIENT, None),
        (BlockingIOError("x"), TRANSIENT, None),
        (OSError(errno.EHOSTUNREACH, "x"), TRANSIENT, "EHOSTUNREACH"),
        (OSError(errno.ENOSPC, "x"), TRANSIENT, "ENOSPC"),
        (OSError(errno.EMFILE, "x"), TRANSIENT, "EMFILE"),
        (FileNotFoundError(errno.ENOENT, "x"), FATAL, "ENOENT"),
        (PermissionError("by hand"), FATAL, None),
        (OSError(errno.EROFS, "x"), FATAL, "EROFS"),
        (OSError(errno.EIO, "x"), UNKNOWN, "EIO"),
        (OSError("without a number"), UNKNOWN, None),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), TRANSIENT, None),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), UNKNOWN, None),
        (ssl.SSLCertVerificationError("x"), FATAL, None),
    ],
)
def test_the_operating_system(error: OSError, expected: Failure, code: str | None) -> None:
    assert classify(error) is expected
    assert error_code(error) == code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), DATA),
        (json.JSONDecodeError("x", "{", 1), DATA),
        (ValueError("x"), UNKNOWN),
        (KeyError("x"), UNKNOWN),
        (MemoryError(), UNKNOWN),
        (KeyboardInterrupt(), FATAL),
        (SystemExit(1), FATAL),
        (GeneratorExit(), FATAL),
        (None, FATAL),
    ],
)
def test_what_no_library_raised(error: object, expected: Failure) -> None:
    assert classify(error) is expected
    assert error_code(error) is None
    assert not must_abort(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.SettingsError("x"), FATAL),
        (errors.NotRunning("x"), FATAL),
        (errors.NotOurs("x"), FATAL),
        (errors.MissingTool("x"), FATAL),
        (errors.ProtocolError("x"), FATAL),
        (errors.Fenced("x"), FATAL),
        (errors.CheckpointBehind("x"), FATAL),
        (errors.RecordingError("x"), FATAL),
        (caused(errors.CheckpointBusy("x"), pg.LockNotAvailable("x")), TRANSIENT),
        (errors.DownloadError("x"), TRANSIENT),
        (errors.StreamlabError("x"), UNKNOWN),
        (caused(errors.ChangeStreamError("x"), pg.AdminShutdown("x")), TRANSIENT),
        (caused(errors.ChangeStreamError("x"), pg.UniqueViolation("x")), DATA),
        (caused(errors.SettingsError("x"), ConnectionResetError()), FATAL),
        (caused(errors.RetriesExhausted("x"), caused(errors.ChangeStreamError("y"), pg.AdminShutdown("z"))), TRANSIENT),
        (caused(ValueError("x"), pg.AdminShutdown("x")), UNKNOWN),  # type: ignore[arg-type]
    ],
)
def test_our_own_errors_by_their_kind_else_by_their_cause(error: BaseException, expected: Failure) -> None:
    assert classify(error) is expected


def test_the_code_of_the_cause_is_that_of_the_error() -> None:
    assert error_code(caused(errors.ChangeStreamError("x"), pg.AdminShutdown("x"))) == "57P01"


def test_a_ring_of_causes_ends() -> None:
    first, second = errors.StreamlabError("a"), errors.StreamlabError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) is UNKNOWN
    assert error_code(first) is None


def _raised_by(*rooms: str) -> list[type[BaseException]]:
    found: list[type[BaseException]] = []

    def collect(kind: type[BaseException]) -> None:
        if kind.__module__.partition(".")[0] in rooms and kind not in found:
            found.append(kind)
        for deeper in kind.__subclasses__():
            collect(deeper)

    collect(BaseException)
    return found


@given(
    st.sampled_from(
        _raised_by("builtins", "psycopg", "pymysql", "cimpl", "httpx", "socket", "ssl", "json", "streamlab")
    ),
    st.lists(st.none() | st.integers() | st.text() | st.binary(), max_size=3),
)
def test_any_exception_gets_an_answer(kind: type[BaseException], args: list[Any]) -> None:
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 - whatever its constructor makes of these
        reject()  # no such exception can exist
    assert isinstance(classify(error), Failure)
    assert isinstance(error_code(error), (str, type(None)))
    assert must_abort(error) is False


def test_no_library_is_imported_to_classify() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from streamlab.failures import classify, error_code, must_abort\n"
        "for e in (ValueError(), OSError(28, 'x'), ConnectionResetError(), KeyboardInterrupt()):\n"
        "    classify(e); error_code(e); must_abort(e)\n"
        "heavy = {'psycopg', 'pymysql', 'confluent_kafka', 'httpx', 'ssl', 'socket', 'prometheus_client', 'tenacity'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_the_drivers_are_those_that_are_installed() -> None:
    """The names that are looked up in `sys.modules` exist in the libraries, or nothing would ever match."""
    import re
    from pathlib import Path

    source = Path(failures.__file__).read_text(encoding="utf-8")
    modules = {"confluent_kafka": confluent_kafka, "psycopg": psycopg, "psycopg.errors": pg, "pymysql.err": pymysql.err}
    modules |= {"httpx": httpx, "ssl": ssl, "socket": socket, "json": json}
    looked_up = re.findall(r'_is_a\(\w+, "([\w.]+)", "(\w+)"\)', source)
    assert len(looked_up) > 12
    for module, name in looked_up:
        assert isinstance(getattr(modules[module], name), type), (module, name)
