"""`plimsoll keys`: make, list and remove keys, as its user does."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from plimsoll.cli.keys import app
from plimsoll.errors import InputError
from plimsoll.serve.access import keys
from plimsoll.serve.access.keys import KeyStore


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(argument) for argument in arguments])


def good(*arguments: str | Path) -> Result:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done


def error_of(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert isinstance(done.exception, InputError)
    return str(done.exception)


def test_a_key_is_printed_once_and_works(file: Path) -> None:
    """The key alone goes to standard output, so that a script can take it."""
    done = good("add", "misskey", "--file", file, "--rate", "10/s", "--burst", "20", "--expires", "90d")
    token = done.stdout.strip()
    entry = KeyStore(file).find(token.encode())
    assert entry is not None
    assert (entry.name, entry.role, entry.limit and entry.limit.burst) == ("misskey", "predict", 20)
    assert "copy it now" in done.stderr
    assert token not in done.stderr
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_keys_are_listed_without_themselves(file: Path) -> None:
    token = good("add", "ops", "--file", file, "--role", "admin").stdout.strip()
    good("add", "app", "--file", file, "--rate", "600/m", "--counts", "pictures")
    listed = good("list", "--file", file).stdout
    assert token not in listed
    assert token[:13] in listed
    assert "600/m pictures, 10 at once" in listed
    assert "admin" in listed


def test_a_narrow_terminal_cuts_no_name(file: Path) -> None:
    good("add", "the_moderation_queue", "--file", file, "--rate", "600/m", "--expires", "90d")
    listed = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["list", "--file", str(file)]).output
    column = "".join(line.split("  ")[0].strip() for line in listed.splitlines()[1:])
    assert column == "the_moderation_queue"
    assert "…" not in listed


def test_a_key_is_removed(file: Path) -> None:
    token = good("add", "old", "--file", file).stdout.strip()
    good("add", "new", "--file", file)
    good("remove", "old", "--file", file)
    assert [key.name for key in keys.read(file)] == ["new"]
    assert KeyStore(file).find(token.encode()) is None
    assert "Choose from new" in error_of("remove", "old", "--file", file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "fast"], "is not a rate"),
        (["--burst", "5"], "--burst needs --rate"),
        (["--rate", "5/s", "--burst", "0"], "burst"),
        (["--role", "root"], "role"),
        (["--counts", "megabytes"], "counts"),
        (["--expires", "soon"], "neither a duration nor a date"),
        (["--expires", "0d"], "has passed"),
        (["--expires", "99999999d"], "neither a duration nor a date"),
        (["--expires", "2001-01-01"], "has passed"),
    ],
)
def test_mistakes_are_reported_and_change_nothing(file: Path, arguments: list[str], said: str) -> None:
    assert said in error_of("add", "x", "--file", file, *arguments)
    assert not file.exists()


def test_a_name_that_is_taken_or_odd_is_reported(file: Path) -> None:
    good("add", "x", "--file", file)
    assert "duplicate key name 'x'" in error_of("add", "x", "--file", file)
    assert "name" in error_of("add", "x\ny", "--file", file)
    assert "can't" in error_of("add", "y", "--file", file.parent / "no such folder" / "keys.toml")


def test_two_at_once_lose_no_key(file: Path) -> None:
    good("add", "first", "--file", file)
    threads = [threading.Thread(target=_add, args=(file, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.read(file)) == 9


def _add(file: Path, number: int) -> None:
    from plimsoll.cli.keys import add

    add(f"key {number}", file)
