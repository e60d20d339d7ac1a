"""Requests whose correct answers are known, and checks of what came back: every request gets exactly one answer, the
correct one for its picture."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from http_wire import Response
from request_formats import HOST

import plimsoll
from plimsoll.tasks.classify import Classification

NOT_A_PICTURE = b"\xff\xd8\xff\xe0 this is not a picture"
KINDS_OF_FAILURE = frozenset({"overloaded", "unavailable", "deadline", "failed"})
"""The problems that a request may have through no fault of its own."""


@dataclass(frozen=True)
class Photo:
    """A picture and its score, computed once without any server."""

    data: bytes
    score: float


def distinguishable(model: str, photos: Sequence[bytes], tolerance: float) -> list[Photo]:
    """Return photos whose scores lie more than two tolerances apart: no answer for another photo passes."""
    with plimsoll.load(model) as predictor:
        scores = [
            answer.score if isinstance(answer := predictor.predict(photo), Classification) else -1.0 for photo in photos
        ]
    chosen: list[Photo] = []
    for photo, score in zip(photos, scores, strict=True):
        if all(abs(score - other.score) > 2 * tolerance for other in chosen):
            chosen.append(Photo(photo, score))
    return chosen


@dataclass(frozen=True)
class Question:
    """A whole request, and the score that each of its pictures has; None for one that is no picture."""

    request: bytes
    scores: tuple[float | None, ...]


def questions(photos: Sequence[Photo], seed: int) -> Iterator[Question]:
    """Yield questions without end: single photos mostly, several in one request, in base64, and some with a part that
    is no picture."""
    draw = random.Random(seed)
    while True:
        kind = draw.random()
        if kind < 0.7:
            photo = draw.choice(photos)
            yield Question(post_request(photo.data, {"Content-Type": "image/jpeg"}), (photo.score,))
            continue
        several = [(photo.data, photo.score) for photo in draw.choices(photos, k=draw.randint(1, 4))]
        scores: list[tuple[bytes, float | None]] = [*several]
        if kind > 0.92:
            scores.insert(draw.randrange(len(scores) + 1), (NOT_A_PICTURE, None))
        pictures = [data for data, _ in scores]
        yield Question(
            _in_base64(pictures) if kind < 0.78 else _in_parts(pictures), tuple(score for _, score in scores)
        )


def post_request(body: bytes, headers: Mapping[str, str], path: str = "/v1/predict") -> bytes:
    """Return a POST request."""
    head = "".join(
        f"{name}: {value}\r\n" for name, value in {"Host": HOST, "Content-Length": str(len(body)), **headers}.items()
    )
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def get_request(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def _in_base64(pictures: Sequence[bytes]) -> bytes:
    body = json.dumps(
        {
            "images": [
                {"data": base64.b64encode(data).decode(), "name": str(index)} for index, data in enumerate(pictures)
            ]
        }
    )
    return post_request(body.encode(), {"Content-Type": "application/json"})


def _in_parts(pictures: Sequence[bytes]) -> bytes:
    head = '--chaos\r\nContent-Disposition: form-data; name="file"; filename="{}"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = (
        b"".join(head.format(index).encode() + data + b"\r\n" for index, data in enumerate(pictures)) + b"--chaos--\r\n"
    )
    return post_request(body, {"Content-Type": "multipart/form-data; boundary=chaos"})


@dataclass
class Outcome:
    """What came of many questions."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Answers by status, and requests without one by `unanswered` or `late`."""
    problems: Counter[str] = field(default_factory=Counter)
    """The kinds of problems in answers."""
    pictures: int = 0
    """That were answered rightly."""
    wrong: list[str] = field(default_factory=list)
    """Answers that were not the right ones, in words."""
    surplus: int = 0
    """Pieces of answers that nobody had asked for."""
    slowest: float = 0.0
    """Seconds."""
    largest: float = 0.0
    """Difference of a score from the right one."""

    def check(self, question: Question, response: Response, tolerance: float) -> None:
        """Count an answer; what is wrong with it goes into `wrong`."""
        self.statuses[str(response.status)] += 1
        try:
            body = json.loads(response.body)
        except ValueError:
            self.wrong.append(f"status {response.status} with a body that is not JSON: {response.body[:80]!r}")
            return
        results = body.get("results")
        if results is None:
            self._check_refusal(response, body)
        elif len(results) != len(question.scores):
            self.wrong.append(f"{len(results)} results for {len(question.scores)} pictures")
        else:
            if response.status != 200:
                self._check_status(response)
            for index, (result, score) in enumerate(zip(results, question.scores, strict=True)):
                if len(results) > 1 and result["name"] != str(index):
                    self.wrong.append(f"result {index} has the name {result['name']!r}")
                self._check_picture(result, score, tolerance)

    def _check_refusal(self, response: Response, body: Mapping[str, Any]) -> None:
        kind = body.get("error", {}).get("kind")
        self.problems[str(kind)] += 1
        if response.status == 200 or kind not in KINDS_OF_FAILURE:
            self.wrong.append(f"status {response.status} with {str(body)[:160]}")
        self._check_status(response)

    def _check_status(self, response: Response) -> None:
        if response.status in (429, 503) and "retry-after" not in response.headers:
            self.problems["no Retry-After"] += 1

    def _check_picture(self, result: Mapping[str, Any], score: float | None, tolerance: float) -> None:
        answer, error = result["answer"], result["error"]
        if (answer is None) == (error is None):
            self.wrong.append(f"neither an answer nor an error, or both: {str(result)[:160]}")
        elif error is not None:
            self.problems[error["kind"]] += 1
            if score is None and error["kind"] not in {*KINDS_OF_FAILURE, "image"}:
                self.wrong.append(f"what is not a picture has the problem {error}")
            elif score is not None and error["kind"] not in KINDS_OF_FAILURE:
                self.wrong.append(f"a good picture has the problem {error}")
            elif score is None:
                self.pictures += error["kind"] == "image"
        elif score is None:
            self.wrong.append(f"what is not a picture was answered: {answer}")
        else:
            difference = abs(answer["score"] - score)
            self.largest = max(self.largest, difference)
            self.pictures += 1
            if not difference <= tolerance:
                self.wrong.append(f"score {answer['score']} for a photo of score {score}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; of what is wrong the first twenty."""
        return {
            "requests": self.requests,
            "statuses": dict(self.statuses),
            "problems": dict(self.problems),
            "pictures": self.pictures,
            "wrong": len(self.wrong),
            "wrong_first": self.wrong[:20],
            "surplus": self.surplus,
            "slowest_seconds": round(self.slowest, 2),
            "largest_difference": self.largest,
        }
