"""DECIMAL as MySQL stores it: nine digits in four bytes, what is left over in as few as it takes, big-endian.

The first bit is the sign, inverted, and all bits of a negative number are inverted, so that the bytes compare as the
numbers do. For each precision and scale an expression is written, which stands in the generated decoders of rows.

Source: `strings/decimal.cc` of the server (decimal2bin).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any, Final

__all__ = ["NAMES", "decimal_code", "decimal_reader", "decimal_size"]

_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes for so many digits."""
_TEXTS = {digits: tuple(f"{number:0{digits}}" for number in range(10**digits)) for digits in (1, 2, 3, 4)}
"""What short groups behind the point look like: finding it takes a third of the time of writing it."""

NAMES: Final[dict[str, Any]] = {
    "Decimal": Decimal, "big": int.from_bytes, **{f"DIGITS{digits}": texts for digits, texts in _TEXTS.items()},
}  # fmt: skip
"""What the expressions use."""


def _groups(precision: int, scale: int) -> tuple[list[int], list[int]]:
    """Digits of each group, before and behind the point."""
    whole, part = precision - scale, scale
    before = ([whole % 9] if whole % 9 else []) + [9] * (whole // 9)
    behind = [9] * (part // 9) + ([part % 9] if part % 9 else [])
    return before, behind


def decimal_size(precision: int, scale: int) -> int:
    """Bytes of a value."""
    return sum(_BYTES[digits] for group in _groups(precision, scale) for digits in group)


def decimal_code(precision: int, scale: int) -> str:
    """An expression of ``{0}``, a value's bytes, that is a `Decimal`: exact, with `scale` digits behind the point.

    It assigns to `x`. It can raise IndexError for bytes that are no such number.
    """
    before, behind = _groups(precision, scale)
    shift = bits = 8 * decimal_size(precision, scale)
    whole, part = [], []
    for index, digits in enumerate([*before, *behind]):
        size = 8 * _BYTES[digits]
        shift -= size
        group = f"x >> {shift} & {(1 << size) - 1}" if shift else f"x & {(1 << size) - 1}"
        if index < len(before):
            later = len(before) - 1 - index
            whole.append(f"({group}) * {10 ** (9 * later)}" if later else f"({group})")
        else:
            part.append(f"{{{{DIGITS{digits}[{group}]}}}}" if digits in _TEXTS else f"{{{{{group}:0{digits}}}}}")
    text = (f"{{{{{' + '.join(whole)}}}}}" if whole else "0") + ("." if part else "") + "".join(part)
    # What is left of a negative number without the bit of its sign is -1 less the number.
    return (
        f"(Decimal(f'{text}') if (x := big({{0}}, 'big') - {1 << bits - 1}) >= 0 "
        f"else (x := -1 - x, Decimal(f'-{text}'))[1])"
    )


@cache
def decimal_reader(precision: int, scale: int) -> Callable[[bytes], Decimal]:
    """The same as a function."""
    # Only numbers of this module's own enter the code.
    code = f"lambda data: {decimal_code(precision, scale).format('data')}"
    made: Callable[[bytes], Decimal] = eval(code, dict(NAMES))  # noqa: S307
    return made
