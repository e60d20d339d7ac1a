"""Find out what a PyTorch file contains, without running any of it and without PyTorch.

Pickles are walked opcode by opcode, never loaded. An exported program is no pickle, but its JSON is not inert either:
`torch.export.load` has SymPy evaluate its sizes as Python, and looks up the targets of calls by their dotted names
anywhere below `torch`. So only what PyTorch itself writes is accepted in both.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from plimsoll.errors import ModelError

FileKind = Literal["exported", "torchscript", "weights", "module"]
"""A torch.export program; a TorchScript archive; tensors by their names; a pickled module, or anything else that runs
code when it is loaded."""

MAX_PICKLE = 512_000_000
_MAX_MEMBERS = 1_000_000
_PICKLES_IN_A_ROW = 5
"""A file of before 2020 has a magic number, a version, facts of the system, the object, and the keys of its tensors,
each a pickle."""
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")
_HINT = "Was it copied completely?"

_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\.(Size|storage\.(Typed|Untyped)Storage"
    r"|_utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter)"
    r"|\w+Storage|(b?float|double|half|int|long|short|uint|bool|complex)\w*|device|dtype"
    r"|serialization\._get_layout|_tensor\._rebuild_from_type_v2|nn\.parameter\.Parameter)"
    r"|numpy(\._?core\.multiarray)?\.(scalar|dtype|_reconstruct|ndarray)|_codecs\.encode"
)
"""What the pickle of a state dict names; PyTorch's own `weights_only` loading knows about the same."""
_SCRIPT = re.compile(r"__torch__\..*|torch\.jit\._pickle\.\w+")
_REACHES_OUT = re.compile(
    r"\b(?:torch|ops\.aten)\.(from_file|save|load)\(|\bops\.(?!aten\b|prim\b|quantized\b|torchvision\b)(\w+)\."
)
"""TorchScript that reads or writes files, or calls operators of libraries that are not PyTorch's."""

_FUNCTIONS = (
    "Symbol|Integer|Float|Rational|Half|One|Zero|NegativeOne|Infinity|NegativeInfinity|Mul|Add|Pow|Abs|Max|Min|Mod|"
    "PythonMod|FloorDiv|CleanDiv|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|FloatPow|PowByNatural|LShift|RShift|"
    "ToFloat|TruncToInt|TruncToFloat|CeilToInt|FloorToInt|RoundToInt|RoundDecimal|IsNonOverlappingAndDenseIndicator|"
    "Identity|And|Or|Not|Xor|ITE|Piecewise|ExprCondPair|Equality|Unequality|StrictLessThan|LessThan|"
    "StrictGreaterThan|GreaterThan|Eq|Ne|Lt|Le|Gt|Ge|sqrt|ceiling|floor"
)
"""What an expression may call: SymPy's numbers, arithmetic and comparisons, and PyTorch's own functions of sizes."""
_FLAGS = (
    "integer|positive|nonnegative|negative|nonpositive|nonzero|zero|real|finite|precision|evaluate|"
    "True|False|true|false"
)
_SIZE_TOKEN = re.compile(
    rf"\s+|[-+*/%(),<>=!&|~]|(?:{_FUNCTIONS}|{_FLAGS})\b(?!')|[a-z]{{1,3}}\d+\b|\d+(?:\.\d+)?(?:e[-+]?\d+)?\b"
    r"|'(?!__)[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*'|'-?\d+(?:\.\d*)?(?:e[-+]?\d+)?'"
)
_GUARD_TOKEN = re.compile(
    rf"\s+|[-+*/%(),<>=!]|(?:{_FUNCTIONS}|and|or|not|True|False)\b|\d+(?:\.\d+)?\b"
    r"|L\['\w+'\](?:\[(?:\d+|'\w+')\])*(?:\.size\(\)\[\d+\])?"
)
"""What PyTorch notes about the sizes of its examples, such as `L['x'].size()[0] <= 64`."""
_CALL_TARGET = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized|quantized_decomposed|torchvision)\.(?!from_file|save|load)\w+(?:\.\w+)*"
    r"|torch\.ops\.(?:higher_order|profiler)\.\w+(?:\.\w+)*|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+"
)


@dataclass(frozen=True)
class Contents:
    """The contents of a PyTorch file."""

    kind: FileKind
    suspicious: tuple[str, ...] = ()
    """What would run, or reach outside the network, when the file is used; in words or as `module.name`."""
    tensors: tuple[str, ...] = field(default=())
    """Names that look like those of weights; some, where there are many."""


def look(path: Path) -> Contents:
    """Return the contents of a file; raises ModelError for anything but a PyTorch file."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(16)
            if begin.startswith(b"PK\x03\x04"):
                with zipfile.ZipFile(stream) as archive:
                    return _archive(archive, path)
            stream.seek(0)
            if path.suffix.lower() == ".safetensors" and begin[8:9] == b"{":
                return Contents("weights")
            if begin.startswith(b"\x80"):
                return _pickled([stream.read(MAX_PICKLE)])
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ModelError(f"{path}: can't be read: {reason}", _HINT) from error
    raise ModelError(f"{path}: not a PyTorch file: it begins with {begin!r}", _HINT)


def _archive(archive: zipfile.ZipFile, path: Path) -> Contents:
    names = archive.namelist()
    if len(names) > _MAX_MEMBERS:
        raise ModelError(f"{path}: an archive of {len(names):,} files", "No PyTorch file has that many.")
    tails = {name.partition("/")[2]: name for name in names}
    if any(
        tail.startswith("data/aotinductor/") or tail.endswith((".so", ".dll", ".dylib", ".cubin")) for tail in tails
    ):
        raise ModelError(
            f"{path}: it holds compiled machine code (AOTInductor), which can't become ONNX",
            "Give what torch.export.save writes.",
        )
    if (
        any(tail == "archive_format" or re.fullmatch(r"models/[^/]+\.json", tail) for tail in tails)
        or "serialized_exported_program.json" in names
    ):
        objects = tuple(tail for tail in tails if re.search(r"constants/(custom|opaque)_obj", tail))
        described = [name for name in names if name.endswith(".json")]
        running = dict.fromkeys(code for name in described for code in _foreign_code(_read(archive, name, path)))
        return Contents(
            "exported",
            (*(f"the pickled object {name}" for name in objects), *_own_pickles(archive, names, path), *running),
        )
    if "constants.pkl" in tails:
        code = [name for name in names if "/code/" in name and name.endswith(".py")]
        reaching = {
            match.group().rstrip("(")
            for name in code
            for match in _REACHES_OUT.finditer(_read(archive, name, path).decode("utf-8", "replace"))
        }
        pickles = [_read(archive, name, path) for name in names if name.endswith(".pkl") and "/code/" not in name]
        return Contents(
            "torchscript", (*sorted(reaching), *(name for name in _globals(pickles)[0] if not _SCRIPT.fullmatch(name)))
        )
    if "data.pkl" in tails:
        return _pickled([_read(archive, tails["data.pkl"], path)])
    raise ModelError(
        f"{path}: a zip archive, but not PyTorch's: it has {', '.join(names[:5]) or 'no files'}",
        "Give the file that torch.save or torch.export.save wrote.",
    )


def _own_pickles(archive: zipfile.ZipFile, names: list[str], path: Path) -> tuple[str, ...]:
    """Return what the tensors that an exported program keeps as archives of their own would run: its sample inputs,
    constants, weights."""
    imported: list[str] = []
    for name in names:
        data = _read(archive, name, path) if name.endswith(".pt") or "/sample_inputs/" in name else b""
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as inner:
                imported += _globals([_read(inner, part, path) for part in inner.namelist() if part.endswith(".pkl")])[
                    0
                ]
        elif data.startswith(b"\x80"):
            imported += _globals([data])[0]
    return tuple(dict.fromkeys(imported))


def _pickled(pickles: list[bytes]) -> Contents:
    unknown, texts = _globals(pickles)
    tensors = tuple(
        text for text in texts if re.fullmatch(r"[\w.]+\.(weight|bias|running_mean|running_var|\w+)", text)
    )[:20]
    return Contents("module" if unknown else "weights", unknown, tensors)


def _globals(pickles: list[bytes]) -> tuple[tuple[str, ...], list[str]]:
    """Return what pickles import that isn't needed for tensors, and the texts in them. A pickle that can't be walked
    counts as unknown."""
    unknown: dict[str, None] = {}
    texts: list[str] = []
    for data in pickles:
        stream = io.BytesIO(data)
        try:
            for index in range(_PICKLES_IN_A_ROW):
                # Behind the last pickle of a file of before 2020 lie the tensors' bytes.
                if index and data[stream.tell() : stream.tell() + 1] != b"\x80":
                    break
                _walk(stream, unknown, texts)
        except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
            unknown[f"a pickle that can't be read ({error})"] = None
    return tuple(unknown), texts


def _walk(stream: io.BytesIO, unknown: dict[str, None], texts: list[str]) -> None:
    """Note what one pickle imports, up to its end."""
    memory: dict[int, str | None] = {}
    pushed: list[str | None] = [None, None]
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in _TEXTS:
            texts.append(str(argument))
            pushed = [pushed[-1], str(argument)]
        elif opcode.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            memory[len(memory) if argument is None else int(argument)] = pushed[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            pushed = [pushed[-1], memory.get(int(argument or 0))]
        elif opcode.name in ("GLOBAL", "INST"):
            _note(str(argument).replace(" ", "."), unknown)
            pushed = [pushed[-1], None]
        elif opcode.name == "STACK_GLOBAL":
            _note(".".join(name or "?" for name in pushed), unknown)
            pushed = [None, None]
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            _note("an extension code", unknown)
        else:
            pushed = [pushed[-1], None]


def _note(name: str, unknown: dict[str, None]) -> None:
    if not _TENSORS.fullmatch(name):
        unknown[name] = None


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if archive.getinfo(name).file_size > MAX_PICKLE:
        raise ModelError(
            f"{path}: {name} in it has {archive.getinfo(name).file_size:,} bytes; at most {MAX_PICKLE:,} are read"
        )
    return archive.read(name)


def _foreign_code(description: bytes) -> tuple[str, ...]:
    """Describe what in a program's JSON PyTorch would not have written itself, without duplicates."""
    try:
        program = json.loads(description)
    except (ValueError, RecursionError) as error:
        return (f"a description that can't be read ({error})",)
    try:
        reasons = [_reason(key, value) for key, value in _texts(program)]
    except RecursionError:
        return ("a description nested too deeply",)
    return tuple(dict.fromkeys(reason for reason in reasons if reason))


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every text in nested data, with its key."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        key, entry = waiting.pop()
        if isinstance(entry, dict):
            waiting += entry.items()
        elif isinstance(entry, list):
            waiting += [(key, part) for part in entry]
        elif isinstance(entry, str):
            yield key, entry


def _reason(key: str, text: str) -> str:
    if (key == "expr_str" and not _consists_of(_SIZE_TOKEN, text)) or (
        key == "guards_code" and not _consists_of(_GUARD_TOKEN, text)
    ):
        return f"the expression {text[:80]!r}"
    if (
        key == "target"
        and "." in text
        and text.split(".")[0] in ("torch", "_operator", "math")
        and not _CALL_TARGET.fullmatch(text)
    ):
        return f"the call of {text[:80]}"
    return ""


def _consists_of(token: re.Pattern[str], text: str) -> bool:
    """Tell whether a text consists of such tokens only."""
    at = 0
    while at < len(text):
        match = token.match(text, at)
        if match is None:
            return False
        at = match.end()
    return True
