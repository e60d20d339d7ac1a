"""What libraries print does not reach the terminal; what they have to say about an error does, in the message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import crashing_runtime
from helpers.small_models import SPEC, small_model
from helpers.tflite_writer import network
from plimsoll import backends
from plimsoll.core.target import Target
from surfaces.conftest import Run

DEPLOYABLE = [
    available.target
    for name in backends.names()
    for available in backends.get(name).targets()
    if backends.get(name).deployable and not available.missing and not available.toolchain
]
"""Targets that this machine has, and that need no toolchain."""
LOUD = f"{crashing_runtime.CHATTERS}.onnx"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SPEC)
    return file


def is_quiet(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert all(json.loads(line)["scores"] for line in done.stdout.splitlines())
    assert [line.partition(" in ")[0] for line in done.stderr.splitlines()] == ["plimsoll: 1 picture"]


@pytest.mark.parametrize("target", [target for target in DEPLOYABLE if target.precision == "float32"], ids=str)
def test_no_runtime_writes_to_the_terminal(
    plimsoll: Run, spec: Path, tmp_path: Path, example_photos: list[Path], target: Target
) -> None:
    model = small_model(tmp_path / "model").path
    is_quiet(plimsoll("predict", model, "--spec", spec, "--target", target, example_photos[0]))


def test_litert_does_not_say_that_it_created_a_delegate(
    plimsoll: Run, tmp_path: Path, example_photos: list[Path]
) -> None:
    pytest.importorskip("ai_edge_litert")
    model, spec = network(tmp_path / "net.tflite"), tmp_path / "small.toml"
    spec.write_text(SPEC.replace("width = 6", "width = 2").replace("height = 5", "height = 2"))
    arguments = ("predict", model, "--spec", spec, "--target", "litert:cpu:float32", example_photos[0])
    is_quiet(plimsoll(*arguments))
    # With this variable the descriptors are not separated: here the backend alone keeps the greeting back.
    is_quiet(plimsoll(*arguments, env={"PLIMSOLL_DEBUG": "1"}))


@pytest.fixture
def chatter(spec: Path, tmp_path: Path) -> tuple[dict[str, str], list[str | Path]]:
    """A runtime that prints in every way there is."""
    environment = crashing_runtime.install(tmp_path / "outsider")
    model = small_model(tmp_path / "model").path.rename(tmp_path / LOUD)
    return environment, ["predict", model, "--spec", spec, "--target", "fragile:cpu:float32"]


def test_whatever_a_library_prints_stays_off_both_streams(
    plimsoll: Run, chatter: tuple[dict[str, str], list[str | Path]], example_photos: list[Path]
) -> None:
    environment, arguments = chatter
    is_quiet(plimsoll(*arguments, example_photos[0], env=environment))
    shown = plimsoll(*arguments, example_photos[0], env={**environment, "PLIMSOLL_DEBUG": "1"})
    assert "native error" in shown.stderr
    assert "native output" in shown.stdout


def test_what_was_printed_last_can_be_asked_for() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys\nfrom plimsoll.system import native_output\n"
            "print(repr(native_output.recent()))\nnative_output.separate()\nnative_output.separate()\n"
            "os.write(1, b'first\\n')\nos.write(2, b'\\xff second\\n')\n"
            "import ctypes\nflood = b'much more than a pipe holds\\n' * 20000\n"
            "ctypes.PyDLL(None).write(2, flood, len(flood))  # with Python's lock held\n"
            "print('pipe holds | much' in native_output.recent(), native_output.recent() == '')\n"
            "os.write(2, b'the last\\n')\nprint(native_output.recent())\nprint('own', file=sys.stderr)\n"
            "os.system('echo a child; echo a child >&2')\nprint(native_output.recent())",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [
        "''",
        "True True",
        "the last",
        "a child | a child",
    ]
    assert done.stderr == "own\n"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)


def test_a_greeting_is_held_back_and_all_else_is_not() -> None:
    done = python(
        "import os\nfrom plimsoll.system import native_output\n"
        "with native_output.without('Hello'):\n    os.write(2, b'before\\nINFO: Hello, world\\nafter\\n')\n"
        "os.write(2, b'Hello again\\n')\nos.close(2)\n"
        "with native_output.without('Hello'):\n    print('closed')\n",
    )
    assert (done.stdout, done.stderr) == ("closed\n", "before\nafter\nHello again\n")


def test_a_library_that_greets_does_not_write_to_a_python_users_terminal(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    file = network(tmp_path / "net.tflite", "float32")
    done = python(
        "import sys\nfrom pathlib import Path\nfrom plimsoll.backends.runner import Runner\n"
        "from plimsoll.core.model import Model\nfrom plimsoll.core.target import Target\n"
        f"with Runner.open(Model(Path({str(file)!r}), 'tflite'), Target('litert')) as runner:\n"
        "    print(runner.outputs[0].name)\n"
    )
    assert (done.stdout, done.stderr) == ("scores\n", "")
