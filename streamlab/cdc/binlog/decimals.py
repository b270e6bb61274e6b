"""DECIMAL as MySQL stores it: nine digits in four bytes, what is left over in as few as it takes, big-endian.

The first bit is the sign, inverted, and all bits of a negative number are inverted, so that the bytes compare as the
numbers do. For each precision and scale a function is written and compiled, as for rows.

Source: `strings/decimal.cc` of the server (decimal2bin).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from functools import cache

__all__ = ["decimal_reader", "decimal_size"]

_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes for so many digits."""
_LETTERS = {1: "B", 2: "H", 3: "BH", 4: "I"}


def _groups(precision: int, scale: int) -> tuple[list[int], list[int]]:
    """Digits of each group, before and behind the point."""
    whole, part = precision - scale, scale
    before = ([whole % 9] if whole % 9 else []) + [9] * (whole // 9)
    behind = [9] * (part // 9) + ([part % 9] if part % 9 else [])
    return before, behind


def decimal_size(precision: int, scale: int) -> int:
    """Bytes of a value."""
    return sum(_BYTES[digits] for group in _groups(precision, scale) for digits in group)


@cache
def decimal_reader(precision: int, scale: int) -> Callable[[bytes], Decimal]:
    """What makes a `Decimal` of a value's bytes; exact, with `scale` digits behind the point."""
    before, behind = _groups(precision, scale)
    letters, parts, setup = "", [], []
    for index, digits in enumerate([*before, *behind]):
        size = _BYTES[digits]
        letters += _LETTERS[size]
        name = f"g{index}"
        parts.append(f"{name}h, {name}" if size == 3 else name)
        if size == 3:
            setup.append(f"  {name} |= {name}h << 16")
    names = [f"g{index}" for index in range(len(before) + len(behind))]
    # Digits of the first group need no zeros in front, where it stands before the point.
    whole = "".join(f"{{{name}}}" if not index else f"{{{name}:09}}" for index, name in enumerate(names[: len(before)]))
    part = "".join(f"{{{name}:0{digits}}}" for name, digits in zip(names[len(before) :], behind, strict=True))
    text = (whole or "0") + (f".{part}" if part else "")
    top = 0x80 << 8 * (_BYTES[[*before, *behind][0]] - 1)
    size = decimal_size(precision, scale)
    lines = [
        "def decimal(data):",
        " if data[0] & 128:",
        f"  {', '.join(parts)}, = unpack(data)",
        *setup,
        f"  g0 ^= {top}",
        f"  return Decimal(f'{text}')",
        f" data = (int.from_bytes(data, 'big') ^ {(1 << 8 * size) - 1}).to_bytes({size}, 'big')",
        f" {', '.join(parts)}, = unpack(data)",
        *(line[1:] for line in setup),
        f" g0 ^= {top}",
        f" return Decimal(f'-{text}')",
    ]
    scope = {"Decimal": Decimal, "unpack": struct.Struct(">" + letters).unpack}
    # Only numbers of this module's own enter the code.
    exec(compile("\n".join(lines), f"<decimal({precision}, {scale})>", "exec"), scope)  # noqa: S102
    made: Callable[[bytes], Decimal] = scope["decimal"]  # type: ignore[assignment]
    return made
