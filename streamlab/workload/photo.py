"""The product pictures: a real PNG of about 2.4 kB, as a data URI of about 3.2 kB of text.

The pixels are a colour plus noise, so the text does not compress and PostgreSQL has to store it out
of line (TOAST) [the limit is about 2 kB for a whole row]. The file is built by hand with an
uncompressed ("stored") deflate block: the same bytes on every machine, whatever its zlib.
Formats: PNG (W3C, third edition), zlib (RFC 1950), deflate (RFC 1951), data URI (RFC 2397).
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from hashlib import shake_256

__all__ = ["SIDE", "photo"]

SIDE = 28
"""Width and height in pixels."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def photo(name: str) -> str:
    """Return the picture of that name as a ``data:image/png;base64,...`` text: the same name, the same picture."""
    noise = shake_256(name.encode()).digest(3 + 3 * SIDE * SIDE)
    # A pixel is its base colour (0-191) plus noise (0-63): it still looks like one colour.
    base = [value * 3 // 4 for value in noise[:3]]
    pixels = bytes(base[at % 3] + (value >> 2) for at, value in enumerate(noise[3:]))
    width = 3 * SIDE
    raw = b"".join(b"\0" + pixels[start : start + width] for start in range(0, len(pixels), width))
    stored = b"\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw
    body = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + b64encode(png).decode("ascii")
