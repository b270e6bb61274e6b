"""MySQL's packets in a stream of bytes: a length of three bytes, a number that counts on, and the payload. No I/O.

A payload of 16 MiB - 1 bytes goes on in the next packet. Source: MySQL's manual for developers, "MySQL Packets".
"""

from __future__ import annotations

import struct

from streamlab.errors import ProtocolError

__all__ = ["Packets"]

_LONGEST = 0xFFFFFF
_head = struct.Struct("<I").unpack_from


class Packets:
    """Takes bytes as they were received, gives whole payloads. Used by one thread."""

    def __init__(self, number: int = 1) -> None:
        self._rest = b""
        self._parts: list[bytes] = []
        self._number = number

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now.

        Raises
        ------
        ProtocolError
            A packet has another number than the one that comes next: bytes are missing.
        """
        if self._rest:
            data = self._rest + data
        found: list[bytes] = []
        at, number, whole = 0, self._number, len(data)
        while at + 4 <= whole:
            (head,) = _head(data, at)
            size = head & _LONGEST
            end = at + 4 + size
            if end > whole:
                break
            if head >> 24 != number:
                raise ProtocolError(
                    f"A packet has the number {head >> 24} where {number} comes next: bytes are missing.",
                    "The connection has to be made again.",
                )
            number = (number + 1) & 0xFF
            payload = data[at + 4 : end]
            at = end
            if size == _LONGEST:
                self._parts.append(payload)
            elif self._parts:
                found.append(b"".join((*self._parts, payload)))
                self._parts = []
            else:
                found.append(payload)
        self._rest, self._number = data[at:], number
        return found
