"""The connection below a reader of the binary log: a replica's, made by PyMySQL, whose socket is then read directly.

A reader says who it is (COM_REGISTER_REPLICA), which transactions it has (COM_BINLOG_DUMP_GTID), and from then on only
reads: there is nothing to confirm. The server sends a heartbeat when nothing else comes, so silence means a connection
that is lost. A server that gets a second replica with the same UUID ends the first one, which is how a reader gets rid
of its own former connection where the server has not noticed its end.

The socket is left to fill for a moment when data flows, and is then read until it is empty: one wake-up for many
events.

Source: MySQL's manual for developers, "COM_BINLOG_DUMP_GTID", "COM_REGISTER_SLAVE"; `sql/rpl_binlog_sender.cc`.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import struct
import time
from typing import Any, Final

import pymysql
from pymysql.constants import COMMAND

from streamlab.cdc.binlog.packets import Packets
from streamlab.cdc.binlog.position import GTIDSet
from streamlab.cdc.binlog.refusals import ended, refused
from streamlab.errors import StreamLost
from streamlab.settings import MySQLAddress
from streamlab.sql import load

__all__ = ["BinlogStream", "connect"]

_COM_BINLOG_DUMP_GTID: Final = 0x1E
_THROUGH_GTID: Final = 0x04
_BINLOG_BEGIN: Final = 4
_CHUNK: Final = 1 << 18
_MOST: Final = 1 << 20
"""Bytes that are taken at once; more is left with the server, which waits."""
_FILL: Final = 0.0003
_CONNECT_LIMIT: Final = 10
_ANSWER_LIMIT: Final = 60


def connect(address: MySQLAddress, **options: Any) -> pymysql.Connection[Any]:
    """An ordinary connection, in UTC.

    Raises
    ------
    ChangeStreamError
        It was refused, or the server cannot be reached.
    """
    limits = {"connect_timeout": _CONNECT_LIMIT, "read_timeout": _ANSWER_LIMIT, "write_timeout": _ANSWER_LIMIT}
    arguments = {**limits, **address.arguments(database=""), "autocommit": True, **options}
    # In two steps, so that an interrupt in the second finds something to close.
    connection = pymysql.Connection(**arguments, defer_connect=True)
    try:
        connection.connect()
        with connection.cursor() as cursor:
            cursor.execute(load("mysql_capture")["session"])
    except BaseException as error:
        connection._force_close()  # type: ignore[attr-defined]
        if isinstance(error, pymysql.Error):
            raise refused(error, "The connection") from error
        raise
    return connection


class BinlogStream:
    """One connection that sends the binary log. Used by one thread; `close` may be called from any.

    Parameters
    ----------
    address : MySQLAddress
        As a role with REPLICATION SLAVE.
    server_id : int
        Of this reader: one that no server and no other replica has.
    uuid : str
        Of this reader.
    heartbeat : float
        Seconds without an event after which the server gives a sign of life; three times as long a silence means that
        the connection is lost.
    """

    def __init__(self, address: MySQLAddress, *, server_id: int, uuid: str, heartbeat: float) -> None:
        self.received_bytes = 0
        self._server_id, self._uuid, self._heartbeat = server_id, uuid, heartbeat
        self._connection = connect(address)
        self._socket: Any = None
        self._packets = Packets()
        self._heard = 0.0
        self._full = False

    def start(self, gtids: GTIDSet) -> None:
        """Have everything sent that is not in a set.

        Raises
        ------
        ChangeStreamError
            The server refuses.
        """
        connection: Any = self._connection
        sql = load("mysql_capture")
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql["replica"], {"heartbeat": int(self._heartbeat * 1e9), "uuid": self._uuid})
            who = struct.pack("<I", self._server_id) + b"\0\0\0" + struct.pack("<HII", 0, 0, 0)
            connection._execute_command(COMMAND.COM_REGISTER_SLAVE, who)
            connection._read_packet()
            known = gtids.encode()
            asked = struct.pack("<HIIQI", _THROUGH_GTID, self._server_id, 0, _BINLOG_BEGIN, len(known)) + known
            connection._execute_command(_COM_BINLOG_DUMP_GTID, asked)
        except (pymysql.Error, OSError) as error:
            raise refused(error, "The stream") from error
        # Nothing has come yet that PyMySQL could have read ahead: the first packet answers the last command.
        self._socket = connection._sock
        self._socket.settimeout(0)
        self._heard = time.monotonic()

    def wait(self, timeout: float) -> bool:
        """Whether there is something to read, after so many seconds at most.

        Raises
        ------
        StreamLost
            The server has been silent for too long, or the connection was closed.
        """
        socket = self._socket
        if socket is None:
            raise StreamLost("The connection is closed.", "The connection is made again.")
        if self._full or (isinstance(socket, ssl.SSLSocket) and socket.pending()):
            return True
        try:
            readable = select.select([socket], [], [], timeout)[0]
        except (OSError, ValueError) as error:
            raise StreamLost("The connection is closed.", "The connection is made again.") from error
        if readable:
            return True
        silent = time.monotonic() - self._heard
        if silent > 3 * self._heartbeat + 5:
            raise StreamLost(f"The server has been silent for {silent:.0f} s.", "The connection is made again.")
        return False

    def drain(self) -> list[bytes]:
        """All events that are there, after a moment in which more may come.

        Raises
        ------
        StreamLost
            The connection broke.
        ChangeStreamError
            The server ends the stream, and says why.
        """
        socket = self._socket
        if socket is None:
            raise StreamLost("The connection is closed.", "The connection is made again.")
        parts: list[bytes] = []
        size, over, waited = 0, False, False
        while size < _MOST:
            try:
                data = socket.recv(_CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                if waited or size < 4096:
                    break
                # Data flows: what comes in a moment is read with it.
                waited = True
                time.sleep(_FILL)
                continue
            except OSError as error:
                raise StreamLost(f"The connection broke: {error}.", "The connection is made again.") from error
            if not data:
                over = True
                break
            parts.append(data)
            size += len(data)
        self._full = size >= _MOST
        self.received_bytes += size
        found = self._packets.feed(b"".join(parts))
        if found:
            self._heard = time.monotonic()
            last = found[-1]
            if last[:1] == b"\xff":
                self._fail(last)
            if last[:1] == b"\xfe" and len(last) < 9:
                raise StreamLost("The server ended the stream.", "The connection is made again.")
        if over and not found:
            raise StreamLost("The server closed the connection.", "The connection is made again.")
        return found

    def _fail(self, packet: bytes) -> None:
        number = int.from_bytes(packet[1:3], "little")
        text = packet[9:] if packet[3:4] == b"#" else packet[3:]
        raise ended(number, text.decode("utf-8", "replace"))

    def acknowledged(self) -> None:
        """There is nothing to tell the server: it keeps its log by time, not by reader."""

    def feedback(self, *, reply: bool = False) -> None:
        """There is no way to ask on this connection; `passed` of the bookkeeping needs no answer."""

    def close(self, *, graceful: bool = True) -> None:
        """End the connection. Idempotent."""
        socket, self._socket = self._socket, None
        with contextlib.suppress(Exception):
            if socket is None:
                self._connection.close()
            else:
                # A server that is sending hears no farewell.
                self._connection._force_close()  # type: ignore[attr-defined]
