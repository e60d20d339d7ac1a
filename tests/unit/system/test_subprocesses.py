"""Work in a process of its own: results come back, and whatever ends it early is said in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.service_process import until
from plimsoll.system import subprocesses
from plimsoll.system.subprocesses import JobError, ProcessLimits

AMPLE = ProcessLimits(120)

WORK = """
import ctypes, os, sys, time
from plimsoll.errors import ModelError

def run(payload):
    print("begun", flush=True)
    kind = payload["kind"]
    if kind == "double":
        return {"twice": payload["value"] * 2}
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "exit":
        print("the last words"); sys.stdout.flush(); os._exit(7)
    if kind == "exception":
        raise ZeroDivisionError("by nought")
    if kind == "ours":
        raise ModelError("no such layer", "look again")
    if kind == "memory":
        hog = bytearray(os.urandom(1)) * 600_000_000
    if kind == "children":
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        open(payload["file"] + ".part", "w").write(str(child.pid))
        os.rename(payload["file"] + ".part", payload["file"])
    time.sleep(3600)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "piece_of_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return "piece_of_work"


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_result_comes_back_and_the_log_is_kept(module: str, tmp_path: Path) -> None:
    assert subprocesses.run_job(module, {"kind": "double", "value": 21}, tmp_path / "job", AMPLE) == {"twice": 42}
    assert (tmp_path / "job" / "log.txt").read_text() == "begun\n"


@pytest.mark.parametrize(
    ("kind", "limits", "message"),
    [
        ("segfault", AMPLE, "a segmentation fault"),
        ("exit", AMPLE, "exit code 7: the last words"),
        ("exception", AMPLE, "by nought"),
        ("ours", AMPLE, "no such layer"),
        ("hang", ProcessLimits(1), "longer than its limit of 1 s"),
        ("memory", replace(AMPLE, memory_bytes=300_000_000), "of memory; its limit is 0.3 GB"),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and memory are told otherwise there")
def test_what_ends_it_early_is_reported(
    module: str, tmp_path: Path, kind: str, limits: ProcessLimits, message: str
) -> None:
    with pytest.raises(JobError, match=message) as caught:
        subprocesses.run_job(module, {"kind": kind}, tmp_path / "job", limits)
    assert "log.txt" in caught.value.hint or kind == "ours"


def test_an_old_result_is_not_taken_for_a_new_one(module: str, tmp_path: Path) -> None:
    subprocesses.run_job(module, {"kind": "double", "value": 1}, tmp_path / "job", AMPLE)
    with pytest.raises(JobError):
        subprocesses.run_job(module, {"kind": "exit"}, tmp_path / "job", AMPLE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_its_children_end_with_it(module: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    for seconds in (2, 15, 90):  # until that was enough to start a child
        with pytest.raises(JobError, match="longer"):
            subprocesses.run_job(
                module, {"kind": "children", "file": str(file)}, tmp_path / "job", ProcessLimits(seconds)
            )
        if file.exists():
            break
    child = int(file.read_text())
    until(lambda: not alive(child), "the child to end")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_ends_when_its_parent_is_killed(module: str, tmp_path: Path) -> None:
    program = (
        f"from plimsoll.system import subprocesses; subprocesses.run_job({module!r}, {{'kind': 'hang'}},"
        f" __import__('pathlib').Path({str(tmp_path / 'job')!r}), subprocesses.ProcessLimits(300))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ))
    log = tmp_path / "job" / "log.txt"
    until(lambda: log.exists() and log.read_text(), "the work to begin")
    (worker,) = [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and str(tmp_path / "job").encode() in cmdline(path) and int(path.name) != parent.pid
    ]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not alive(worker), "the worker to end")


def cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_job_can_be_repeated_by_hand(module: str, tmp_path: Path) -> None:
    subprocesses.run_job(module, {"kind": "double", "value": 4}, tmp_path / "job", AMPLE)
    (tmp_path / "job" / "result.json").unlink()
    subprocess.run(
        [sys.executable, "-m", "plimsoll.system.subprocesses", str(tmp_path / "job")], check=True, env=dict(os.environ)
    )
    assert json.loads((tmp_path / "job" / "result.json").read_text()) == {"result": {"twice": 8}}
