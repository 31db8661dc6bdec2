"""Chakra execution traces in protobuf: length-delimited messages, the metadata first, then nodes.

The messages are built here from the published schema, as far as npusim reads them; protobuf
itself is optional (``pip install 'npusim[chakra]'``).

Source: MLCommons Chakra, schema/protobuf/et_def.proto (package ChakraProtoMsg) of 2023 to 2025,
src/third_party/utils/protolib.py. Nodes kept their fields in that time; the attributes of the
metadata moved from field 1 to field 2, and back and forth.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.chakra_nodes import Record

LONGEST_MESSAGE = 1 << 22

# Numbers of the types in google.protobuf.FieldDescriptorProto.
_TYPES = {"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6,
          "fixed32": 7, "bool": 8, "string": 9, "message": 11, "uint32": 13, "sfixed32": 15,
          "sfixed64": 16, "sint32": 17, "sint64": 18}  # fmt: skip
_OPTIONAL, _REPEATED = 1, 3
# Message -> (type, name, number). Lists of attributes are left out: nothing here reads them.
_SCHEMA = {
    "Attribute": (
        ("string", "name", 1), ("double", "double_val", 3), ("float", "float_val", 5),
        ("int32", "int32_val", 7), ("int64", "int64_val", 9), ("uint32", "uint32_val", 11),
        ("uint64", "uint64_val", 13), ("sint32", "sint32_val", 15), ("sint64", "sint64_val", 17),
        ("fixed32", "fixed32_val", 19), ("fixed64", "fixed64_val", 21),
        ("sfixed32", "sfixed32_val", 23), ("sfixed64", "sfixed64_val", 25),
        ("bool", "bool_val", 27), ("string", "string_val", 29),
    ),
    "IOInfo": (("string", "values", 1), ("string", "shapes", 2), ("string", "types", 3)),
    "Node": (
        ("uint64", "id", 1), ("string", "name", 2), ("int32", "type", 3),
        ("uint64*", "ctrl_deps", 4), ("uint64*", "data_deps", 5),
        ("uint64", "start_time_micros", 6), ("uint64", "duration_micros", 7),
        ("IOInfo", "inputs", 8), ("IOInfo", "outputs", 9), ("Attribute*", "attr", 10),
    ),
}  # fmt: skip
_PACKAGE = "npusim.chakra"
_METADATA = (b"", b"\x0a", b"\x12")  # how it begins: nothing at all, field 1 or field 2


def starts_like(start: bytes) -> bool:
    """Return whether a file starts with two messages: metadata and a node.

    Examples
    --------
    >>> starts_like(bytes([7, 0x0A, 5]) + b"0.0.4" + bytes([2, 0x08, 9]))
    True
    >>> starts_like(b"{}"), starts_like(b"")
    (False, False)
    """
    size, at = _varint(start, 0)
    if size is None or start[at : at + min(size, 1)] not in _METADATA:
        return False
    size, at = _varint(start, at + size)
    return bool(size) and start[at : at + 1] in (b"\x08", b"\x12")


def records(path: Path) -> Iterator[Record]:
    """Yield the nodes of a file, one in memory at a time.

    Raises
    ------
    InputError
        protobuf is not installed, a message that is cut short, too long or none of Chakra's.
    """
    kind, damaged = _message("Node")
    for number, raw in enumerate(_messages(path)):
        if number == 0:  # the metadata, which says nothing of what the device does
            if raw[:1] not in _METADATA:
                raise InputError("does not begin with the metadata of a Chakra trace", file=path,
                                 value=raw[:8].hex(), allowed="messages of et_def.proto, 2023 on",
                                 hint="convert it again")  # fmt: skip
            continue
        try:
            yield _record(kind.FromString(raw))
        except damaged:
            raise InputError("not a node of a Chakra trace", file=path,
                             place=f"message {number + 1}",
                             allowed="messages of et_def.proto") from None  # fmt: skip


def _record(node: Any) -> Record:
    attributes = {}
    for a in node.attr:
        given = a.WhichOneof("value")
        attributes[a.name] = getattr(a, given) if given is not None else None
    inputs, outputs = (
        (info.values, info.shapes, info.types) for info in (node.inputs, node.outputs)
    )
    return Record(node.id, node.name, node.type, tuple(node.ctrl_deps), tuple(node.data_deps),
                  node.start_time_micros, node.duration_micros, inputs, outputs,
                  attributes)  # fmt: skip


def _messages(path: Path) -> Iterator[bytes]:
    """Yield the messages of a file, each behind its length as a varint."""
    pieces = files.chunks(path)
    buffer, ended, number = bytearray(), False, 0
    while True:
        while not ended and len(buffer) < 10:  # the longest varint
            piece = next(pieces, b"")
            buffer += piece
            ended = not piece
        if not buffer:
            return
        number += 1
        size, at = _varint(buffer, 0)
        if size is None or size > LONGEST_MESSAGE:
            raise InputError("message without a length" if size is None else "message too long",
                             file=path, place=f"message {number}",
                             value=bytes(buffer[:10]).hex() if size is None else size,
                             allowed=f"up to {LONGEST_MESSAGE} bytes")  # fmt: skip
        while len(buffer) < at + size:
            piece = next(pieces, b"")
            if not piece:
                raise InputError("cut short inside a message", file=path,
                                 place=f"message {number}", value=f"{len(buffer) - at} bytes",
                                 allowed=str(size))  # fmt: skip
            buffer += piece
        yield bytes(buffer[at : at + size])
        del buffer[: at + size]


def _varint(data: bytes | bytearray, at: int) -> tuple[int | None, int]:
    """Return the number that stands somewhere and where it ends; None where there is none.

    Examples
    --------
    >>> _varint(bytes([0xAC, 0x02, 7]), 0), _varint(bytes([0x80]), 0)
    ((300, 2), (None, 1))
    """
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    return None, len(data)


@cache
def _message(name: str) -> tuple[Any, type[Exception]]:
    """Return the class of a message, and what it raises where bytes are not one.

    protobuf has no part in anything else, so it is loaded here. The schema is in a pool of its
    own: a program may have Chakra's own classes beside it.
    """
    try:
        descriptors = import_module("google.protobuf.descriptor_pb2")
        pools = import_module("google.protobuf.descriptor_pool")
        factory = import_module("google.protobuf.message_factory")
        damaged = import_module("google.protobuf.message").DecodeError
    except ImportError:
        raise InputError("a Chakra trace in protobuf needs the protobuf package",
                         hint="pip install 'npusim[chakra]'") from None  # fmt: skip
    file = descriptors.FileDescriptorProto(name="chakra.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _SCHEMA.items():
        made = file.message_type.add(name=message)
        if message == "Attribute":
            made.oneof_decl.add(name="value")
        for kind, field, number in fields:
            single = kind.removesuffix("*")
            added = made.field.add(name=field, number=number,
                                   type=_TYPES.get(single, _TYPES["message"]),
                                   label=_OPTIONAL if single == kind else _REPEATED)  # fmt: skip
            if single in _SCHEMA:
                added.type_name = f".{_PACKAGE}.{single}"
            if field.endswith("_val"):
                added.oneof_index = 0
    pool = pools.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")), damaged
