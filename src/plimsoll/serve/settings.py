"""The settings of a service: limits, timeouts, and those of its parts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.core.duration import Duration
from plimsoll.core.wording import explain
from plimsoll.errors import InputError
from plimsoll.serve.access.authorizer import AccessSettings
from plimsoll.serve.candidates import CandidateSettings
from plimsoll.serve.clips import ClipSettings
from plimsoll.serve.compat.settings import CompatSettings
from plimsoll.serve.http.sockets import LiveSettings
from plimsoll.serve.http.urls import UrlSettings
from plimsoll.serve.log import LogSettings
from plimsoll.serve.tracing import TracingSettings
from plimsoll.system import files

MEBIBYTE = 1024 * 1024
_ORIGIN = r"^(\*|https?://[A-Za-z0-9.\-\[\]:]+)$"


class CorsSettings(BaseModel):
    """Which web pages of other origins may ask (CORS). Off as long as `origins` is empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = ()
    """For example `https://app.example.org`; `*` for all, which without keys lets any page that a user of this network
    opens ask models."""
    max_age: int = Field(600, ge=0, le=86_400)
    """Seconds for which a browser remembers what it may."""


class Settings(BaseModel):
    """Limits and choices of a service. Sizes are bytes; durations are text such as `500ms`, or seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    web_processes: int = Field(1, ge=1, le=64)
    """Processes that speak HTTP; more than one only where a single one can't keep the workers busy."""
    max_body_bytes: int = Field(64 * MEBIBYTE, ge=1024)
    """A larger request is answered with 413."""
    max_grpc_bytes: int = Field(16 * MEBIBYTE, ge=1024)
    """A larger message over gRPC is refused; so is one larger than `max_body_bytes`. gRPC's library copies a message in
    the event loop, which answers nobody meanwhile: up to two milliseconds for each MiB."""
    max_received_bytes: int = Field(512 * MEBIBYTE, ge=1024)
    """Of all requests that are being received, together; beyond it new ones are answered with 503."""
    max_items: int = Field(256, ge=1)
    """Pictures in one request."""
    header_timeout: Duration = Field(10.0, gt=0)
    """A connection whose request head has not arrived by then is closed."""
    body_timeout: Duration = Field(30.0, gt=0)
    """A request whose body has not arrived by then is answered with 408."""
    max_connections: int = Field(4096, ge=1)
    """Connections over HTTP; requests on more than these are answered with 503, all but those that watch the service.
    """
    write_timeout: Duration = Field(30.0, gt=0)
    """A connection whose caller reads next to nothing of its answer for so long is cut."""
    max_unsent_bytes: int = Field(256 * MEBIBYTE, ge=MEBIBYTE)
    """Of answers that callers have not read yet, together; beyond it those connections that wait longest are cut."""
    max_queue: int = Field(256, ge=1)
    """Pictures that wait for a model; beyond it requests are answered with 503 at once."""
    timeout: Duration = Field(30.0, gt=0)
    """How long a picture may wait for its answer where its request doesn't say."""
    batch_timeout: Duration = Field(60.0, gt=0)
    """A worker that computes one batch for longer hangs, and is replaced."""
    heartbeat_timeout: Duration = Field(2.0, gt=0)
    """A worker that is silent for longer hangs, and is replaced."""
    start_timeout: Duration = Field(300.0, gt=0)
    """A worker that isn't ready by then has failed to start."""
    start_heartbeat_timeout: Duration = Field(15.0, gt=0)
    """As `heartbeat_timeout`, for a worker that starts: some runtimes block all of its threads while they build."""
    worker_bytes: int | None = Field(None, ge=MEBIBYTE)
    """A worker that holds more memory is replaced; by default four times what it held when it was ready, and at least 1
    GiB more."""
    shared_bytes: int = Field(512 * MEBIBYTE, ge=MEBIBYTE)
    """Shared memory for the pictures and tensors that wait or are being computed."""
    outbound_bytes: int = Field(256 * MEBIBYTE, ge=MEBIBYTE)
    """Shared memory for a worker's output tensors."""
    grace: Duration = Field(5.0, ge=0)
    """After SIGTERM: how long the service reports that it isn't ready, and still serves."""
    drain_timeout: Duration = Field(30.0, ge=0)
    """After the grace period: how long it may take to finish what it has accepted."""
    access: AccessSettings = AccessSettings()
    """Keys and rates."""
    cors: CorsSettings = CorsSettings()
    """Web pages of other origins that may send requests."""
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    compat: CompatSettings = CompatSettings()
    """The interfaces of other products, and which model answers them."""
    urls: UrlSettings = UrlSettings()
    """Whether pictures may be named by their URLs."""
    clips: ClipSettings = ClipSettings()
    """What a clip may be, and cost."""
    live: LiveSettings = LiveSettings()
    """Frames of a camera, over a WebSocket."""
    candidates: dict[str, CandidateSettings] = {}
    """Models on trial, by the names of those that they may replace."""
    folder: Path | None = None
    """Where served bundles are copied to; by default the user's cache."""

    @property
    def processes(self) -> int:
        """How many processes take requests: the main one takes those of gRPC, beside several web processes."""
        return 1 if self.web_processes == 1 else self.web_processes + 1

    def of_process(self) -> Settings:
        """Return the limits of one web process: its share of those that hold for all of them together, and at least
        what the largest request needs."""
        count, largest = self.web_processes, self.max_body_bytes
        if count == 1:
            return self
        shares = {
            "max_connections": max(1, self.max_connections // count),
            "max_received_bytes": max(largest, self.max_received_bytes // count),
            "max_unsent_bytes": max(MEBIBYTE, self.max_unsent_bytes // count),
            "shared_bytes": max(2 * largest, self.shared_bytes // count),
        }
        return self.model_copy(update=shares)


def read(file: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Read settings from a TOML file, if there is one; `overrides` replace its values. Raises InputError."""
    try:
        data = tomllib.loads(files.read_text(file, MEBIBYTE, regular=True)) if file is not None else {}
        return Settings.model_validate({**data, **overrides})
    except OSError as error:
        raise InputError(f"{file}: can't read the settings: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: invalid TOML: {error}") from error
    except ValidationError as error:
        raise InputError(
            f"{file or 'settings'}: {explain(error, 'the settings')}",
            f"Known settings: {', '.join(Settings.model_fields)}.",
        ) from error
