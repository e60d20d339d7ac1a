"""`plimsoll serve MODEL…`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plimsoll.cli import options, streams

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.serve.pool import PlanOptions
    from plimsoll.serve.service import ModelConfig
    from plimsoll.serve.signals import Signals


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
        float | None,
        options.duration(
            "--max-delay",
            "How long a picture may wait for others to share its batch, for example 2ms; at most 1s.",
            at_least="0s",
            at_most="1s",
        ),
    ] = None,
    objective: Annotated[
        Literal["throughput", "latency"],
        options.choice("--objective", ("throughput", "latency"), "latency: all cores work on one picture."),
    ] = "throughput",
    web_processes: Annotated[
        int | None,
        typer.Option(
            "--web-processes",
            min=1,
            max=64,
            help="Processes that speak HTTP. Default: 1; more for tiny networks on large machines.",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print how the machine is shared, and why, then exit.")] = False,
    spec: options.Spec = None,
    target: options.ChosenTarget = None,
    policy: options.Policy = None,
    preprocessing: options.Preprocessing = None,
    set_: options.RuntimeOptions = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings: limits, access, other products; see docs/serving.md.")
    ] = None,
    grace: Annotated[
        float | None,
        options.duration(
            "--grace",
            "How long to keep serving after SIGTERM, reporting not ready, for example 10s. Default: 5s.",
            at_least="0s",
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS certificate, a PEM file; it may hold the private key too.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the TLS certificate, a PEM file.")] = None,
    unix_socket: Annotated[
        Path | None, typer.Option("--unix-socket", help="Listen on a Unix socket here, in place of --host and --port.")
    ] = None,
    root_path: Annotated[
        str, typer.Option("--root-path", help="The prefix below which a proxy shows the service, for example /vision.")
    ] = "",
) -> None:
    """Serve models over HTTP and gRPC.

    Try them in a browser at /; the API is described at /openapi.json. Each model has its own worker processes; one that
    dies or hangs is replaced. SIGTERM drains, SIGHUP reloads the models.
    """
    from plimsoll.serve.signals import Signals

    signals = None if plan else Signals()  # before anything slow
    if (code := streams.stop_code()) is not None:  # its exception got lost, in an import's callback
        raise typer.Exit(code)
    from plimsoll.serve.pool import PlanOptions

    _check_installed(grpc=grpc_port is not None)
    plan_options = PlanOptions(workers, threads, max_batch, max_delay, objective)
    running = (preprocessing, options.settings(set_ or []), policy)
    configs = _model_configs(models, spec, target, running, plan_options)
    if signals is None:
        for model in configs:
            typer.echo(f"{model.name}:")
            for reason in model.plan().why:
                typer.echo(f"  {reason}")
        return
    chosen = {"grace": grace, "web_processes": web_processes}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    address = (host, port, certificate, key, grpc_port, unix_socket, root_path)
    _run(configs, (config, overrides), address, signals)


def _check_installed(*, grpc: bool) -> None:
    """Raise BackendMissingError, with the command that installs it, where something of the extra `serve` (or `grpc`) is
    missing."""
    import importlib.util

    from plimsoll.errors import BackendMissingError

    extras = {
        "serve": ("starlette", "uvicorn", "httptools", "prometheus_client"),
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
    settings_from: tuple[Path | None, Mapping[str, Any]],
    address: tuple[str, int, Path | None, Path | None, int | None, Path | None, str],
    signals: Signals,
) -> None:
    from plimsoll.serve.http import server
    from plimsoll.serve.http.listener import Address
    from plimsoll.serve.service import Service
    from plimsoll.serve.settings import read

    settings = read(*settings_from)
    names = ", ".join(model.name for model in configs)
    server.run(
        Service(settings, configs),
        Address(*address),
        lambda url: typer.echo(f"plimsoll: {names} at {url}"),
        signals,
    )


def _model_configs(
    models: list[str],
    spec: Path | None,
    target: Target | None,
    running: tuple[options.PreprocessingName | None, dict[str, str], Path | None],
    plan_options: PlanOptions,
) -> list[ModelConfig]:
    from plimsoll.errors import InputError
    from plimsoll.serve.service import ModelConfig

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
        configs[name] = ModelConfig(name, reference, spec, target, *running, plan_options)
    return list(configs.values())
