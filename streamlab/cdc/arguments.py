"""What readers of changes are given, checked before a server is asked: each refusal names the argument."""

from __future__ import annotations

from collections.abc import Collection

from streamlab.errors import SettingsError

__all__ = ["count", "flag", "instance", "name_of", "names", "seconds"]


def count(name: str, value: object, *, least: int = 1, most: int | None = None) -> None:
    """A whole number, not below `least` and not beyond `most`."""
    if type(value) is not int or value < least or (most is not None and value > most):
        raise SettingsError(
            f"{name}={value!r} is no such number.",
            f"Give a whole number, at least {least}{'' if most is None else f' and at most {most}'}.",
        )


def seconds(name: str, value: object, *, zero: bool = True, most: float | None = None) -> None:
    """A time that is not negative, 0 only where that means something, and not beyond `most`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Written so that what is not a number (NaN) does not pass.
    fits = number and (value >= 0 if zero else value > 0) and (most is None or value <= most)  # type: ignore[operator]
    if not fits:
        least, end = "0 or more" if zero else "more than 0", "" if most is None else f", at most {most:.0f}"
        raise SettingsError(f"{name}={value!r} is no time.", f"Give a number of seconds, {least}{end}.")


def flag(name: str, value: object) -> None:
    """True or False: any other thing counts as one of them, often as the wrong one."""
    if not isinstance(value, bool):
        raise SettingsError(f"{name}={value!r} is neither yes nor no.", "Give True or False.")


def instance(name: str, value: object, kind: type | tuple[type, ...], example: str, *, optional: bool = True) -> None:
    """A thing of such a type, and no class; or None, where that may be left out."""
    if value is None and optional:
        return
    if isinstance(value, type) or not isinstance(value, kind):
        # Its value may be a secret.
        raise SettingsError(f"{name} is a {type(value).__name__}, which cannot be used.", f"Give {example}.")


def name_of(what: str, value: object) -> None:
    """The name of something in a server, none of which takes a NUL character."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise SettingsError(f"{value!r} cannot be the name of {what}.", "Give a string without NUL characters.")


def names(name: str, value: object) -> None:
    """Several names; one string would be taken for many, a letter each."""
    if isinstance(value, str):
        raise SettingsError(f"{name} is the string {value!r}.", f"Give a list of names: {name}=[{value!r}].")
    if not isinstance(value, Collection) or not all(isinstance(each, str) for each in value):
        raise SettingsError(f"{name}={value!r} is no list of names.", f'Give one: {name}=["shop.orders"].')
    for each in value:
        if "\0" in each:
            raise SettingsError(f"{name} holds {each!r}, with a NUL character.", "No server has such a name.")
