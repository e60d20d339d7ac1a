"""Read a request's JSON without being made to hold gigabytes."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from plimsoll.serve.messages import Problem, RequestError

MOST_VALUES = 1_250_000
"""Values in a JSON body: a tensor of 640 × 640 pixels in three colours has fewer. In Python's memory a list of nothing
takes 25 times its place in the JSON, and reading it keeps everybody else waiting."""


def read_json(body: bytes, hint: str = "") -> Any:
    """Return what a body holds as JSON; raises RequestError: 400 where it is none, 413 where it has more values than
    anybody needs."""
    if len(body) > 2 * MOST_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise RequestError(Problem("input", f"the body's JSON has more than {MOST_VALUES:,} values", hint, 413))
    try:
        return from_json(body)
    except ValueError as error:
        raise RequestError(Problem("input", f"the body is not JSON: {error}", hint, 400)) from error
