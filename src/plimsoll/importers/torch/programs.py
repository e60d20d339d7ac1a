"""What the description of an exported program would run when `torch.export.load` reads it, told without PyTorch.

A `.pt2` file is no pickle, but its JSON is not inert either: sizes are expressions that SymPy evaluates as Python, and
the targets of calls are looked up by their dotted names anywhere below `torch`. So both are held to what PyTorch itself
writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_FUNCTIONS = (
    "Symbol|Integer|Float|Rational|Half|One|Zero|NegativeOne|Infinity|NegativeInfinity|Mul|Add|Pow|Abs|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|"
    "ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|FloatPow|PowByNatural|LShift|RShift|ToFloat|TruncToInt|TruncToFloat|CeilToInt|FloorToInt|"
    "RoundToInt|RoundDecimal|IsNonOverlappingAndDenseIndicator|Identity|And|Or|Not|Xor|ITE|Piecewise|ExprCondPair|Equality|Unequality|"
    "StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Eq|Ne|Lt|Le|Gt|Ge|sqrt|ceiling|floor"
)
"""What an expression may call: SymPy's numbers, arithmetic and comparisons, and PyTorch's own functions of sizes."""
_FLAGS = "integer|positive|nonnegative|negative|nonpositive|nonzero|zero|real|finite|precision|evaluate|True|False|true|false"
_TOKEN = re.compile(
    rf"\s+|[-+*/%(),<>=!&|~]|(?:{_FUNCTIONS}|{_FLAGS})\b(?!')|[a-z]{{1,3}}\d+\b|\d+(?:\.\d+)?(?:e[-+]?\d+)?\b"
    r"|'(?!__)[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*'|'-?\d+(?:\.\d*)?(?:e[-+]?\d+)?'"
)
_GUARD = re.compile(
    rf"\s+|[-+*/%(),<>=!]|(?:{_FUNCTIONS}|and|or|not|True|False)\b|\d+(?:\.\d+)?\b"
    r"|L\['\w+'\](?:\[(?:\d+|'\w+')\])*(?:\.size\(\)\[\d+\])?"
)
"""What PyTorch notes about the sizes of its examples, such as `L['x'].size()[0] <= 64`."""
_TARGET = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized|quantized_decomposed|torchvision)\.(?!from_file|save|load)\w+(?:\.\w+)*"
    r"|torch\.ops\.(?:higher_order|profiler)\.\w+(?:\.\w+)*|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+"
)


def suspicious(description: bytes) -> tuple[str, ...]:
    """Return what in a program's JSON PyTorch would not have written itself, in words; each once."""
    try:
        program = json.loads(description)
    except (ValueError, RecursionError) as error:
        return (f"a description that can't be read ({error})",)
    try:
        found = [_told(key, value) for key, value in _texts(program)]
    except RecursionError:
        return ("a description nested too deeply",)
    return tuple(dict.fromkeys(one for one in found if one))


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every text below, with the key that it stands under."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        key, one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.items()
        elif isinstance(one, list):
            waiting += [(key, part) for part in one]
        elif isinstance(one, str):
            yield key, one


def _told(key: str, text: str) -> str:
    if (key == "expr_str" and not _consists(_TOKEN, text)) or (key == "guards_code" and not _consists(_GUARD, text)):
        return f"the expression {text[:80]!r}"
    if (
        key == "target"
        and "." in text
        and text.split(".")[0] in ("torch", "_operator", "math")
        and not _TARGET.fullmatch(text)
    ):
        return f"the call of {text[:80]}"
    return ""


def _consists(token: re.Pattern[str], text: str) -> bool:
    """Whether a text is a row of such tokens and nothing else."""
    at = 0
    while at < len(text):
        match = token.match(text, at)
        if match is None:
            return False
        at = match.end()
    return True
