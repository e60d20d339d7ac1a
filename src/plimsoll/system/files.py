"""Files: read within a limit, replaced in one step, and identified by their SHA-256.

Every failure is an OSError whose `strerror` says why, so that callers have one exception to report.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read_bytes(path: Path, limit: int, *, regular: bool = False) -> bytes:
    """Return a file's content; raises OSError if it can't be read or is larger than `limit` bytes.

    With `regular`, a pipe or a device raises too, before it is opened: reading one may block for ever.
    """
    try:
        if regular and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with path.open("rb") as stream:
            # Reading up to the limit would map a buffer of that size first: three times as slow in four threads.
            size = os.fstat(stream.fileno()).st_size or limit
            data = stream.read(min(size, limit) + 1)
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {_size(limit)}", str(path))
    return data


def read_text(path: Path, limit: int, *, regular: bool = False) -> str:
    """Return the content of a UTF-8 file as `read_bytes` reads it; raises OSError also if it is not UTF-8."""
    try:
        return read_bytes(path, limit, regular=regular).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "not UTF-8 text", str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder to write to: it replaces `path` atomically, or is removed after an exception."""
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
