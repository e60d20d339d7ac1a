"""Names in a network: whoever made it chose them, so no converter sees one that could be more than a name.

Converters name files after inputs, write names into text formats and command lines, and print them. A name that could
be a path, markup, an option or a line of its own is replaced before a converter reads the network; in what it wrote,
inputs and outputs are then found under the names that `stored` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from plimsoll.core.model import MAX_NAME
from plimsoll.core.wording import printable
from plimsoll.onnx import load

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_LENGTH = 128
_PREFIX = "plimsoll_"
_PLAIN = re.compile(rf"(?!{_PREFIX})[A-Za-z0-9_][A-Za-z0-9_.:/+@-]*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that are devices on Windows, in any folder and with any suffix."""

_NAMED = ("TensorProto", "ValueInfoProto")


def is_plain(name: str) -> bool:
    """Tell whether a name means nothing to a file system, a shell, a terminal or a text format: ASCII letters, digits
    and `_.:/+@-`, no more than 128, no part of which is `..`, empty or a device."""
    return (
        0 < len(name) <= MAX_LENGTH
        and _PLAIN.fullmatch(name) is not None
        and all(part.strip(".") and not _DEVICES.fullmatch(part) for part in name.split("/"))
    )


def stored(name: str, end: Literal["input", "output"], index: int) -> str:
    """Return the name that a converter sees of a network's input or output, the one at `index`: its own if that is
    plain."""
    return name if is_plain(name) else f"{_PREFIX}{end}_{index}"


def make_plain(proto: ModelProto) -> dict[str, str]:
    """Rename in place whatever has no plain name, and drop texts that compute nothing; returns the new names of values
    by their old ones."""
    graph = proto.graph
    renamed: dict[str, str] = {}
    # An output that is an input as well has one name: the input's, since it comes first.
    for index, value in enumerate(load.inputs(graph)):
        renamed.setdefault(value.name, stored(value.name, "input", index))
    for index, value in enumerate(graph.output):
        renamed.setdefault(value.name, stored(value.name, "output", index))
    for name in _values(proto):
        renamed.setdefault(name, name if is_plain(name) else f"{_PREFIX}value_{len(renamed)}")
    for message in load.messages(proto):
        _write_plain(message, renamed)
    for number, node in enumerate(load.messages(graph, "NodeProto")):
        if node.name and not is_plain(node.name):
            node.name = f"{_PREFIX}node_{number}"
    for field in ("metadata_props", "producer_name", "producer_version", "domain"):
        proto.ClearField(field)
    graph.ClearField("quantization_annotation")
    return {name: other for name, other in renamed.items() if name != other}


def has_unprintable(proto: ModelProto) -> bool:
    """Tell whether an inner value or a node has a name that no text can hold as it is."""
    return any(
        not _is_printable(name)
        for name in (*_values(proto), *(node.name for node in load.messages(proto.graph, "NodeProto")))
    )


def make_printable(proto: ModelProto) -> None:
    """Rename in place the inner values and nodes that have such names; inputs and outputs keep theirs."""
    ends = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    renamed: dict[str, str] = {}
    for name in _values(proto):
        if name not in ends and not _is_printable(name):
            renamed.setdefault(name, f"{_PREFIX}value_{len(renamed)}")
    for message in load.messages(proto):
        _rename(message, renamed)
    for number, node in enumerate(load.messages(proto.graph, "NodeProto")):
        if not _is_printable(node.name):
            node.name = f"{_PREFIX}node_{number}"


def _is_printable(name: str) -> bool:
    return len(name) <= MAX_NAME and printable(name) == name


def _rename(message: Any, renamed: Mapping[str, str]) -> None:
    if message.DESCRIPTOR.name in _NAMED:
        message.name = renamed.get(message.name, message.name)
    elif message.DESCRIPTOR.name == "NodeProto":
        message.input[:] = [renamed.get(name, name) for name in message.input]
        message.output[:] = [renamed.get(name, name) for name in message.output]


def _write_plain(message: Any, renamed: Mapping[str, str]) -> None:
    """Write plain names into one message of a network."""
    kind = message.DESCRIPTOR.name
    if any(field.name == "doc_string" for field in message.DESCRIPTOR.fields):
        message.ClearField("doc_string")
    _rename(message, renamed)
    if kind == "Dimension" and not is_plain(message.dim_param or "free"):
        message.dim_param = f"{_PREFIX}size"
    elif kind == "GraphProto" and not is_plain(message.name):
        message.name = f"{_PREFIX}graph"


def _values(proto: ModelProto) -> Iterator[str]:
    """Yield the name of every value, in subgraphs too."""
    for message in load.messages(proto.graph):
        kind = message.DESCRIPTOR.name
        if kind in _NAMED and message.name:
            yield message.name
        elif kind == "NodeProto":
            yield from (name for name in (*message.input, *message.output) if name)
