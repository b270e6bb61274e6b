"""MySQL's character sets as codecs of Python.

A table map names the collation of each text column by number, and the server says which character set a collation is
of. Most sets are a codec of Python under another name; latin1 is Windows-1252, whose five holes MySQL fills with
control characters. A set that Python has no codec for, and bytes that are no text of their set, stay `bytes`.

Source: MySQL's manual, "Supported Character Sets and Collations"; `INFORMATION_SCHEMA.COLLATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["BINARY", "CODECS", "KNOWN", "reader"]

BINARY: Final = 63
"""The collation `binary`, of what is no text."""

CODECS: Final[Mapping[str, str]] = {
    "ascii": "ascii", "big5": "big5", "cp1250": "cp1250", "cp1251": "cp1251", "cp1256": "cp1256", "cp1257": "cp1257",
    "cp850": "cp850", "cp852": "cp852", "cp866": "cp866", "cp932": "cp932", "eucjpms": "euc_jp", "euckr": "cp949",
    "gb18030": "gb18030", "gb2312": "gb2312", "gbk": "gbk", "greek": "iso8859_7", "hebrew": "iso8859_8",
    "hp8": "hp_roman8", "koi8r": "koi8_r", "koi8u": "koi8_u", "latin1": "latin1", "latin2": "iso8859_2",
    "latin5": "iso8859_9", "latin7": "iso8859_13", "macce": "mac_latin2", "macroman": "mac_roman", "sjis": "shift_jis",
    "tis620": "tis_620", "ucs2": "utf_16_be", "ujis": "euc_jp", "utf16": "utf_16_be", "utf16le": "utf_16_le",
    "utf32": "utf_32_be", "utf8mb3": "utf_8", "utf8": "utf_8", "utf8mb4": "utf_8",
}  # fmt: skip
"""Character set -> codec. Sets of which Python has none: armscii8, dec8, geostd8, keybcs2, swe7."""

KNOWN: Final[Mapping[int, str]] = {
    8: "latin1", 11: "ascii", 33: "utf8mb3", 45: "utf8mb4", 46: "utf8mb4", BINARY: "binary", 83: "utf8mb3",
    **dict.fromkeys(range(192, 216), "utf8mb3"), **dict.fromkeys(range(224, 248), "utf8mb4"),
    **dict.fromkeys(range(255, 324), "utf8mb4"),
}  # fmt: skip
"""Collation -> character set, for those that any server has. A reader asks its server for all of them."""


def _latin1(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return "".join(
            chr(byte) if byte in {0x81, 0x8D, 0x8F, 0x90, 0x9D} else bytes([byte]).decode("cp1252") for byte in data
        )


def reader(charset: str) -> Callable[[bytes], Any] | None:
    """What makes a `str` of bytes, or raises; None where Python has no codec."""
    if charset == "latin1":
        return _latin1
    codec = CODECS.get(charset)
    return None if codec is None else lambda data: data.decode(codec)
