"""`plimsoll serve MODEL…`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.serve.plan import PlanOptions
    from plimsoll.serve.served_model import ModelConfig

_DURATION = "DURATION"


def serve(  # noqa: PLR0913 - each parameter is an option of the command
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Zoo names, bundles, or model files with --spec; NAME=MODEL sets the name a model is served by.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 picks a free one.")] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", min=0, max=65535, help="Serve gRPC too, on this port.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Worker processes per model. Default: see --plan.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that compute one batch. Default: see --plan.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", min=1, max=1024, help="Largest batch. Default: see --plan.")
    ] = None,
    max_delay: Annotated[
        str | None,
        typer.Option(
            "--max-delay",
            metavar=_DURATION,
            help="How long a picture may wait for others to share its batch, for example 2ms; at most 1s.",
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="throughput, or latency: all cores work on one picture.")
    ] = "throughput",
    plan: Annotated[bool, typer.Option("--plan", help="Print how the machine is shared, and why, then exit.")] = False,
    spec: Annotated[Path | None, typer.Option(help="Spec of a bare model file.")] = None,
    target: Annotated[
        str | None, typer.Option(help="runtime:device:precision. Default: the bundle's, else onnxruntime:cpu:float32.")
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="Preprocessing: reference or fast. Default: the bundle's, else reference.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the runtime, as name=value; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings: limits, access, other products; see docs/serving.md.")
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar=_DURATION,
            help="How long to keep serving after SIGTERM, reporting not ready, for example 10s. Default: 5s.",
        ),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate file; needs --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the TLS certificate.")] = None,
) -> None:
    """Serve models over HTTP and gRPC.

    Try them in a browser at /; the API is described at /openapi.json. Each model has its own worker processes; one that
    dies or hangs is replaced. SIGTERM drains, SIGHUP reloads the models.
    """
    from plimsoll.serve.plan import PlanOptions

    _check_installed(grpc=grpc_port is not None)
    delay = None if max_delay is None else _duration("--max-delay", max_delay, longest=1.0)
    plan_options = PlanOptions(workers, threads, max_batch, delay, _objective(objective))
    configs = _model_configs(models, spec, target, (preprocessing, set_ or []), plan_options)
    if plan:
        for model in configs:
            typer.echo(f"{model.name}:")
            for reason in model.plan().why:
                typer.echo(f"  {reason}")
        return
    overrides = {} if grace is None else {"grace": _duration("--grace", grace, plain_number=True)}
    _run(configs, config, overrides, (host, port, certificate, key, grpc_port))


def _check_installed(*, grpc: bool) -> None:
    """Raise BackendMissingError, with the command that installs it, where something of the extra `serve` (or `grpc`) is
    missing."""
    import importlib.util

    from plimsoll.errors import BackendMissingError

    extras = {
        "serve": ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client"),
        "grpc": ("grpc",) if grpc else (),
    }
    for extra, modules in extras.items():
        if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
            raise BackendMissingError(
                f"serving needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed",
                f"Install it: pip install 'plimsoll-line[{extra}]'",
            )


def _run(
    configs: list[ModelConfig],
    config: Path | None,
    overrides: Mapping[str, Any],
    address: tuple[str, int, Path | None, Path | None, int | None],
) -> None:
    from plimsoll.serve.http import server
    from plimsoll.serve.service import Service
    from plimsoll.serve.settings import read

    settings = read(config, overrides)
    names = ", ".join(model.name for model in configs)
    server.run(
        Service(settings, configs), server.Address(*address), lambda url: typer.echo(f"plimsoll: {names} at {url}")
    )


def _model_configs(
    models: list[str],
    spec: Path | None,
    target: str | None,
    running: tuple[str | None, list[str]],
    plan_options: PlanOptions,
) -> list[ModelConfig]:
    from plimsoll.cli.predict import _options, _preprocessing
    from plimsoll.core.target import Target
    from plimsoll.errors import InputError
    from plimsoll.serve.served_model import ModelConfig

    parsed: Target | None = Target.parse(target) if target is not None else None
    configs: dict[str, ModelConfig] = {}
    for text in models:
        name, equals, reference = text.partition("=")
        if not equals:
            name, reference = Path(text).name.removesuffix(".zip").removesuffix(".plimsoll").removesuffix(".onnx"), text
        if not name or not all(char.isalnum() or char in "._-" for char in name) or name.endswith(".tensor"):
            raise InputError(
                f"invalid model name '{name}': use letters, digits, dots and dashes; it can't end in .tensor",
                "Set one: NAME=MODEL.",
            )
        if name in configs:
            raise InputError(f"duplicate model name '{name}'", "Give one of the models another name: NAME=MODEL.")
        configs[name] = ModelConfig(
            name, reference, spec, parsed, _preprocessing(running[0]), _options(running[1]), plan_options
        )
    return list(configs.values())


def _objective(text: str) -> Any:
    from plimsoll.errors import InputError

    if text not in ("throughput", "latency"):
        raise InputError(f"unknown objective '{text}'", "Choose from throughput, latency.")
    return text


def _duration(option: str, text: str, *, longest: float | None = None, plain_number: bool = False) -> float:
    """Return the seconds of an option's value; raises InputError that names the option."""
    from plimsoll.core import duration
    from plimsoll.errors import InputError

    try:
        seconds = duration.parse(text, plain_number=plain_number)
    except InputError as error:
        raise InputError(f"{option}: {error.message}", error.hint) from error
    if longest is not None and seconds > longest:
        raise InputError(f"{option} {text}: at most {duration.describe(longest)}")
    return seconds
