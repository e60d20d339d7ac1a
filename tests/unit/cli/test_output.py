"""Nothing in a row reaches the terminal as a command to it."""

from __future__ import annotations

import io

from rich.console import Console

from plimsoll.cli import output
from plimsoll.inference.predictor import Prediction
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.classify import Classification

ESCAPE = "\x1b[2J"


def test_a_table_shows_hostile_paths_labels_and_errors_as_text() -> None:
    task = decoder(
        validate(
            {
                "name": "hostile",
                "input": {"steps": [{"step": "decode"}]},
                "output": {"task": "classify", "labels": [f"cat{ESCAPE}", f"dog{ESCAPE}"], "positive": f"cat{ESCAPE}"},
            }
        )
    )
    stream = io.StringIO()
    table = output.Table(Console(file=stream, width=200), task, top=2)
    answer = Classification(f"cat{ESCAPE}", 0.75, {f"cat{ESCAPE}": 0.75, f"dog{ESCAPE}": 0.25}, f"sure{ESCAPE}")
    table.write(Prediction(f"a{ESCAPE}.jpg", answer, None))
    table.write(Prediction("b.jpg", None, f"refused{ESCAPE}"))
    table.close()
    assert "\x1b" not in stream.getvalue()
    assert all(f"{word}?[2J" in stream.getvalue() for word in ("a", "cat", "dog", "sure", "refused"))
