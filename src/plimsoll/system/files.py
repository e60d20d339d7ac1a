"""Files: read within a limit, replaced in one step, and identified by their SHA-256.

Every failure is an OSError whose `strerror` says why, so that callers have one exception to report.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def read_bytes(path: Path, limit: int, *, regular: bool = False) -> bytes:
    """Return a file's content; raises OSError if it can't be read or is larger than `limit` bytes.

    With `regular`, a pipe, a socket, a device or a folder raises too, before it is opened: opening one may block for
    ever, or act on the device. What takes the file's place meanwhile is opened without waiting, and refused as well.
    """
    try:
        if regular:
            _require_regular(os.stat(path).st_mode, path)  # noqa: PTH116 - runs once a picture
        with open_without_waiting(path) if regular else path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if regular:
                _require_regular(status.st_mode, path)
            # Reading up to the limit would map a buffer of that size first: three times as slow in four threads.
            size = status.st_size or limit
            data = stream.read(min(size, limit) + 1)
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {_size(limit)}", str(path))
    return data


def mode_name(mode: int) -> str:
    """Return what a mode of `os.stat` stands for: file, folder, pipe, socket or device."""
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((name for test, name in kinds if test(mode)), "device")


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"not a regular file but a {mode_name(mode)}", str(path))


def open_without_waiting(path: str | Path) -> BinaryIO:
    """Open a file for reading; in case it is a pipe, without waiting for its other end. Raises OSError."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def read_text(path: Path, limit: int, *, regular: bool = False) -> str:
    """Return the content of a UTF-8 file as `read_bytes` reads it; raises OSError also if it is not UTF-8."""
    try:
        return read_bytes(path, limit, regular=regular).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "not UTF-8 text", str(path)) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder to write to: it replaces `path` atomically, or is removed after an exception.

    Raises OSError where `path` is a pipe, a device or a folder, which a file must not replace.
    """
    with contextlib.suppress(FileNotFoundError):
        _require_regular(path.stat().st_mode, path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes | str, *, mode: int | None = None) -> None:
    """Replace a file atomically, so that neither a reader nor a crash leaves it half written; text is written as UTF-8.

    With `mode`, the file has these permissions from its first byte on.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - Path.open takes no descriptor
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if mode is not None:
            temporary.chmod(mode)  # the umask may have taken some away


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits; raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _size(count: int) -> str:
    return f"{count // 1_000_000} MB" if count >= 1_000_000 and count % 1_000_000 == 0 else f"{count:,} bytes"
