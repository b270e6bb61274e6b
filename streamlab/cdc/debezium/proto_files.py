"""Schemas of Protobuf, as registries keep them, compiled by Google's own compiler.

A registry has the text of a ``.proto`` file; Confluent's serializer in Python leaves the compiled form there, as
base64. What the converters import is known here: Google's own types, Confluent's ``Decimal``, its notes beside fields.

Source: Confluent's manual, "Protobuf Schema Serializer and Deserializer"; the manual of ``protoc``.
"""

from __future__ import annotations

import binascii
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

__all__ = ["compiled"]

_MAIN: Final = "streamlab-schema.proto"
_PATIENCE: Final = 60.0
_DECIMAL: Final = """\
syntax = "proto3";
package confluent.type;
message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
"""
_KNOWN: Final = {"confluent/type/decimal.proto": _DECIMAL}


def compiled(text: str, others: Mapping[str, str]) -> FileDescriptor:
    """A schema, in a pool of its own.

    Parameters
    ----------
    text : str
        Of a ``.proto`` file, or the base64 of its compiled form.
    others : mapping of str to str
        What it imports and what that imports, by the names of the files; each is as `text` is.

    Raises
    ------
    ValueError
        It cannot be compiled; the message is what the compiler says.
    """
    pool = DescriptorPool()
    main = _binary(text, _MAIN)
    if main is None:
        files = _compile({**others, _MAIN: text}, _MAIN)
    else:
        made = [*(_of_reference(name, each) for name, each in others.items()), main]
        ours = {each.name for each in made}
        wanted = {name for each in made for name in each.dependency if name not in ours}
        files = [*_compile({_MAIN: _importing(wanted)}, _MAIN)[:-1], *made] if wanted else made
    try:
        for each in files:
            pool.AddSerializedFile(each.SerializeToString())
        file = pool.FindFileByName(_MAIN)
    except (TypeError, KeyError) as error:
        raise ValueError(f"its parts do not fit together: {error}") from error
    if not file.message_types_by_name:
        raise ValueError("there is no message in it")
    return file


def _binary(text: str, name: str) -> FileDescriptorProto | None:
    """The compiled form, where the text is that; under another name."""
    try:
        made = FileDescriptorProto.FromString(b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None
    if not text or not made.message_type:
        return None
    made.name = name
    return made


def _of_reference(name: str, text: str) -> FileDescriptorProto:
    if (made := _binary(text, name)) is None:
        raise ValueError(f"{name} is text, and what imports it is not")
    return made


def _importing(names: Iterable[str]) -> str:
    return 'syntax = "proto3";\n' + "".join(f'import "{name}";\n' for name in sorted(names))


def _compile(texts: Mapping[str, str], main: str) -> list[FileDescriptorProto]:
    """The files that one needs, and itself, each behind those that it imports."""
    from confluent_kafka.schema_registry.confluent import meta_pb2
    from google.type import date_pb2

    with tempfile.TemporaryDirectory(prefix="streamlab-proto-") as directory:
        for name, text in {**_KNOWN, **texts}.items():
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts:
                raise ValueError(f"it refers to {name}")
            path = Path(directory, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        out, notes = Path(directory, "compiled"), Path(directory, "notes")
        notes.write_bytes(FileDescriptorSet(file=_whole(meta_pb2.DESCRIPTOR)).SerializeToString())
        command = [
            sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"-I{Path(date_pb2.__file__).parents[2]}",
            f"--descriptor_set_in={notes}", "--include_imports", f"--descriptor_set_out={out}", main,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"the compiler has not come to an end after {_PATIENCE:.0f} s") from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip() and "warning:" not in line]
            raise ValueError((said[0] if said else f"the compiler ended with {done.returncode}")[:300])
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def _whole(file: FileDescriptor) -> list[FileDescriptorProto]:
    """A compiled file behind those that it imports."""
    made = [each for other in file.dependencies for each in _whole(other)]
    return [*made, FileDescriptorProto.FromString(file.serialized_pb)]
