"""Files are read within a limit and replaced in one step."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from plimsoll.system import files


def test_a_file_of_the_limit_is_read_and_a_larger_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert files.read_bytes(file, 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes") as refusal:
        files.read_bytes(file, 99)
    assert refusal.value.strerror == "larger than 99 bytes"


def test_what_has_no_size_is_read_within_the_limit_too() -> None:
    with pytest.raises(OSError, match="larger than 1 MB"):
        files.read_bytes(Path("/dev/zero"), 1_000_000)


@pytest.mark.parametrize("name", ["missing", "folder", "nul\0"])
def test_whatever_cannot_be_read_is_an_oserror_with_its_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for regular in (False, True):
        with pytest.raises(OSError, match=r".") as refusal:
            files.read_bytes(tmp_path / name, 10, regular=regular)
        assert refusal.value.strerror


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_bytes(tmp_path / "pipe", 10, regular=True)


def test_text_is_utf8_or_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("Ærø".encode())
    assert files.read_text(tmp_path / "file", 10) == "Ærø"
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(OSError, match="not UTF-8"):
        files.read_text(tmp_path / "file", 10)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    files.write(file, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(file) as temporary:
        _ = temporary.write_text("half") / 0
    assert file.read_text() == "old"
    with files.replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_secret_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o277)
    try:
        files.write(tmp_path / "file", b"secret", mode=0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    with pytest.raises(OSError, match=r"."):
        files.write(tmp_path / "missing" / "file", b"")


def test_the_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert files.sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
