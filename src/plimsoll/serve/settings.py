"""What a service allows, and how patient it is."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.core.wording import explain
from plimsoll.errors import InputError
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.compat.settings import CompatSettings
from plimsoll.serve.http.headers import CorsSettings
from plimsoll.serve.http.urls import UrlSettings
from plimsoll.serve.log import LogSettings
from plimsoll.serve.tracing import TracingSettings

MEBIBYTE = 1024 * 1024


class Settings(BaseModel):
    """Limits and choices of a service. Sizes are bytes, times are seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_body_bytes: int = Field(64 * MEBIBYTE, ge=1024)
    """A larger request is answered with 413."""
    max_received_bytes: int = Field(512 * MEBIBYTE, ge=1024)
    """All requests together that are being received; beyond it new ones are answered with 503."""
    max_items: int = Field(256, ge=1)
    """Pictures in one request."""
    header_timeout: float = Field(10.0, gt=0)
    """A connection whose request's head isn't there by then is closed."""
    body_timeout: float = Field(30.0, gt=0)
    """A request whose body isn't there by then is answered with 408."""
    max_connections: int = Field(4096, ge=1)
    max_queue: int = Field(256, ge=1)
    """Pictures that wait for a model; beyond it requests are answered with 503 at once."""
    timeout: float = Field(30.0, gt=0)
    """How long a picture may wait for its turn where its request says nothing else."""
    batch_timeout: float = Field(60.0, gt=0)
    """A worker that computes one batch for longer hangs, and is replaced."""
    heartbeat_timeout: float = Field(2.0, gt=0)
    """A worker from which nothing was heard for so long hangs, and is replaced."""
    start_timeout: float = Field(300.0, gt=0)
    """A worker that isn't ready by then doesn't start."""
    start_heartbeat_timeout: float = Field(15.0, gt=0)
    """As `heartbeat_timeout`, for a worker that starts: some runtimes keep all of its threads waiting while they build."""
    worker_bytes: int | None = Field(None, ge=MEBIBYTE)
    """A worker that holds more memory is replaced; by default four times what it held when it was ready, and at least 1
    GiB more."""
    shared_bytes: int = Field(512 * MEBIBYTE, ge=MEBIBYTE)
    """Shared memory for the pictures and tensors that wait or are being computed."""
    outbound_bytes: int = Field(256 * MEBIBYTE, ge=MEBIBYTE)
    """Shared memory for the tensors that a worker answers."""
    grace: float = Field(5.0, ge=0)
    """After SIGTERM: so long the service says that it isn't ready, and still serves."""
    drain_timeout: float = Field(30.0, ge=0)
    """After the grace: so long it finishes what it has accepted."""
    access: AccessSettings = AccessSettings()
    """Keys and rates."""
    cors: CorsSettings = CorsSettings()
    """Web pages of other origins that may ask."""
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    compat: CompatSettings = CompatSettings()
    """What existing applications ask, and which model answers them."""
    urls: UrlSettings = UrlSettings()
    """Whether pictures may be named by their URLs."""
    folder: Path | None = None
    """Where bundles are copied to while they are served; by default the system's place for temporary files."""


def read(file: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Read settings from a TOML file, if there is one; `overrides` go before it. Raises InputError that names what is
    wrong."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        return Settings.model_validate({**data, **overrides})
    except OSError as error:
        raise InputError(f"{file}: can't read the settings: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: it is no TOML: {error}") from error
    except ValidationError as error:
        raise InputError(
            f"{file or 'settings'}: {explain(error, 'the settings')}", f"Settings: {', '.join(Settings.model_fields)}."
        ) from error
