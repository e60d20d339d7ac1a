"""What `plimsoll predict` writes survives: names of any kind in any encoding, a full disk, a closed pipe, signals; a
file is not overwritten, and a run goes on where another ended."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from helpers.service_process import until
from helpers.slow_predictor import pictures
from helpers.small_models import small_model
from plimsoll.spec.files import dumps
from surfaces.conftest import COMMAND, RunHere

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals, limits and odd names are those of POSIX")

ODD = (b"caf\xe9.png", "😀.png".encode(), b"a\nb.png", b"cr\rb.png", b"\x1b[2J.png", b'",;\t.png')
ENDINGS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet")
KINDS = ("jsonl.gz", "csv", "parquet")
"""One of each way to write: lines, compressed, with a header, in row groups."""
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture
def net(tmp_path: Path) -> list[str]:
    """What the command line takes for a small network."""
    model = small_model(tmp_path / "net")
    (tmp_path / "net" / "spec.toml").write_text(dumps(model.require_spec()))
    return [str(model.path), "--spec", str(tmp_path / "net" / "spec.toml")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures."""
    (tmp_path / "pictures").mkdir()
    pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


def run(*arguments: str | Path, setup: Callable[[], object] | None = None, **more: Any) -> Done:
    """Run a command; `setup` runs in its process before it."""
    command = [*COMMAND, *map(str, arguments)]
    more = {"capture_output": True, "stdin": subprocess.DEVNULL, "timeout": 120, "check": False} | more
    done = cast(Done, subprocess.run(command, preexec_fn=setup, **more))
    assert b"Traceback" not in (done.stderr or b"")
    return done


def file_limit(size: int) -> Callable[[], object]:
    """No file may grow beyond `size` bytes: a disk that is full, as far as the writer can tell."""
    return functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))


def read(path: Path) -> list[tuple[str, str]]:
    """Return path and error of each row, whatever the format."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return [(row["path"], row["error"] or "") for row in parquet.read_table(path).to_pylist()]
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode()
    assert text.endswith("\n")
    if ".jsonl" in path.name:
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.name else ","))
        assert all(None not in row and None not in row.values() for row in rows)
    return [(row["path"], row["error"] or "") for row in rows]


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def paths(path: Path) -> list[str]:
    return [name for name, error in read(path) if not error]


@pytest.mark.parametrize(
    ("form", "encoding"),
    [
        ("table", "ascii"),
        ("table", "cp1252"),
        ("jsonl", "cp1252"),
        ("jsonl", "utf-16"),
        ("csv", "ascii"),
        ("tsv", "utf-8"),
    ],
)
def test_names_of_every_kind_in_every_encoding(net: list[str], folder: Path, encoding: str, form: str) -> None:
    for name in ODD:
        shutil.copy(folder / "0.png", folder / os.fsdecode(name))
    done = run("predict", *net, folder, "--format", form, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    if form == "table":
        assert "\x1b" not in text
        assert len(text.splitlines()) == 1 + 9 + 1
    elif form == "jsonl":
        actual = {json.loads(line)["path"] for line in text.splitlines()}
        assert actual == {
            os.fsdecode(os.fsencode(folder) + b"/" + name) for name in (*ODD, b"0.png", b"1.png", b"2.png")
        }
    else:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="," if form == "csv" else "\t"))
        assert {len(row) for row in rows} == {8}
        assert len(rows) == 1 + 9
    assert b"9 pictures" in done.stderr.replace(b"\0", b"")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_is_not_overwritten_but_continued_or_replaced(
    run_here: RunHere, net: list[str], folder: Path, ending: str
) -> None:
    out = folder.parent / f"answers.{ending}"
    (odd,) = [os.fsdecode(os.fsencode(folder) + b"/" + ODD[0])]
    shutil.copy(folder / "0.png", odd)
    assert run_here("predict", *net, folder / "1.png", odd, "missing.png", "--out", out).returncode == 0
    first = read(out)
    before = out.read_bytes()
    refused = run_here("predict", *net, folder, "--out", out)
    assert refused.returncode == 2
    assert b"--append" in refused.stderr
    assert b"--force" in refused.stderr
    assert out.read_bytes() == before
    continued = run_here("predict", *net, folder, "missing.png", "--out", out, "--append")
    assert continued.returncode == 0, continued.stderr
    assert b"2 pictures in" in continued.stderr
    assert b"3 had a row already" in continued.stderr
    assert read(out) == [*first, (str(folder / "0.png"), ""), (str(folder / "2.png"), "")]
    again = run_here("predict", *net, folder, "--out", out, "--append")
    assert (again.returncode, len(read(out))) == (0, 5)
    assert run_here("predict", *net, folder / "2.png", "--out", out, "--force").returncode == 0
    assert paths(out) == [str(folder / "2.png")]
    assert held(folder.parent) == sorted(["net", "pictures", out.name])


@pytest.mark.parametrize("ending", KINDS)
def test_another_model_s_answers_are_not_continued(
    run_here: RunHere, net: list[str], folder: Path, ending: str
) -> None:
    out = folder.parent / f"answers.{ending}"
    assert run_here("predict", *net, folder, "--out", out).returncode == 0
    before = out.read_bytes()
    spec = Path(net[2])
    original = spec.read_text()
    spec.write_text(original.replace("divisor = 255.0", "divisor = 2.0"))
    other = run_here("predict", *net, folder, "--out", out, "--append")
    assert (other.returncode, out.read_bytes()) == (2, before)
    assert b"another model, Spec, target or preprocessing" in other.stderr
    spec.write_text(original.replace('task = "classify"', 'task = "tensor"').partition("labels")[0])
    other = run_here("predict", *net, folder, "--out", out, "--append")
    assert (other.returncode, out.read_bytes()) == (2, before)
    assert b"can't be continued" in other.stderr


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "csv.gz"])
@pytest.mark.parametrize("lost", [1, 30])
def test_a_torn_end_is_taken_back_when_a_run_goes_on(
    run_here: RunHere, net: list[str], folder: Path, ending: str, lost: int
) -> None:
    out = folder.parent / f"answers.{ending}"
    assert run_here("predict", *net, folder / "0.png", folder / "1.png", "--out", out).returncode == 0
    out.write_bytes(out.read_bytes()[:-lost])
    assert run_here("predict", *net, folder, "--out", out, "--append").returncode == 0
    assert sorted(paths(out)) == [str(folder / f"{number}.png") for number in range(3)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", "no JSON\n"), ("a.jsonl", "[1]\n"), ("a.jsonl", '{"path": 1, "error": null}\n'),
     ("a.csv", "a,b\n1,2\n"),
     ("a.csv", "path,label,score,a,b,c,d,error\nx,y\n"), ("a.csv", "\xff\n"), ("a.parquet", "PAR1")],
)  # fmt: skip
def test_what_predict_has_not_written_is_not_continued(
    run_here: RunHere, net: list[str], folder: Path, name: str, content: str
) -> None:
    out = folder.parent / name
    out.write_text(content, encoding="latin-1")
    done = run_here("predict", *net, folder, "--out", out, "--append")
    assert done.returncode == 2
    assert b"can't be continued" in done.stderr
    assert out.read_text(encoding="latin-1") == content


@pytest.mark.parametrize(
    "name", ["a.json", "a.txt", "a", "a.xlsx", "a.jsonl.bz2", "a.parquet.gz", "a.gz", "a.json.gz", "jsonl"]
)
def test_an_ending_that_means_no_format_is_refused(run_here: RunHere, net: list[str], folder: Path, name: str) -> None:
    done = run_here("predict", *net, folder, "--out", folder.parent / name)
    assert done.returncode == 2
    assert not (folder.parent / name).exists()
    assert b"--out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "csv", "--out", "a.jsonl"], "doesn't go with"),
        (["--format", "jsonl", "--out", "a.json"], "doesn't go with"),
        (["--append"], "--append needs --out"),
        (["--force"], "--force needs --out"),
        (["--append", "--force", "--out", "a.csv"], "exclude each other"),
        (["--append", "--out", "/dev/null"], "needs a file"),
        (["--format", "table", "--append", "--out", "a.txt"], "tables"),
        (["--format", "parquet", "--out", "/dev/null"], "not to a pipe or a device"),
        (["--out", "missing/a.csv"], "can't write"),
        (["--out", "missing/a.parquet"], "can't write"),
    ],
)
def test_mistakes_are_told_before_any_work(
    run_here: RunHere, net: list[str], folder: Path, arguments: list[str], message: str
) -> None:
    done = run_here("predict", *net, folder, *arguments, cwd=folder.parent)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert held(folder.parent) == ["net", "pictures"]


def test_other_endings_take_a_format_and_devices_take_any(net: list[str], folder: Path) -> None:
    out = folder.parent / "a.txt"
    assert run("predict", *net, folder, "--format", "table", "--out", out).returncode == 0
    assert len(out.read_text().splitlines()) == 5
    assert run("predict", *net, folder, "--out", "/dev/null").returncode == 0
    shown = run("predict", *net, folder, "--out", "/dev/stdout")
    assert len(shown.stdout.splitlines()) == 3
    for name in ("/dev/stderr", "/proc/self/fd/2"):
        shown = run("--quiet", "predict", *net, folder, "--out", name)
        assert len(shown.stderr.splitlines()) == 3


def test_a_run_without_pictures_leaves_no_file(run_here: RunHere, net: list[str], folder: Path) -> None:
    (folder.parent / "none").mkdir()
    for ending in ("csv", "jsonl.gz", "parquet"):
        assert run_here("predict", *net, folder.parent / "none", "--out", folder.parent / f"a.{ending}").returncode == 2
    assert held(folder.parent) == ["net", "none", "pictures"]


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "command",
    [["zoo", "list"], ["spec", "schema"], ["--help"], ["predict"], ["predict", "--format", "table"],
     ["predict", "--out", "/dev/full"], ["inspect", "--json"]],
)  # fmt: skip
def test_a_full_disk_is_an_error_in_words(net: list[str], folder: Path, command: list[str]) -> None:
    if command[0] == "predict":
        command = [*command, *net, str(folder)]
    elif command[0] == "inspect":
        command = [*command, net[0]]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = run(*command, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2, done.stderr
    assert b"No space left on device" in done.stderr
    assert b"bug in Plimsoll" not in done.stderr
    if command[0] == "predict":
        assert b"no prediction was kept" in done.stderr


@pytest.mark.parametrize("ending", KINDS)
def test_a_disk_that_fills_up_keeps_whole_rows_and_a_run_can_go_on(net: list[str], folder: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    out = folder.parent / f"answers.{ending}"
    listed = b"".join(os.urandom(40).hex().encode() + b".png\n" for _ in range(3000))
    full = run("predict", *net, "-", "--out", out, setup=file_limit(60_000), input=listed, stdin=None)
    assert full.returncode == 2, full.stderr
    assert b"can't write" in full.stderr
    assert b"File too large" in full.stderr
    if ending != "parquet":
        rows = read(out)
        assert rows == [(line, rows[0][1]) for line in listed.decode().splitlines()[: len(rows)]]
        assert 0 < len(rows) < 3000
    done = run("predict", *net, "-", "--out", out, "--append", input=listed, stdin=None)
    assert done.returncode == 1, "every picture failed: they are not there"
    assert [name for name, _ in read(out)] == listed.decode().splitlines()


@pytest.mark.parametrize(
    "command", [["predict", "--format", "jsonl"], ["predict", "--format", "table"], ["predict", "--format", "csv"]]
)
def test_a_reader_that_has_seen_enough_ends_the_run_with_0(net: list[str], folder: Path, command: list[str]) -> None:
    listed = folder.parent / "list"
    listed.write_text(f"{folder}/0.png\n" * 20_000)
    with (
        listed.open("rb") as stdin,
        subprocess.Popen(
            [*COMMAND, *command, *net, "-"], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        messages = process.stderr.read()
        assert process.wait(60) == 0, messages
    assert messages == b""


def test_closed_standard_streams_take_no_other_file_s_place(net: list[str], folder: Path) -> None:
    out = folder.parent / "a.jsonl"
    done: Done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *COMMAND, "predict", *net, str(folder), "--out", str(out)],
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert len(paths(out)) == 3


@pytest.mark.parametrize(
    ("ending", "number", "code"),
    [("jsonl", signal.SIGINT, 130), ("jsonl", signal.SIGHUP, 129), ("jsonl", signal.SIGTERM, 143)]
    + [(ending, signal.SIGTERM, 143) for ending in ("jsonl.gz", "csv", "parquet")],
)
def test_a_signal_keeps_every_row_and_the_run_goes_on(
    net: list[str], folder: Path, ending: str, number: signal.Signals, code: int
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    out = folder.parent / f"answers.{ending}"
    names = [f"{folder}/{n % 3}.png" if n < 3 else f"{folder}/missing-{n}.png" for n in range(200)]
    interruptible = functools.partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(
        [*COMMAND, "predict", *net, "-", "--out", str(out)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,
    ) as process:
        try:
            assert process.stdin
            assert process.stderr
            process.stdin.write("".join(f"{name}\n" for name in names[:100]).encode())
            process.stdin.flush()
            if ending == "jsonl":
                until(lambda: out.exists() and out.read_bytes().count(b"\n") == 100, "a hundred rows")
            else:
                until(lambda: _handles(process.pid, number), "the command")
                until(lambda: _waits(process.pid), "a hundred answers")
            process.send_signal(number)
            messages = process.stderr.read()
            assert process.wait(60) == code, messages
        finally:
            process.kill()
    assert b"the predictions of 100 pictures were kept" in messages
    assert [name for name, _ in read(out)] == names[:100]
    done = run("predict", *net, "-", "--out", out, "--append", input="\n".join(names).encode(), stdin=None)
    assert done.returncode == 1, "the rest is missing"
    assert [name for name, _ in read(out)] == names


def _handles(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal, as far as the system says."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return True
    line = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def _waits(pid: int) -> bool:
    """Tell whether all threads of a process wait, for a second; after ten seconds where the system doesn't say it."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        time.sleep(10)
        return True
    for _ in range(10):
        try:
            states = {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()}
        except OSError:  # A thread has just ended.
            return False
        if states != {"S"}:
            return False
        time.sleep(0.1)
    return True


def test_parts_of_a_killed_run_are_taken_up(run_here: RunHere, net: list[str], folder: Path) -> None:
    """As a run leaves them that is killed or loses power."""
    pytest.importorskip("pyarrow")
    out = folder.parent / "a.parquet"
    for number in range(2):
        assert run_here("predict", *net, folder / f"{number}.png", "--out", out).returncode == 0
        out.rename(folder.parent / str(number))
    for number in range(2):
        (folder.parent / str(number)).rename(folder.parent / f".a.parquet.{number:06}.part")
    refused = run_here("predict", *net, folder, "--out", out)
    assert (refused.returncode, out.exists()) == (2, False)
    assert b"--append" in refused.stderr
    done = run_here("predict", *net, folder, "--out", out, "--append")
    assert b"2 had a row already" in done.stderr
    assert paths(out) == [str(folder / f"{number}.png") for number in range(3)]
    assert held(folder.parent) == ["a.parquet", "net", "pictures"]


def test_files_that_look_like_pictures_are_named_at_the_end(net: list[str], folder: Path) -> None:
    (folder / "a.heic").touch()
    (folder / "b.heic").touch()
    os.mkfifo(folder / "c.png")
    done = run("predict", *net, folder)
    *_, left_out, advice, summary = done.stderr.decode().splitlines()
    assert (
        left_out
        == f"plimsoll: left out: 2 HEIC pictures ({folder}/a.heic), 1 pipe ({folder}/c.png)"[:20] + left_out[20:]
    )
    assert "2 HEIC pictures" in left_out
    assert "1 pipe" in left_out
    assert "heif" in advice
    assert "3 pictures in" in summary
    alone = run("predict", *net, folder / "c.png")
    assert alone.returncode == 1
    assert b"not a regular file but a pipe" in alone.stdout


def test_a_list_may_be_separated_by_nul(net: list[str], folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "a\nb.png")
    done = run("predict", *net, "-", "--null", input=f"{folder}/a\nb.png\0{folder}/1.png\0".encode(), stdin=None)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [f"{folder}/a\nb.png", f"{folder}/1.png"]


def test_off_a_terminal_a_line_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from plimsoll.cli import output

    monkeypatch.setattr(output, "_LINE_EVERY_S", 0.05)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level("INFO", logger="plimsoll"):
        progress = output.Progress(None, [], 0.5)
        for _ in range(1234):
            progress.advance()
        until(lambda: "1,234 pictures so far" in caplog.text, "a line")
        progress.close()
