"""All commands put together, and how the program ends: exit codes, errors, tracebacks."""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
import tempfile
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from plimsoll.cli import (
    bench,
    calibrate,
    convert,
    import_,
    inspect,
    keys,
    pack,
    predict,
    prove,
    scan,
    serve,
    ship,
    spec,
    streams,
    targets,
    threshold,
    toolchains,
    verify,
    zoo,
)
from plimsoll.core.version import __version__
from plimsoll.core.wording import printable
from plimsoll.errors import InputError, PlimsollError
from plimsoll.system import native_output

_FAILED_MACHINE = {
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, getattr(errno, "EDQUOT", errno.ENOSPC)),
}
"""Errors of files that the machine is to blame for, not Plimsoll."""


_INTERRUPTED = 130
"""What Typer ends with for any signal that comes before a command runs."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; a signal ends it with 128 and the signal's number, where Typer says 130 of all."""
        try:
            return super().invoke(ctx)
        except streams.StoppedError as error:
            typer.echo("interrupted", err=True)
            raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    name="plimsoll",
    cls=_Commands,
    help=(
        "Find the fastest deployment of a trained vision model whose answers stay within your budget; prove it, pack"
        " it, run it."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(predict.predict)
app.command()(scan.scan)
app.command()(threshold.threshold)
app.command()(inspect.inspect)
app.command("import")(import_.import_)
app.command()(ship.ship)
app.command()(serve.serve)
app.command()(prove.prove)
app.command()(bench.bench)
app.command()(convert.convert)
app.command()(calibrate.calibrate)
app.command()(pack.pack)
app.command()(verify.verify)
app.command()(targets.targets)
app.add_typer(zoo.app, name="zoo")
app.add_typer(spec.app, name="spec")
app.add_typer(toolchains.app, name="toolchains")
app.add_typer(keys.app, name="keys")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"plimsoll {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")] = False,
) -> None:
    """Set up logging for all commands."""
    del version
    logger = logging.getLogger("plimsoll")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()  # standard error
        handler.setFormatter(_PrintableFormatter("plimsoll: %(message)s"))
        logger.addHandler(handler)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def main() -> None:
    """Run the command line and exit.

    0 done (also where the reader of the output has closed it), 1 a check failed, 2 bad input or output, 3 a runtime
    failed, 128 and its number after a signal: 130 after Ctrl-C.
    """
    streams.fill_gaps()
    gc.set_threshold(50_000, 20, 20)  # Imports leave many objects and no garbage: looking for it cost 25 ms.
    if not os.environ.get("PLIMSOLL_DEBUG"):
        _keep_libraries_silent()
    streams.prepare()
    code = guarded()
    with suppress(PlimsollError, streams.ClosedOutputError):
        sys.stdout.flush()
    sys.exit(code)


def guarded() -> Any:
    """Run the command of `sys.argv`, say in words what failed, and return the exit code."""
    try:
        try:
            app()
        except SystemExit as end:
            sys.stdout.flush()
            return end.code if end.code != _INTERRUPTED else streams.stop_code() or end.code
    except PlimsollError as error:
        _say(error)
        return error.exit_code
    except streams.ClosedOutputError:
        return 0
    except KeyboardInterrupt as error:  # outside a command
        return getattr(error, "exit_code", _INTERRUPTED)
    except OSError as error:
        if error.errno not in _FAILED_MACHINE:
            return _internal(error)
        where = f"{error.filename}: " if error.filename else ""
        _say(InputError(f"{where}{error.strerror}"))
        return InputError.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        return _internal(error)


def _keep_libraries_silent() -> None:
    """Let nothing but this program write to the terminal: what a library has to say about an error is in its
    exception."""
    native_output.separate()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # Else Python prints what no handler takes.


def _say(error: PlimsollError) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    # A message may repeat what a file says: names of tensors, labels, reasons of other libraries.
    typer.echo(printable(error.message, keep="\n\t"), err=True)
    if error.hint:
        typer.echo(printable(f"  {error.hint}", keep="\n\t"), err=True)
    if os.environ.get("PLIMSOLL_DEBUG"):
        traceback.print_exception(error)


def _internal(error: Exception) -> int:
    """Write the traceback to a file and say where it is."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="plimsoll-error-", suffix=".txt", delete=False, encoding="utf-8"
        ) as log:
            traceback.print_exception(error, file=log)
        advice = f"Please report it with {Path(log.name)}"
    except OSError as reason:
        advice = f"Its details could not be written: {reason.strerror}"
    typer.secho("internal error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(printable(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"), err=True)
    typer.echo(f"  This is a bug in Plimsoll. {advice}", err=True)
    return 70
