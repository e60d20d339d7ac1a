"""Classes that allow what the real bindings allow: by the signatures in their docstrings."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable
from typing import Any

import tensorrt

Signature = list[tuple[str, str, bool]]
"""(name, type, whether there is a default) of each parameter."""


def enum_of(name: str, members: list[str]) -> Any:
    """Make an enumeration; its members have names and turn into integers, as pybind11's do."""
    return enum.IntEnum(name, [(member, index) for index, member in enumerate(members)])


class Checked:
    """An object of the stand-in; `_real` does the work."""

    _surface: dict[str, Any]
    _behaviour: Callable[..., Any]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        bind(f"{type(self).__name__}.__init__", self._surface["methods"]["__init__"], (self, *arguments), named)
        object.__setattr__(self, "_real", self._behaviour(*arguments, **named))

    def __getattr__(self, name: str) -> Any:
        kind, surface = type(self).__name__, self._surface
        if name in surface["properties"]:
            return getattr(self._real, name)
        if name not in surface["methods"]:
            raise AttributeError(f"TensorRT {tensorrt.__version__}: {kind} has no '{name}'")

        def call(*arguments: Any, **named: Any) -> Any:
            returns = bind(f"{kind}.{name}", surface["methods"][name], (self, *arguments), named)
            result = getattr(self._real, name)(*arguments, **named)
            if result is not None and not _fits(result, returns):
                raise TypeError(f"the stand-in's {kind}.{name} returned {result!r}, the real one {returns}")
            return result

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._surface["properties"].get(name, False):
            raise AttributeError(f"TensorRT {tensorrt.__version__}: {type(self).__name__}.{name} can't be set")
        setattr(self._real, name, value)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._real.content)

    def __bytes__(self) -> bytes:
        if type(self).__name__ != "IHostMemory":
            raise TypeError(f"{type(self).__name__} is no buffer")
        return bytes(self._real.content)


def class_of(name: str, surface: dict[str, Any], behaviour: Any) -> type[Checked]:
    """Make a class that allows what `surface` lists, and works by `behaviour`."""
    return type(name, (Checked,), {"_surface": surface, "_behaviour": staticmethod(behaviour)})


def subclassable(name: str, surface: dict[str, Any]) -> type:
    """Make a class that users derive from; what they override is checked against the documented parameters."""
    known = {
        method: [part[0] for part in _parameters(lines[0])[0]] for method, lines in surface["methods"].items() if lines
    }
    known |= surface["callbacks"]

    def initialize(self: Any) -> None:
        self._initialized = True

    def check(cls: type) -> None:
        for method, function in vars(cls).items():
            if method in known and method != "__init__":
                parameters = list(inspect.signature(function).parameters)
                if parameters != known[method]:
                    raise TypeError(f"{name}.{method} takes {known[method]}, this override {parameters}")
            elif inspect.isfunction(function) and not method.startswith("_"):
                raise TypeError(f"TensorRT {tensorrt.__version__}: nobody calls {name}.{method}")

    return type(name, (), {"__init__": initialize, "__init_subclass__": classmethod(check)})


def bind(where: str, lines: list[str], arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Find the overload that takes these arguments and return its result's type; raises TypeError as pybind11 does."""
    for line in lines:
        parameters, returns = _parameters(line)
        given = dict(zip((part[0] for part in parameters), arguments, strict=False)) | named
        unknown = set(given) - {part[0] for part in parameters} or len(arguments) > len(parameters)
        missing = [part for part in parameters if part[0] not in given and not part[2]]
        if (
            not unknown
            and not missing
            and all(_fits(given[name], kind) for name, kind, _ in parameters if name in given)
        ):
            return returns
    raise TypeError(
        f"TensorRT {tensorrt.__version__}: {where}{arguments[1:]!r} {named or ''}: expected {' or '.join(lines)}"
    )


def _parameters(line: str) -> tuple[Signature, str]:
    """Read `name(a: int, b: str = None) -> bool`."""
    inside, _, returns = line[line.index("(") + 1 :].rpartition(") -> ")
    parts: list[str] = []
    depth = 0
    for piece in inside.split(","):
        if depth:
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
        depth += len(re.findall(r"[\[(<]", piece)) - len(re.findall(r"[\])>]", piece.replace("->", "")))
    signature = []
    for part in filter(str.strip, parts):
        name, _, rest = part.partition(":")
        kind, equals, _ = rest.partition("=")
        signature.append((name.strip(), kind.strip(), bool(equals)))
    return signature, returns.strip()


def _fits(value: Any, kind: str) -> bool:
    """Tell whether pybind11 would take a value for a parameter of this type."""
    plain: dict[str, Callable[[Any], bool]] = {
        "str": lambda argument: isinstance(argument, str),
        "bool": lambda argument: isinstance(argument, bool),
        "int": lambda argument: isinstance(argument, int),
        "typing.SupportsInt": lambda argument: isinstance(argument, int) and not isinstance(argument, bool),
        "typing_extensions.Buffer": lambda argument: isinstance(argument, (bytes, memoryview)),
        "tuple": lambda argument: isinstance(argument, tuple),
        "list": lambda argument: isinstance(argument, list),
        "Dims": _is_dims,
        "list[str]": lambda argument: isinstance(argument, list),
        "list[Dims]": lambda argument: isinstance(argument, list) and all(map(_is_dims, argument)),
        "object": lambda _: True,
        "None": lambda argument: argument is None,
        "typing_extensions.CapsuleType": lambda argument: argument is not None,
        "nvonnxparser::IParserError": lambda argument: type(argument).__name__ == "ParserError",
    }
    if kind in plain:
        return plain[kind](value)
    if kind == "ILogger.Severity":
        return type(value).__name__ == "Severity"
    return any(base.__name__ == kind for base in type(value).__mro__)


def _is_dims(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(size, int) for size in value)
