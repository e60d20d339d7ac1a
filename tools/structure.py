"""Measure the shape of the package: entries, layers, arrows between rooms, files, lines, and the files behind three
paths.

    python tools/structure.py [--paths] [--root CHECKOUT]

A room is an entry at the top of src/plimsoll: a folder or a module. An arrow leads from a room to another that it
imports anywhere, in functions and for types too. `--paths` runs open_nsfw on an example photograph and counts the
files of the package in which a function runs (comprehensions and class bodies do not count): `predict`, one `POST
/v1/predict`, and one int8 candidate of `ship`. It needs the weights (`plimsoll zoo fetch open_nsfw`).
"""

from __future__ import annotations

import argparse
import ast
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "plimsoll"
GENERATED = "_pb2.py"
MAX_LINES = 400


class House:
    """The package of a checkout, read as text: nothing of it is imported."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.folder = root / "src" / PACKAGE
        self.files = sorted(path for path in self.folder.rglob("*.py") if not path.name.endswith(GENERATED))

    def entries(self) -> tuple[list[str], list[str]]:
        """Return the folders and the modules at the top."""
        folders = [path.name for path in self.folder.iterdir() if path.is_dir() and path.name != "__pycache__"]
        return sorted(folders), sorted(path.name for path in self.folder.glob("*.py"))

    def layers(self) -> list[list[str]]:
        """Return the layers of import-linter's contract, the highest first."""
        settings = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))
        contracts = settings["tool"]["importlinter"]["contracts"]
        layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
        return [layer.replace("|", " ").replace(":", " ").split() for layer in layers]

    def arrows(self) -> set[tuple[str, str]]:
        """Return which room imports which."""
        rooms = {path.stem if path.is_file() else path.name for path in self.folder.iterdir()} - {"__init__"}
        return {
            (room, imported)
            for path in self.files
            if (room := self._room(path)) != "__init__"
            for imported in _imported_rooms(path, rooms)
            if imported != room
        }

    def upward(self) -> set[tuple[str, str]]:
        """Return the arrows that lead from a lower layer to a higher one."""
        height = {room: -index for index, layer in enumerate(self.layers()) for room in layer}
        return {arrow for arrow in self.arrows() if height.get(arrow[0], 1) < height.get(arrow[1], 1)}

    def lines(self) -> dict[Path, int]:
        """Return each file's count of lines."""
        return {path: len(path.read_text(encoding="utf-8").splitlines()) for path in self.files}

    def faces_with_code(self) -> list[Path]:
        """Return the `__init__.py` files that hold more than a docstring, imports and `__all__`; the top one loads
        lazily."""
        top = self.folder / "__init__.py"
        return [path for path in self.files if path.name == "__init__.py" and path != top and not _is_face(path)]

    def _room(self, path: Path) -> str:
        first = path.relative_to(self.folder).parts[0]
        return first.removesuffix(".py")


def _imported_rooms(path: Path, rooms: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (alias.name for alias in node.names if alias.name in rooms)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith(f"{PACKAGE}."))


def _is_face(path: Path) -> bool:
    return all(
        isinstance(node, (ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    )


# A path is traced: the files in which a function runs, in a process and in those that it starts, between two moments.
# Processes forget what they ran when the file `begin` appears in the folder of the trace, and write it down at `end`.

TRACER = """
import atexit, os, sys, threading, time
_folder = os.environ.get("PLIMSOLL_TRACE")
_seen = set()
def _look(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_flags & 1 and not code.co_name.startswith("<"):
        _seen.add(code.co_filename)
def _write():
    if not os.path.exists(path := os.path.join(_folder, f"{os.getpid()}.txt")):
        with open(path, "w") as out:
            out.write(chr(10).join(list(_seen)))
def _await(name):
    while not os.path.exists(os.path.join(_folder, name)):
        time.sleep(0.02)
def _watch():
    _await("begin")
    _seen.clear()
    _await("end")
    _write()
if _folder:
    threading.Thread(target=_watch, daemon=True).start()
    sys.setprofile(_look)
    threading.setprofile(_look)
    atexit.register(_write)
"""

PHOTO = "examples/photos/astronaut.jpg"
LOAD = "import plimsoll; model = plimsoll.load('open_nsfw')"
PREDICT = f"""
import pathlib, sys, time
{LOAD}
model.predict('{PHOTO}')
folder = pathlib.Path(sys.argv[1])
(folder / 'begin').touch(); time.sleep(0.5)
model.predict('{PHOTO}')
(folder / 'end').touch(); time.sleep(0.5)
"""
SHIP = ("--targets", "onnxruntime:cpu:int8", "--calibrators", "percentile", "--time", "20s", "--force")


class Trace:
    """Runs Python in a checkout, and knows which files of the package each process ran."""

    def __init__(self, house: House, folder: Path) -> None:
        self._house = house
        self.folder = folder
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(TRACER, encoding="utf-8")
        path = os.pathsep.join((str(folder / "site"), str(house.root / "src")))
        self._environment = {**os.environ, "PLIMSOLL_TRACE": str(folder), "PYTHONPATH": path}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python with these arguments."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._house.root,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def mark(self, moment: str) -> None:
        """Begin or end what is looked at."""
        (self.folder / moment).touch()
        time.sleep(0.5)

    def processes(self) -> list[set[str]]:
        """Return the files that each process ran."""
        package = str(self._house.folder) + os.sep
        return [
            {name.removeprefix(package) for name in file.read_text().splitlines() if name.startswith(package)}
            for file in self.folder.glob("*.txt")
        ]


def files_of_load(trace: Trace) -> set[str]:
    """Return the files behind `plimsoll.load(…)`."""
    trace.start("-c", LOAD).communicate()
    return set().union(*trace.processes())


def files_of_predict(trace: Trace) -> set[str]:
    """Return the files behind `model.predict(…)`, once the model is loaded and has answered a picture."""
    trace.start("-c", PREDICT, str(trace.folder)).communicate()
    return set().union(*trace.processes())


def files_of_a_post(trace: Trace) -> set[str]:
    """Return the files behind one `POST /v1/predict`, in the web process and in the worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    port = address.rpartition(":")[2]
    service = trace.start("-m", "plimsoll", "serve", "open_nsfw", "--port", port, "--workers", "1")
    try:
        while not _is_ready(address):
            time.sleep(0.2)
        picture = (ROOT / PHOTO).read_bytes()
        trace.mark("begin")
        request = urllib.request.Request(f"{address}/v1/predict", picture, {"Content-Type": "image/jpeg"})
        urllib.request.urlopen(request, timeout=60).close()
        trace.mark("end")
    finally:
        service.kill()
        service.communicate()
    return set().union(*trace.processes())


def files_of_a_candidate(trace: Trace) -> set[str]:
    """Return the files behind one int8 candidate of `ship`, in the process that builds and tries it."""
    photos = str(ROOT / "examples" / "photos")
    out, work = str(trace.folder / "bundle"), str(trace.folder / "work")
    trace.start(
        "-m", "plimsoll", "ship", "open_nsfw", "--images", photos, "--out", out, "--work", work, *SHIP
    ).communicate()
    jobs = [files for files in trace.processes() if "cli/ship.py" not in files]
    return max(jobs, key=len)


def _is_ready(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/readyz", timeout=5).close()
    except OSError:
        return False
    return True


PATHS = {
    "load": files_of_load,
    "predict": files_of_predict,
    "one POST /v1/predict": files_of_a_post,
    "one int8 candidate of ship": files_of_a_candidate,
}


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout to measure")
    parser.add_argument("--paths", action="store_true", help="also trace three paths; lists their files")
    options = parser.parse_args()
    house = House(options.root.resolve())
    for name, value in measure(house).items():
        print(f"{name:44} {value}")
    for name, files_of in PATHS.items() if options.paths else ():
        with tempfile.TemporaryDirectory() as folder:
            files = files_of(Trace(house, Path(folder)))
        print(f"{f'files behind {name}':44} {len(files)}\n    {' '.join(sorted(files))}")


def measure(house: House) -> dict[str, int | str]:
    """Return the figures by their names."""
    folders, modules = house.entries()
    lines = house.lines()
    longest = max(lines, key=lambda path: lines[path])
    return {
        "entries at the top": len(folders) + len(modules),
        "modules among them": len(modules),
        "layers": len(house.layers()),
        "arrows between rooms": len(house.arrows()),
        "arrows upward": len(house.upward()),
        "files": len(lines),
        "lines": sum(lines.values()),
        "files under 60 lines, faces apart": sum(
            1 for path, count in lines.items() if count < 60 and path.name != "__init__.py"
        ),
        f"files over {MAX_LINES} lines": sum(1 for count in lines.values() if count > MAX_LINES),
        "longest file": f"{longest.relative_to(house.folder)} ({lines[longest]})",
        "faces with code": len(house.faces_with_code()),
    }


if __name__ == "__main__":
    main()
