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
    help="API keys of `plimsoll serve`: kept hashed in a file, which a running service reads anew when it changes.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Option("--file", "-f", help="The file of keys.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who uses the key; it stands in logs.")]
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
            "metrics: /metrics alone; admin: everything, loading and unloading models included.",
        ),
    ] = "predict",
    rate: Annotated[
        str | None, typer.Option(help="How often it may ask, for example 10/s, 600/m or 5000/h. Default: unlimited.")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(help="How many may come at once after a quiet time. Default: as many as in a second.")
    ] = None,
    counts: Annotated[
        Literal["requests", "pictures"], options.choice("--counts", ("requests", "pictures"), "What the rate counts.")
    ] = "requests",
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d, 12h, or a date such as 2027-01-31.")] = None,
) -> None:
    """Make a key, keep its hash in the file, and print the key: this once, and never again."""
    from plimsoll.serve.access import keys

    terms = _terms(role, rate, burst, counts, expires)
    with _locked(file):
        there = keys.read(file) if file.exists() else ()
        token, key = keys.issue(name, terms, there)
        keys.write(file, [*there, key])
    typer.echo(token)
    typer.echo(f"{file}: {name} ({_told(key)}). The key is not kept anywhere: copy it now.", err=True)


@app.command("list")
def list_(file: File = _DEFAULT) -> None:
    """List the keys of a file: their names and what they may do. The keys themselves are in no file."""
    import time

    from rich.console import Console
    from rich.table import Table

    from plimsoll.serve.access import keys

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "begins with", "role", "rate", "created", "expires"):
        table.add_column(heading, no_wrap=True)
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
    """Remove a key by its name; a running service refuses it within a second."""
    from plimsoll.errors import InputError
    from plimsoll.serve.access import keys

    with _locked(file):
        there = keys.read(file)
        left = [key for key in there if key.name != name]
        if len(left) == len(there):
            raise InputError(
                f"{file} has no key named '{name}'", f"It has: {', '.join(key.name for key in there) or 'none'}."
            )
        keys.write(file, left)
    typer.echo(f"{file}: {name} removed", err=True)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock, so that two commands at once lose no key."""
    from filelock import FileLock

    from plimsoll.errors import InputError

    if not file.absolute().parent.is_dir():
        raise InputError(f"{file}: can't keep keys there: there is no such folder")
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        raise InputError(f"{file}: can't keep keys there: {error.strerror}") from error
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
    from plimsoll.serve.access.keys import Terms
    from plimsoll.serve.access.rate import Rate

    if burst is not None and rate is None:
        raise InputError("--burst without --rate limits nothing", "Add --rate, for example --rate 10/s.")
    try:
        return Terms(
            role,
            Rate.parse(rate) if rate is not None else None,
            burst,
            counts,
            _end(expires) if expires is not None else None,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _end(text: str) -> datetime:
    from datetime import UTC, datetime, timedelta

    from plimsoll.core import duration
    from plimsoll.errors import InputError

    now = datetime.now(UTC).replace(microsecond=0)
    try:
        end = now + timedelta(seconds=duration.parse(text)) if text[-1:].isalpha() else datetime.fromisoformat(text)
    except (InputError, ValueError, OverflowError):
        raise InputError(
            f"--expires: '{printable(text, 40)}' is neither a duration nor a date",
            "For example 90d, 12h or 2027-01-31.",
        ) from None
    end = end if end.tzinfo is not None else end.replace(tzinfo=UTC)
    if end <= now:
        raise InputError(f"--expires: {text} has passed")
    return end


def _rate(key: Key) -> str:
    limit = key.limit
    return "unlimited" if limit is None else f"{limit.rate} {key.counts}, {limit.burst:g} at once"


def _told(key: Key) -> str:
    end = f", until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires is not None else ""
    return f"{key.role}, {_rate(key)}{end}"
