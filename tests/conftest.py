"""What all tests share: the example pictures, and the trained open_nsfw network."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from plimsoll import zoo
from plimsoll.errors import ModelError, PlimsollError
from plimsoll.system import host, subprocesses
from plimsoll.zoo import catalog

if TYPE_CHECKING:
    from helpers.digits_model import Digits

os.environ.update(host.TELEMETRY_OFF)  # Test modules import ONNX Runtime themselves.

# On a crowded machine a single example takes longer than Hypothesis expects; pytest's own time limit is enough.
settings.register_profile("plimsoll", deadline=None)
settings.load_profile("plimsoll")

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker more than cores: a fifth of the time a test waits for something."""
    return host.cores() + 1


@pytest.fixture
def jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs in the tests' own process, a second faster than in one of their own: for what neither crashes nor meets
    a limit."""

    def run_job(
        module: str, payload: dict[str, Any], folder: Path, limits: subprocesses.ProcessLimits
    ) -> dict[str, Any]:
        del limits
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = importlib.import_module(module).run(json.loads(json.dumps(payload)))
        except PlimsollError as error:
            raise subprocesses.JobError(error.message, error.hint) from error
        answer: dict[str, Any] = json.loads(json.dumps(result))
        return answer

    monkeypatch.setattr(subprocesses, "run_job", run_job)


@pytest.fixture(scope="session")
def example_photos() -> list[Path]:
    """Every photograph in examples/photos, sorted."""
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    assert len(photos) >= 48
    return photos


@pytest.fixture(scope="session")
def awkward() -> Path:
    """The folder of deliberately awkward pictures."""
    return ROOT / "examples" / "awkward"


@pytest.fixture(scope="session")
def nsfw_model_path() -> Path:
    """The trained open_nsfw network. `make test` fetches it; without a network the tests that need it are skipped, but
    never in CI."""
    try:
        return catalog.fetch("open_nsfw")
    except ModelError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the weights of {zoo.card('open_nsfw').title} can't be fetched: {error.message}")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """A small network trained on scikit-learn's digits, and 1,100 digits that it has not seen, one folder a class."""
    from helpers.digits_model import make  # scikit-learn takes a second to import, and few tests need it.

    return make(tmp_path_factory.mktemp("digits"))
