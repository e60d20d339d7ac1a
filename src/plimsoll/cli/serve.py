"""`plimsoll serve MODEL…`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.serve.plan import PlanOptions
    from plimsoll.serve.served_model import ModelConfig


def serve(  # noqa: PLR0913 - each parameter is an option of the command
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Zoo names, bundles, or model files with --spec; NAME=MODEL gives a name of your own.",
        ),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 lets the system choose one.")] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", min=0, max=65535, help="Speak gRPC too, on this port.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Worker processes of each model. Default: see --plan.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that compute one call. Default: see --plan.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", min=1, max=1024, help="Pictures that are computed together at most.")
    ] = None,
    max_delay: Annotated[
        float | None,
        typer.Option("--max-delay", min=0, max=1000, help="Milliseconds that a picture may wait for others."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="throughput, or latency: all cores work on one picture.")
    ] = "throughput",
    plan: Annotated[bool, typer.Option("--plan", help="Print how the machine is shared and why, and exit.")] = False,
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    target: Annotated[
        str | None, typer.Option(help="runtime:device:precision. Default: the bundle's, else onnxruntime:cpu:float32.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Input steps: reference or fast. Default: the bundle's, else reference.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the runtime, as name=value; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings: limits, access, other products; see docs/serving.md.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds between SIGTERM (readiness off) and the last new request.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS: a certificate file; with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS: the certificate's key.")] = None,
) -> None:
    """Serve models over HTTP.

    A page to try them is at /, the interface is described at /openapi.json. Each model has worker processes of its own;
    one that dies or hangs is replaced. SIGTERM drains, SIGHUP loads the models anew.
    """
    from plimsoll.serve.plan import PlanOptions
    from plimsoll.serve.require import require_serve

    require_serve(grpc=grpc_port is not None)
    plan_options = PlanOptions(
        workers, threads, max_batch, None if max_delay is None else 1e-3 * max_delay, _objective(objective)
    )
    wanted = _wanted(models, spec, target, (steps, set_ or []), plan_options)
    if plan:
        _show_plans(wanted)
        return
    _run(wanted, config, grace, (host, port, certificate, key, grpc_port))


def _run(
    wanted: list[ModelConfig],
    config: Path | None,
    grace: float | None,
    address: tuple[str, int, Path | None, Path | None, int | None],
) -> None:
    from plimsoll.serve.http import server
    from plimsoll.serve.service import Service
    from plimsoll.serve.settings import read

    settings = read(config, {} if grace is None else {"grace": grace})
    names = ", ".join(one.name for one in wanted)
    server.run(
        Service(settings, wanted), server.Address(*address), lambda url: typer.echo(f"plimsoll: {names} at {url}")
    )


def _wanted(
    models: list[str],
    spec: Path | None,
    target: str | None,
    running: tuple[str | None, list[str]],
    plan_options: PlanOptions,
) -> list[ModelConfig]:
    from plimsoll.cli.predict import _options, _steps
    from plimsoll.core.target import Target
    from plimsoll.errors import InputError
    from plimsoll.serve.served_model import ModelConfig

    parsed: Target | None = Target.parse(target) if target is not None else None
    named: dict[str, ModelConfig] = {}
    for text in models:
        name, equals, reference = text.partition("=")
        if not equals:
            name, reference = Path(text).name.removesuffix(".zip").removesuffix(".plimsoll").removesuffix(".onnx"), text
        if not name or not all(char.isalnum() or char in "._-" for char in name) or name.endswith(".tensor"):
            raise InputError(
                f"'{name}' can't be a model's name: letters, digits, dots, dashes; not ending in .tensor",
                "Give one: NAME=MODEL.",
            )
        if name in named:
            raise InputError(f"two models are named '{name}'", "Give one of them another name: NAME=MODEL.")
        named[name] = ModelConfig(name, reference, spec, parsed, _steps(running[0]), _options(running[1]), plan_options)
    return list(named.values())


def _objective(text: str) -> Any:
    from plimsoll.errors import InputError

    if text not in ("throughput", "latency"):
        raise InputError(f"--objective {text}: allowed: throughput, latency")
    return text


def _show_plans(wanted: list[ModelConfig]) -> None:
    from plimsoll.serve.served_model import planned

    for one in wanted:
        made = planned(one)
        typer.echo(f"{one.name}: {made.workers} workers × {made.threads} threads, batches of at most {made.max_batch}")
        for reason in made.why:
            typer.echo(f"  {reason}")
