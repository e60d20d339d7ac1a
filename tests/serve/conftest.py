"""A real service: `plimsoll serve` in a process of its own, with the trained open_nsfw network; and a runtime that
breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.crashing_runtime import install
from helpers.service_process import ServiceProcess, start

if TYPE_CHECKING:
    from helpers.grpc_client import GrpcClient


@pytest.fixture(scope="session")
def served(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """open_nsfw behind reference preprocessing, on two workers; shared by tests that don't harm it.
    They may start slowly, as a crowded machine has them do."""
    del nsfw_model_path
    config = tmp_path_factory.mktemp("served") / "serve.toml"
    config.write_text("start_heartbeat_timeout = 600\n")
    with start("open_nsfw", "--workers", "2", "--grace", "0", "--config", str(config)) as running:
        yield running


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the runtime `fragile` is installed."""
    return install(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcClient]:
    """A service that is asked over gRPC, which is an extra."""
    from helpers.grpc_client import served

    with served(tmp_path_factory.mktemp("requests")) as client:
        yield client


@pytest.fixture
def client(shared_client: GrpcClient) -> GrpcClient:
    """The service, with nothing told yet."""
    shared_client.lines.clear()
    shared_client.spans()
    return shared_client
