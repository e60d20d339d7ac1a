"""A new version takes over where its golden vectors pass, and nothing is lost meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from helpers.minimal_bundle import put
from helpers.service_process import start, until
from plimsoll.bundle import Bundle, tensor_file
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target
from plimsoll.inference.predictor import open_model


@pytest.fixture
def bundle(tmp_path: Path, nsfw_model_path: Path) -> Path:
    del nsfw_model_path
    with open_model("open_nsfw") as opened:
        return pack(opened.model, Target("onnxruntime"), tmp_path / "model.plimsoll")


def test_a_new_version_serves_only_when_its_golden_vectors_pass_and_nothing_is_lost(
    bundle: Path, tmp_path: Path, example_photos: list[Path]
) -> None:
    with start(f"m={bundle}", "--workers", "1", "--grace", "0") as running:
        with running.load(example_photos[0], 3) as answers:
            until(lambda: answers, "an answer of version 1")
            running.process.send_signal(signal.SIGHUP)
            until(lambda: running.get("/v1/models").json()["models"][0]["version"] == "2", "version 2")
            until(lambda: len(running.workers()) == 1, "the worker of version 1 to end")
            worker = running.workers()
            _spoil(bundle, tmp_path)
            running.process.send_signal(signal.SIGHUP)
            until(
                lambda: any("golden vectors do not pass" in line for line in running.log),
                "the bad version to be refused",
            )
            model = running.get("/v1/models").json()["models"][0]
            assert (model["version"], model["state"]) == ("2", "ready")
            os.kill(worker[0], signal.SIGKILL)
            until(
                lambda: running.workers() not in ([], worker) and running.get("/readyz").status_code == 200,
                "a worker of version 2 in the place of another",
            )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["results"][0]["answer"]["score"] for answer in answers}) == 1


def _spoil(bundle: Path, tmp_path: Path) -> None:
    """Put a bundle in its place whose golden answers are other ones; its hashes are right."""
    spoiled = tmp_path / "spoiled.plimsoll"
    with Bundle.open(bundle) as opened:
        name = next(iter(opened.manifest.golden[0].outputs.values()))
        tensor = opened.tensor(name)
    shutil.copytree(bundle, spoiled)
    put(spoiled, name, tensor_file.dumps(1 - tensor))
    shutil.rmtree(bundle)
    spoiled.rename(bundle)
