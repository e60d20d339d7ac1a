"""Keys, their file, and how a running service takes its changes."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers.access_keys import Clock, run, write_keys
from plimsoll.errors import InputError
from plimsoll.serve.access import keys
from plimsoll.serve.access.keys import KeyStore, Limit, Rate, Terms


def test_a_key_has_256_random_bits_and_the_file_only_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    token = write_keys(file, misskey=Terms())["misskey"]
    prefix, name, secret = token.split("_", 2)
    assert (prefix, len(name), len(secret)) == ("plm", 8, 43)
    text = file.read_text()
    assert secret not in text
    assert hashlib.sha256(token.encode()).hexdigest() in text
    assert name in text
    assert write_keys(tmp_path / "other.toml", misskey=Terms())["misskey"] != token


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    end = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
    write_keys(file, one=Terms("admin", Rate.parse("600/m"), 7, "pictures", end), two=Terms())
    first, second = keys.read(file)
    assert (first.name, first.role, first.limit, first.counts, first.expires) == (
        "one",
        "admin",
        Limit(Rate.parse("600/m"), 7),
        "pictures",
        end,
    )
    assert (second.role, second.limit, second.counts, second.expires) == ("predict", None, "requests", None)


def test_a_new_file_is_its_owners_alone_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write_keys(file, one=Terms())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    keys.write(file, [])
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["keys.toml"]


def test_a_name_is_used_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write_keys(file, one=Terms())
    with pytest.raises(InputError, match="duplicate key name 'one'"):
        keys.issue("one", Terms(), keys.read(file))


def test_a_file_that_names_a_key_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write_keys(file, one=Terms())
    file.write_text(file.read_text() + file.read_text())
    with pytest.raises(InputError, match="duplicate name: one"):
        keys.read(file)


def test_a_good_key_is_found_and_no_other(tmp_path: Path) -> None:
    token = write_keys(tmp_path / "k", one=Terms())["one"]
    ring = KeyStore(tmp_path / "k")
    key = ring.find(token.encode())
    assert key is not None
    assert key.name == "one"
    other = write_keys(tmp_path / "o", one=Terms())["one"]
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (
        other,
        changed,
        token + "A",
        token[:-1],
        token.upper(),
        f" {token}",
        f"{token}\n",
        "",
        "plm_",
        token[:13] + other[13:],
    ):
        assert ring.find(wrong.encode()) is None


def test_a_key_works_and_ends_without_a_restart(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    old = write_keys(file, old=Terms())["old"]
    ring = KeyStore(file, clock=clock)
    new = write_keys(file, new=Terms())["new"]
    run(ring.refresh())
    assert ring.find(old.encode()), "looked at most once a second"
    clock.now += 1.0
    run(ring.refresh())
    assert not ring.find(old.encode())
    assert ring.find(new.encode())


@pytest.mark.parametrize(
    "text", ["[[key", "[[key]]\nname = 1", "key = 3", "\x00", "[[key]]\nname='x'\nid='00000000'\nsha256='ab'", None]
)
def test_a_bad_file_keeps_the_last_good_keys_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    token = write_keys(file, one=Terms())["one"].encode()
    ring = KeyStore(file, clock=clock)
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    clock.now += 1.0
    with caplog.at_level(logging.ERROR):
        run(ring.refresh())
        assert ring.find(token)
        assert "the keys stay as they were" in caplog.text
        caplog.clear()
        clock.now += 1.0
        run(ring.refresh())
        assert not caplog.text, "told once, not each second"
    again = write_keys(file, two=Terms())["two"].encode()
    clock.now += 1.0
    run(ring.refresh())
    assert ring.find(again)
    assert not ring.find(token)


def test_a_service_does_not_start_without_its_keys(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't read the keys"):
        KeyStore(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("[[key]]\nname = 'x'")
    with pytest.raises(InputError, match=r"key\[0\]\.id"):
        KeyStore(tmp_path / "bad.toml")


def test_a_file_replaced_by_a_link_is_noticed(tmp_path: Path) -> None:
    """Kubernetes changes a mounted secret by pointing a link elsewhere."""
    clock = Clock()
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "keys.toml"
    old, new = write_keys(first, one=Terms())["one"].encode(), write_keys(second, one=Terms())["one"].encode()
    os.utime(first, (100, 100))
    os.utime(second, (100, 100))
    link.symlink_to(first)
    ring = KeyStore(link, clock=clock)
    assert ring.find(old)
    replaced = tmp_path / "next"
    replaced.symlink_to(second)
    replaced.replace(link)
    clock.now += 1
    run(ring.refresh())
    assert ring.find(new)
    assert not ring.find(old)
