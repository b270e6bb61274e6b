"""Message types of Protobuf, made from names and numbers: for looking at schemas without a compiler."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["message"]

_Field = descriptor_pb2.FieldDescriptorProto

_TYPES = {int: _Field.TYPE_INT64, str: _Field.TYPE_STRING, bool: _Field.TYPE_BOOL}


def message(name: str, **fields: tuple[type, int]) -> Any:
    """A class of messages.

    Parameters
    ----------
    name : str
        Of the message; the file is ``<name>.proto``, its package ``shop``.
    **fields : tuple of (type, int)
        Field -> its type (int, str or bool), and its number on the wire.

    Examples
    --------
    >>> order = message("order", id=(int, 1), status=(str, 2))
    >>> order(id=7, status="paid").SerializeToString().hex()
    '0807120470616964'
    """
    described = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="shop", syntax="proto3")
    made = described.message_type.add(name=name)
    for field, (kind, number) in fields.items():
        made.field.add(name=field, number=number, type=_TYPES[kind], label=_Field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.{name}"))
