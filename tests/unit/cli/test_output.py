"""Nothing in a row reaches the terminal as a command to it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet
from rich.console import Console

from plimsoll.cli import output, rows
from plimsoll.cli.parquet import Parquet
from plimsoll.inference.predictor import Prediction
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.classify import Classification
from plimsoll.tasks.text import Line

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


def test_a_text_that_a_picture_shows_reaches_no_terminal_as_codes(tmp_path: Path) -> None:
    """C1 control characters and those that turn the writing direction are valid in JSON, but not for a terminal."""
    text = f"a{ESCAPE}\x9b2J\u202eb\u3000"
    output_keys = {"task": "text", "alphabet": "ab"}
    task = decoder(validate({"name": "text", "input": {"steps": [{"step": "decode"}]}, "output": output_keys}))
    answer = Line(text, 0.5, tuple((symbol, 0.5) for symbol in text))
    shown, lines, sheet = io.StringIO(), io.StringIO(), io.StringIO()
    for writer in (
        output.Table(Console(file=shown, width=200), task, top=None),
        rows.JsonLines(lines, task, None),
        rows.Csv(sheet, task, None),
    ):
        writer.write(Prediction("a.jpg", answer, None))
        writer.close()
    for written in (shown.getvalue(), lines.getvalue()):
        assert not {"\x1b", "\x9b", "\u202e"} & set(written)
    assert json.loads(lines.getvalue())["text"] == text
    assert next(csv.DictReader(io.StringIO(sheet.getvalue())))["text"] == text
    parquet = Parquet(tmp_path / "rows.parquet", task, None)
    parquet.write(Prediction("a.jpg", answer, None))
    parquet.close()
    [row] = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert row["text"] == text
    assert json.loads(row["symbols"])[0] == ["a", 0.5]
