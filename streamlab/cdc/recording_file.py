"""The file of a recording: its layout, and how blocks are packed and read. `streamlab.cdc.recording` uses it.

All numbers are big-endian::

    magic      8 bytes    93 53 4C 52 45 43 0D 0A: a high bit and a line end, as PNG has, show a mangled copy
    version    u16        1
    blocks     each: kind u8, length u32, CRC-32 of the body u32, CRC-32 of these nine bytes u32, body
                 H        JSON: what was recorded (`About`); the first block
                 T        JSON: types that users made, as they became known
                 D        messages: the next piece of one deflate stream (RFC 1951), ended by a sync flush
                 L        empty: the connection was lost and made again; what had not ended comes again, whole, and
                          what had ended may
                 E        JSON: how many messages, and where the log ended; the last block, if the recorder was closed
    messages   count u32, length of each u32, microseconds since the start of each u64, and the messages

A file that was cut, because its writer was killed, is read up to the last whole block. Anything else that does not fit
its checksum is damage, and is said.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from streamlab.cdc.position import LSN
from streamlab.errors import RecordingError

__all__ = ["About", "Chunk", "block", "blocks", "damaged", "opened", "pack", "start", "to_json", "unpack"]

MAGIC = b"\x93SLREC\r\n"
VERSION = 1
_START = struct.Struct("!8sH")
_HEAD = struct.Struct("!cII")
_NUMBER = struct.Struct("!I")
_HEAD_SIZE = _HEAD.size + _NUMBER.size


@dataclass(frozen=True, slots=True)
class About:
    """What was recorded, and what a decoder has to know to read it.

    Attributes
    ----------
    server : str
        The server's version, such as ``18.4``.
    protocol : int
        The version of pgoutput's protocol that the stream was asked for.
    binary : bool
        Whether it was asked for binary values.
    publications : tuple of str
        Whose changes these are.
    start : LSN
        Where the stream began.
    primary_keys : mapping of int to tuple of str
        OID of a table -> its primary key, where the stream does not tell it.
    note : str
        Whatever else is worth knowing.
    recorded_at : datetime
        When the recording began, aware, in UTC.
    """

    server: str
    protocol: int = 1
    binary: bool = False
    publications: tuple[str, ...] = ()
    start: LSN = LSN(0)  # noqa: RUF009 - immutable
    primary_keys: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""
    recorded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_json(self) -> dict[str, Any]:
        """As a value of JSON."""
        return {
            "server": self.server,
            "protocol": self.protocol,
            "binary": self.binary,
            "publications": list(self.publications),
            "start": str(self.start),
            "primary_keys": {str(oid): list(names) for oid, names in self.primary_keys.items()},
            "note": self.note,
            "recorded_at": self.recorded_at.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> About:
        """Read back; names that are not known are left out."""
        return cls(
            server=str(value["server"]),
            protocol=int(value["protocol"]),
            binary=bool(value["binary"]),
            publications=tuple(value["publications"]),
            start=LSN.parse(value["start"]),
            primary_keys={int(oid): tuple(names) for oid, names in value["primary_keys"].items()},
            note=str(value["note"]),
            recorded_at=datetime.fromisoformat(value["recorded_at"]),
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages that arrived together, `seconds` after the recording began.

    `again` says that there are none, because the connection was made again here: a decoder has to forget what is open.
    """

    seconds: float
    messages: list[bytes]
    again: bool = False


def start() -> bytes:
    """How every file begins."""
    return _START.pack(MAGIC, VERSION)


def block(kind: bytes, body: bytes) -> bytes:
    """One block."""
    head = _HEAD.pack(kind, len(body), zlib.crc32(body))
    return head + _NUMBER.pack(zlib.crc32(head)) + body


def to_json(value: Any) -> bytes:
    """The body of a block that is JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def pack(messages: Sequence[bytes], times: Sequence[int]) -> bytes:
    """Messages and their times in microseconds, as one text to be deflated."""
    count = len(messages)
    return b"".join(
        (
            _NUMBER.pack(count),
            struct.pack(f"!{count}I", *map(len, messages)),
            struct.pack(f"!{count}Q", *times),
            *messages,
        )
    )


def unpack(data: bytes) -> list[Chunk]:
    """The contrary of `pack`, in groups of the same time.

    Raises
    ------
    ValueError, struct.error
        It is not what `pack` makes.
    """
    (count,) = _NUMBER.unpack_from(data)
    lengths = struct.unpack_from(f"!{count}I", data, 4)
    times = struct.unpack_from(f"!{count}Q", data, 4 + 4 * count)
    at = 4 + 12 * count
    if at + sum(lengths) != len(data):
        raise ValueError("the lengths of the messages are not that of the block")
    chunks: list[Chunk] = []
    before = -1
    for length, micros in zip(lengths, times, strict=True):
        if micros != before:
            chunks.append(Chunk(micros / 1e6, []))
            before = micros
        chunks[-1].messages.append(data[at : at + length])
        at += length
    return chunks


def damaged(path: Path, why: str) -> RecordingError:
    """The error for a file that does not fit its checksums."""
    return RecordingError(f"The recording {path} is damaged: {why}.", "Use another copy of it.")


def opened(path: Path) -> BinaryIO:
    """Open a file and read its start.

    Raises
    ------
    RecordingError
        There is no such file, it is no recording, or not of this version.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}.", "Is it the right path?") from error
    found = file.read(_START.size)
    if len(found) == _START.size and found.startswith(MAGIC):
        version = _START.unpack(found)[1]
        if version == VERSION:
            return file
        problem = f"The recording {path} has version {version}; this program reads version {VERSION}."
        fix = "Use a newer streamlab, or record again."
    elif MAGIC[1:6] in found:
        problem, fix = f"The recording {path} was changed by a copy in text mode.", "Copy it as a binary file."
    else:
        problem, fix = f"{path} is no recording of a stream.", "Make one with streamlab.cdc.recording.Recorder."
    file.close()
    raise RecordingError(problem, fix)


def blocks(path: Path, *, skip: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Whole blocks, up to the end or to where the last one was cut.

    Parameters
    ----------
    path : Path
        The file.
    skip : bytes
        A kind whose bodies are not read: they come empty.

    Raises
    ------
    RecordingError
        As `opened`; or the file is damaged here, and what came before is right.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        while len(found := file.read(_HEAD_SIZE)) == _HEAD_SIZE:
            head = found[: _HEAD.size]
            kind, length, crc = _HEAD.unpack(head)
            if _NUMBER.unpack_from(found, _HEAD.size)[0] != zlib.crc32(head):
                raise damaged(path, f"no block begins at byte {file.tell() - _HEAD_SIZE}")
            if file.tell() + length > size:
                return
            if kind == skip:
                file.seek(length, os.SEEK_CUR)
                yield kind, b""
                continue
            body = file.read(length)
            if zlib.crc32(body) != crc:
                raise damaged(path, f"the block that ends at byte {file.tell()} was changed")
            yield kind, body
            if kind == b"E":
                return
