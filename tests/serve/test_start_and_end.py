"""A service that can't start says why; one that is told to end finishes what it has accepted, and leaves nobody
behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.service_process import start, until

FOLDER = str(Path(__file__).parent)


def test_sigterm_finishes_what_was_accepted_and_ends_well(nsfw_model_path: Path, example_photos: list[Path]) -> None:
    """The clients go elsewhere once the service says that it isn't ready, as those behind a load balancer do."""
    del nsfw_model_path
    with start("open_nsfw", "--workers", "2", "--grace", "10s") as running:
        with running.load(example_photos[0]) as answers:
            until(lambda: len(answers) > 6, "answers")
            workers = running.workers()
            assert len(workers) == 2
            running.process.send_signal(signal.SIGTERM)
            until(lambda: running.get("/readyz").status_code == 503, "readiness to go off")
            last = running.post("/v1/predict", content=example_photos[0].read_bytes())
            assert last.status_code == 200, "in the grace everybody is still answered"
            assert last.headers["connection"] == "close", "and sent away"
        assert {answer.status_code for answer in answers} == {200}
        assert running.process.wait(60) == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_workers_go_when_the_service_is_killed(nsfw_model_path: Path) -> None:
    del nsfw_model_path
    with start("open_nsfw", "--workers", "2") as running:
        workers = running.workers()
        assert len(workers) == 2
        running.process.kill()
        until(lambda: not any(_alive(worker) for worker in workers), "the workers to end")


def _alive(process: int) -> bool:
    try:
        return "plimsoll.serve.worker" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing_of_that_name"], "nor a network of the zoo"),
        (["open_nsfw", "open_nsfw"], "duplicate model name"),
        (["a b=open_nsfw"], "invalid model name"),
        (["open_nsfw", "--config", "no.toml"], "can't read the settings"),
        (["open_nsfw", "--target", "openvino:gpu:float32"], "openvino"),
        (["open_nsfw", "--key", "no.pem"], "both"),
        (["open_nsfw", "--certificate", "no.pem"], "no such file"),
        (["open_nsfw", "--certificate", __file__], "private key"),
        (["open_nsfw", "--host", "no.such.host.invalid"], "can't listen"),
        (["open_nsfw", "--certificate", "no.pem", "--key", "no.pem"], "no such file"),
        (["open_nsfw", "--certificate", FOLDER], "folder"),
        (["open_nsfw", "--certificate", __file__, "--key", FOLDER], "folder"),
        (["open_nsfw", "--certificate", "PIPE"], "pipe"),
        (["open_nsfw", "--config", "PIPE"], "pipe"),
        (["open_nsfw", "--unix-socket", FOLDER], "not a socket"),
        (["open_nsfw", "--web-processes", "0"], "web-processes"),
        (["open_nsfw", "--certificate", __file__, "--key", __file__], "private key"),
    ],
)
def test_mistakes_in_the_command_are_reported(arguments: list[str], message: str, tmp_path: Path) -> None:
    """Nobody writes into PIPE, so that a service that opened it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    arguments = [str(tmp_path / "pipe") if argument == "PIPE" else argument for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "plimsoll", "serve", *arguments, "--port", "0"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
