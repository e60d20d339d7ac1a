"""Toolchains: made once and whole, jobs that can do nothing but answer, and every planted fault contained and named."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.service_process import until
from plimsoll.errors import BackendMissingError, BuildError, InputError, ModelError
from plimsoll.system import toolchains
from plimsoll.system.subprocesses import ProcessLimits
from plimsoll.system.toolchains import job as jobs

LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="signals, memory and namespaces are told otherwise there"
)
TOML = 'purpose = "planted faults"\npython = ">=3.11,<3.20"\nmegabytes = 30\n[environment]\nFAULTS = "planted"\n'
JOB = """
import ctypes, os, pathlib, socket, subprocess, sys, time

def run(request, inputs, out):
    print("begun", flush=True)
    fault = request["fault"]
    if fault == "none":
        (out / "made.txt").write_text(inputs["model"].read_text().upper())
        (out / "more").mkdir()
        (out / "more" / "beside.txt").write_text((inputs["model"].parent / "weights" / "beside.txt").read_text())
        return {"environment": dict(os.environ), "prefix": sys.prefix, "home": str(pathlib.Path.home()),
                "modules": sorted(sys.modules)}
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "abort":
        os.abort()
    if fault == "memory":
        hog = bytearray(os.urandom(1)) * 600_000_000
    if fault == "memory of a child":
        subprocess.run([sys.executable, "-c", "hog = bytearray(b'1') * 600_000_000; import time; time.sleep(3600)"])
    if fault == "overwrite":
        inputs["model"].write_text("spoiled")
        return {}
    if fault == "raise":
        raise ZeroDivisionError("by nought")
    if fault == "refuse":
        from plimsoll_job import RefusedError
        raise RefusedError("it has a Lambda layer", "give --trust")
    if fault == "network":
        socket.create_connection(("192.0.2.1", 80), 5)
    if fault == "swallowed network":
        try:
            socket.getaddrinfo("telemetry.example", 443)
        except OSError:
            return {}
    if fault == "native network":
        libc, address = ctypes.CDLL(None), bytes([2, 0, 0, 80, 192, 0, 2, 1]) + bytes(8)
        libc.connect(libc.socket(2, 1, 0), address, 16)
        return {}
    if fault == "crash at exit":
        import atexit
        atexit.register(os.abort)
        return {"done": True}
    if fault == "child left behind":
        return {"child": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid}
    time.sleep(3600)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder, and a toolchain without packages, for the tests of this file."""
    home = tmp_path_factory.mktemp("toolchains")
    (home / "recipes" / "jobs").mkdir(parents=True)
    (home / "recipes" / "faults.toml").write_text(TOML)
    (home / "recipes" / "faults.lock").write_text("# nothing\n")
    (home / "recipes" / "jobs" / "fault.py").write_text(JOB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLIMSOLL_CACHE", str(home / "cache"))
        patch.setenv("PLIMSOLL_TOOLCHAINS", str(home / "recipes"))
        yield home


@pytest.fixture(scope="module")
def ready(home: Path) -> Path:
    toolchains.make("faults")
    return home


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def fault(kind: str, folder: Path, limits: ProcessLimits | None = None) -> dict[str, object]:
    model = folder / "model.txt"
    (folder / "weights").mkdir()
    (folder / "weights" / "beside.txt").write_text("beside")
    model.write_text("weights")
    try:
        return toolchains.run(
            "faults",
            "fault",
            {"fault": kind},
            folder / "made",
            inputs={"model": (model, folder / "weights" / "beside.txt")},
            where="model.txt",
            limits=limits or ProcessLimits(120),
        )
    finally:
        assert model.read_text() == "weights"


def test_files_and_an_answer_come_back_from_the_toolchain_s_own_python(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    answer = fault("none", tmp_path)
    assert (tmp_path / "made" / "made.txt").read_text() == "WEIGHTS"
    assert (tmp_path / "made" / "more" / "beside.txt").read_text() == "beside"
    assert "begun" in (tmp_path / "made" / "fault.log").read_text()
    assert Path(str(answer["prefix"])).is_relative_to(ready / "cache")
    environment = answer["environment"]
    assert isinstance(environment, dict)
    assert environment["FAULTS"] == "planted"
    assert (
        environment["PIP_NO_INDEX"]
        == environment["HF_HUB_OFFLINE"]
        == environment["DO_NOT_TRACK"]
        == environment["ORT_DISABLE_TELEMETRY"]
        == "1"
    )
    assert not {"https_proxy", "SECRET_TOKEN"} & set(environment)
    assert Path(str(answer["home"])).is_relative_to(ready / "cache")
    modules = answer["modules"]
    assert isinstance(modules, list)
    assert "plimsoll" not in modules


def test_a_job_that_passed_leaves_nothing_in_the_cache(ready: Path, tmp_path: Path) -> None:
    before = sorted((ready / "cache" / "toolchains" / "jobs").iterdir())
    fault("none", tmp_path)
    assert sorted((ready / "cache" / "toolchains" / "jobs").iterdir())[: len(before)] == before[-jobs._FAILURES_KEPT :]


@LINUX
@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("kind", "limits", "message"),
    [
        ("segfault", ProcessLimits(120), "faults: fault: it was killed by a segmentation fault"),
        ("abort", ProcessLimits(120), "its own abort"),
        ("memory", ProcessLimits(120, 300_000_000), "GB of memory; its limit is 0.3 GB"),
        ("memory of a child", ProcessLimits(120, 300_000_000), "GB of memory; its limit is 0.3 GB"),
        ("raise", ProcessLimits(120), "ZeroDivisionError: by nought"),
        ("network", ProcessLimits(120), "no network"),
    ],
)
def test_a_planted_fault_is_contained_and_named(tmp_path: Path, kind: str, limits: ProcessLimits, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        fault(kind, tmp_path, limits)
    log = Path(caught.value.hint.partition("Its log: ")[2].partition(";")[0])
    assert "begun" in log.read_text()
    assert not (tmp_path / "made").exists()


@LINUX
@pytest.mark.usefixtures("ready")
def test_a_job_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    said = ""
    for seconds in (2, 15, 90):  # until that was enough to begin
        folder = tmp_path / str(seconds)
        folder.mkdir()
        with pytest.raises(BuildError, match=f"longer than its limit of {seconds} s") as caught:
            fault("hang", folder, ProcessLimits(seconds))
        assert not (folder / "made").exists()
        if said := Path(caught.value.hint.partition("Its log: ")[2].partition(";")[0]).read_text():
            break
    assert "begun" in said


@pytest.mark.usefixtures("ready")
def test_a_converter_that_overwrites_its_input_spoils_a_copy(tmp_path: Path) -> None:
    assert fault("overwrite", tmp_path) == {}


@pytest.mark.usefixtures("ready")
def test_what_a_script_refuses_is_the_user_s_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Lambda layer") as caught:
        fault("refuse", tmp_path)
    assert caught.value.hint == "give --trust"


@pytest.mark.usefixtures("ready")
def test_a_crash_after_the_answer_spoils_nothing(tmp_path: Path) -> None:
    assert fault("crash at exit", tmp_path) == {"done": True}


@LINUX
@pytest.mark.usefixtures("ready")
def test_nobody_is_left_behind(tmp_path: Path) -> None:
    child = fault("child left behind", tmp_path)["child"]
    assert isinstance(child, int)
    until(lambda: not alive(child), "the child to end")


@pytest.mark.usefixtures("ready")
def test_an_attempt_to_reach_the_network_that_is_swallowed_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "plimsoll"):
        fault("swallowed network", tmp_path)
    assert "telemetry.example" in caplog.text


@LINUX
@pytest.mark.usefixtures("ready")
def test_an_attempt_of_native_code_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not jobs._without_network():
        pytest.skip("this system lets nobody make a network namespace")
    with caplog.at_level(logging.WARNING, "plimsoll"):
        fault("native network", tmp_path)
    assert "native code" in caplog.text


@LINUX
@pytest.mark.usefixtures("ready")
def test_a_failed_job_can_be_repeated_by_hand(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        fault("segfault", tmp_path)
    command = caught.value.hint.partition("to repeat it: ")[2]
    again = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert b"begun" in again.stdout
    assert again.returncode in {-signal.SIGSEGV, 128 + signal.SIGSEGV}


@pytest.mark.usefixtures("ready")
def test_only_the_last_failures_are_kept(ready: Path, tmp_path: Path) -> None:
    folder = ready / "cache" / "toolchains" / "jobs"
    for number in range(9):
        old = folder / f"2020010{number}-000000-faults-fault-x"
        old.mkdir()
        (old / "parent").write_text("999999999")
    fault("overwrite", tmp_path)
    assert len(list(folder.iterdir())) <= jobs._FAILURES_KEPT
    assert not (folder / "20200101-000000-faults-fault-x").exists()


def test_a_half_made_environment_is_made_again_by_one_of_two_while_the_other_waits(ready: Path) -> None:
    folder = toolchains.make("faults")
    (folder / ".complete").unlink()
    (folder / "env" / "pyvenv.cfg").unlink()
    assert not toolchains.is_ready("faults")
    program = (
        "import logging, sys; logging.basicConfig(level=20, stream=sys.stdout); from plimsoll.system import toolchains;"
        " print(toolchains.make('faults'))"
    )
    makers = [
        subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [maker.communicate(timeout=200)[0] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    for message in ("incomplete: creating it again", "creating the toolchain 'faults', once"):
        assert sum(message in text for text in said) == 1
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1] == str(folder)
    assert toolchains.is_ready("faults")
    assert (folder / "env" / "pyvenv.cfg").exists()
    assert ready in folder.parents


def test_another_lock_is_another_environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faults.toml").write_text(TOML)
    (tmp_path / "faults.lock").write_text("# nothing else\n")
    before = toolchains.describe("faults").folder
    monkeypatch.setenv("PLIMSOLL_TOOLCHAINS", f"{tmp_path}{os.pathsep}{home / 'recipes'}")
    after = toolchains.describe("faults")
    assert after.folder != before
    assert not after.ready


@pytest.mark.usefixtures("home")
def test_removing_frees_what_it_took() -> None:
    toolchains.make("faults")
    assert toolchains.describe("faults").size_bytes > 1_000_000
    toolchains.remove("faults")
    assert toolchains.describe("faults").size_bytes == 0
    assert not toolchains.is_ready("faults")


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str, python: str = ">=3.11,<3.20") -> None:
    (tmp_path / "planted.toml").write_text(f'purpose = "x"\npython = "{python}"\nmegabytes = 1\n')
    (tmp_path / "planted.lock").write_text(lock)
    monkeypatch.setenv("PLIMSOLL_TOOLCHAINS", str(tmp_path))
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))


def test_what_can_t_be_installed_is_reported_in_the_installer_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(tmp_path, monkeypatch, f"plimsoll-no-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(BackendMissingError, match="plimsoll-no-such-package") as caught:
        toolchains.make("planted")
    assert "network" in caught.value.hint
    assert not toolchains.is_ready("planted")


def test_a_python_that_isn_t_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(tmp_path, monkeypatch, "", ">=3.90,<3.91")
    with pytest.raises(BackendMissingError, match=r"needs Python >=3\.90,<3\.91"):
        toolchains.make("planted")


def test_an_unknown_toolchain_or_job_is_the_caller_s_mistake(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown toolchain 'fault'"):
        toolchains.make("fault")
    with pytest.raises(InputError, match="no job 'other'"):
        toolchains.run("faults", "other", {}, tmp_path, where="model.txt")
    assert ready.exists()
