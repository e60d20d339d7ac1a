"""`plimsoll keys add|list|remove`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from datetime import datetime

    from plimsoll.serve.access.keys import Key, Terms

app = typer.Typer(
    help="Manage the API keys of `plimsoll serve`: a file of hashes, which a running service reloads when it changes.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Option("--file", "-f", help="Key file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who uses the key; appears in logs.")]
_DEFAULT = Path("keys.toml")


@app.command()
def add(  # noqa: PLR0913 - each parameter is an option of the command
    name: Name,
    file: File = _DEFAULT,
    role: Annotated[
        Literal["predict", "metrics", "admin"],
        options.choice(
            "--role",
            ("predict", "metrics", "admin"),
            "metrics: only /metrics; admin: everything, including loading and unloading models.",
        ),
    ] = "predict",
    rate: Annotated[
        str | None, typer.Option(help="Rate limit, for example 10/s, 600/m or 5000/h. Default: unlimited.")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(help="How many may come at once after a pause. Default: one second's worth.")
    ] = None,
    counts: Annotated[
        Literal["requests", "pictures"], options.choice("--counts", ("requests", "pictures"), "What the rate counts.")
    ] = "requests",
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION|DATE", help="When the key expires: for example 90d, 12h or 2027-01-31. Default: never."
        ),
    ] = None,
) -> None:
    """Create a key, store its hash in the file, and print the key: it can't be shown again."""
    from plimsoll.serve.access import keys

    terms = _terms(role, rate, burst, counts, expires)
    with _locked(file):
        existing = keys.read(file) if file.exists() else ()
        token, key = keys.issue(name, terms, existing)
        keys.write(file, [*existing, key])
    typer.echo(token)
    typer.echo(f"{file}: added {name} ({_describe(key)}). The key is stored nowhere: copy it now.", err=True)


@app.command("list")
def list_(file: File = _DEFAULT) -> None:
    """List the keys of a file, and what they may do. The file holds no key itself, only hashes."""
    import time

    from rich.console import Console
    from rich.table import Table

    from plimsoll.serve.access import keys

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "prefix", "role", "rate", "created", "expires"):
        table.add_column(heading, overflow="fold")
    for key in keys.read(file):
        end = "" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
        created = "" if key.created is None else f"{key.created:%Y-%m-%d}"
        table.add_row(
            key.name,
            f"plm_{key.id}_",
            key.role,
            _rate(key),
            created,
            f"[red]{end}, expired[/]" if key.expired(time.time()) else end,
        )
    Console().print(table)


@app.command()
def remove(name: Name, file: File = _DEFAULT) -> None:
    """Remove a key; a running service refuses it within a second."""
    from plimsoll.errors import InputError
    from plimsoll.serve.access import keys

    with _locked(file):
        existing = keys.read(file)
        remaining = [key for key in existing if key.name != name]
        if len(remaining) == len(existing):
            names = ", ".join(key.name for key in existing)
            raise InputError(f"{file} has no key named '{name}'", f"Choose from {names}." if names else "It has none.")
        keys.write(file, remaining)
    typer.echo(f"{file}: removed {name}", err=True)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock, so that two commands at once lose no key."""
    from filelock import FileLock

    from plimsoll.errors import InputError

    if not file.absolute().parent.is_dir():
        raise InputError(f"{file}: can't write keys: there is no such folder")
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        raise InputError(f"{file}: can't write keys: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _terms(
    role: Literal["predict", "metrics", "admin"],
    rate: str | None,
    burst: int | None,
    counts: Literal["requests", "pictures"],
    expires: str | None,
) -> Terms:
    from plimsoll.errors import InputError
    from plimsoll.serve.access.keys import Rate, Terms

    if burst is not None and rate is None:
        raise InputError("--burst needs --rate", "Add --rate, for example --rate 10/s.")
    try:
        return Terms(
            role,
            Rate.parse(rate) if rate is not None else None,
            burst,
            counts,
            _expiry(expires) if expires is not None else None,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _expiry(text: str) -> datetime:
    """Return when a key expires: after a duration, or at a date."""
    from datetime import UTC, datetime, timedelta

    from plimsoll.core import duration
    from plimsoll.errors import InputError

    now = datetime.now(UTC).replace(microsecond=0)
    try:
        expiry = now + timedelta(seconds=duration.parse(text)) if text[-1:].isalpha() else datetime.fromisoformat(text)
    except (InputError, ValueError, OverflowError):
        raise InputError(
            f"--expires: '{printable(text, 40)}' is neither a duration nor a date",
            "For example 90d, 12h or 2027-01-31.",
        ) from None
    expiry = expiry if expiry.tzinfo is not None else expiry.replace(tzinfo=UTC)
    if expiry <= now:
        raise InputError(f"--expires: {text} has passed")
    return expiry


def _rate(key: Key) -> str:
    limit = key.limit
    return "unlimited" if limit is None else f"{limit.rate} {key.counts}, {limit.burst:g} at once"


def _describe(key: Key) -> str:
    end = f", until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires is not None else ""
    return f"{key.role}, {_rate(key)}{end}"
