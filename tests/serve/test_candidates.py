"""A model on trial beside another, in a real service: a share of the requests, and answers that are compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.service_process import ServiceProcess, start, until
from plimsoll.errors import InputError
from plimsoll.serve.candidates import CandidateSettings, Difference
from plimsoll.serve.service import ModelConfig, Service
from plimsoll.serve.settings import Settings

CONFIG = """
start_heartbeat_timeout = 600
[candidates.now]
model = "next"
share = 0.5
shadow = 1.0
"""
REQUESTS = 24


@pytest.fixture(scope="module")
def trial(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    del nsfw_model_path
    config = tmp_path_factory.mktemp("config") / "serve.toml"
    config.write_text(CONFIG)
    models = ("now=open_nsfw", "next=open_nsfw")
    with start(*models, "--workers", "1", "--grace", "0", "--config", str(config)) as running:
        yield running


def test_a_share_is_answered_by_the_candidate_and_the_rest_is_compared(
    trial: ServiceProcess, example_photos: list[Path]
) -> None:
    photo = example_photos[0].read_bytes()
    answered: Counter[str] = Counter()
    for _ in range(REQUESTS):
        reply = trial.post("/v1/predict?model=now", content=photo)
        assert reply.status_code == 200
        answered[reply.json()["model"]] += 1
        reply = trial.post("/v2/models/now/infer", json=pictures([example_photos[0]]))
        answered[reply.json()["model_name"]] += 1
    assert set(answered) == {"now", "next"}  # by chance once in 10^14
    outcomes = ("same", "different", "failed", "skipped")

    def counted(outcome: str) -> float:
        labels = {"model": "now", "candidate": "next", "outcome": outcome}
        return trial.metric("plimsoll_shadow_answers_total", **labels)

    until(lambda: sum(map(counted, outcomes)) == answered["now"], "the comparisons")
    assert counted("same") > 0
    assert counted("different") == counted("failed") == 0
    assert trial.metric("plimsoll_shadow_deviation_count", model="now") == counted("same")
    shown = {model["name"]: model.get("candidate") for model in trial.get("/v1/models").json()["models"]}
    assert shown["next"] is None
    assert {key: shown["now"][key] for key in ("model", "share", "shadow")} == {
        "model": "next", "share": 0.5, "shadow": 1.0
    }  # fmt: skip
    assert shown["now"]["same"] == counted("same")
    assert shown["now"]["largest_deviation"] < 1e-5


def pictures(photos: list[Path]) -> dict[str, object]:
    import base64

    data = [base64.b64encode(photo.read_bytes()).decode() for photo in photos]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}]}


def test_who_names_a_version_or_the_candidate_gets_it(trial: ServiceProcess, example_photos: list[Path]) -> None:
    photo = example_photos[0].read_bytes()
    for _ in range(12):
        reply = trial.post("/v2/models/now/versions/1/infer", json=pictures([example_photos[0]]))
        assert reply.json()["model_name"] == "now"
        assert trial.post("/v1/predict?model=next", content=photo).json()["model"] == "next"


def test_a_candidate_that_does_not_answer_costs_nobody_an_answer(
    trial: ServiceProcess, example_photos: list[Path]
) -> None:
    assert trial.post("/v2/repository/models/next/unload", json={}).status_code == 200
    try:
        for _ in range(12):
            reply = trial.post("/v1/predict?model=now", content=example_photos[0].read_bytes())
            assert (reply.status_code, reply.json()["model"]) == (200, "now")
    finally:
        assert trial.post("/v2/repository/models/next/load", json={}).status_code == 200


@pytest.mark.parametrize("named", [("a", "c"), ("c", "a"), ("a", "a")])
def test_candidates_are_models_that_are_served(named: tuple[str, str]) -> None:
    settings = Settings(candidates={named[0]: CandidateSettings(model=named[1])})
    with pytest.raises(InputError, match="candidates"):
        Service(settings, [ModelConfig("a", "open_nsfw"), ModelConfig("b", "open_nsfw")])


CLASSIFIED = {"label": "cat", "score": 0.9, "scores": {"cat": 0.9, "dog": 0.1}}


@pytest.mark.parametrize(
    ("other", "same", "largest"),
    [
        (CLASSIFIED, True, 0.0),
        ({"label": "cat", "score": 0.8, "scores": {"dog": 0.2, "cat": 0.8}}, True, 0.1),
        ({"label": "dog", "score": 0.6, "scores": {"dog": 0.6, "cat": 0.4}}, False, 0.5),
        ({"label": None, "score": 0.9, "scores": {"cat": 0.9, "dog": 0.1}}, False, 0.0),
        ({"label": "cat", "score": 0.9, "scores": {"cat": 0.9}}, False, 0.0),
    ],
)
def test_how_two_classifications_differ(other: dict[str, object], same: bool, largest: float) -> None:
    difference = Difference()
    difference.look(CLASSIFIED, json.loads(json.dumps(other)))
    assert difference.same == same
    assert difference.largest == pytest.approx(largest)


def test_how_boxes_and_tensors_differ() -> None:
    boxes = {"boxes": [{"label": "a", "score": 0.5, "box": [0, 0, 10, 10]}]}
    moved = {"boxes": [{"label": "a", "score": 0.5, "box": [0, 0, 10, 13]}]}
    more = {"boxes": [*boxes["boxes"], {"label": "b", "score": 0.1, "box": [1, 1, 2, 2]}]}
    for other, same, largest in ((boxes, True, 0), (moved, True, 3), (more, False, 0)):
        difference = Difference()
        difference.look(boxes, other)
        assert (difference.same, difference.largest) == (same, largest)
    tensor = np.zeros((1, 4), np.float32)
    for array, same, largest in ((tensor + 2, True, 2), (np.zeros((1, 5)), False, 0), (tensor, True, 0)):
        difference = Difference()
        difference.look({"y": tensor}, {"y": array})
        assert (difference.same, difference.largest) == (same, largest)
