"""Lines of text: greedy reading and beam search against a sum over every path; and what is refused."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.errors import ModelError, SpecError
from plimsoll.spec import files
from plimsoll.spec.files import dumps, loads, validate
from plimsoll.tasks import decoder
from plimsoll.tasks.text import Line, TextTask, beam_search, begins, greedy

Array = NDArray[Any]
FILE = 'name = "it"\n[[input.steps]]\nstep = "decode"\n[output]\ntask = "text"\nalphabet_file = "keys.txt"\n'


def task(**output: Any) -> TextTask:
    spec = {"name": "it", "input": {"steps": [{"step": "decode"}]}, "output": {"task": "text", **output}}
    text = decoder(validate(spec))
    assert isinstance(text, TextTask)
    return text


def read(raw: Array, **output: Any) -> Line:
    [line] = task(**output).decode({"y": raw})
    return line


def one_hot(path: list[int], count: int, sure: float = 0.9) -> Array:
    """Return `[1, T, count]`: each step is sure of its symbol, and the rest shares what is left."""
    steps = np.full((1, len(path), count), (1 - sure) / (count - 1), np.float32)
    steps[0, range(len(path)), path] = sure
    return steps


def spelled(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """CTC's map from a path to its text, by its definition."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def every_text(steps: Array, blank: int) -> dict[tuple[int, ...], float]:
    """Return the probability of every text: of all paths that spell it."""
    texts: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(steps.shape[1]), repeat=len(steps)):
        texts[spelled(path, blank)] += float(
            np.prod([steps[at, symbol] for at, symbol in enumerate(path)], dtype=float)
        )
    return texts


def test_repeats_are_merged_and_blanks_dropped_wherever_the_blank_stands() -> None:
    first = one_hot([0, 1, 1, 0, 1, 2, 2, 0], 4)
    assert read(first, alphabet="abc").text == "aab"
    last = one_hot([3, 0, 0, 3, 0, 1, 1, 3], 4)
    line = read(last, alphabet="abc", blank="last")
    assert line.text == "aab"
    assert line.score == pytest.approx(0.9)
    assert line.row() == {"text": "aab", "score": 0.9, "symbols": [["a", 0.9], ["a", 0.9], ["b", 0.9]]}


def test_scores_are_the_mean_of_the_symbols_or_the_probability_of_the_text() -> None:
    steps = np.array([[[0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05], [0.2, 0.3, 0.5]]], np.float32)
    assert read(steps, alphabet="ab").score == pytest.approx((0.8 + 0.5) / 2)
    assert read(steps, alphabet="ab", score="probability").score == pytest.approx(0.8 * 0.6 * 0.9 * 0.5)
    nothing = np.array([[[0.9, 0.1], [0.8, 0.2]]], np.float32)
    assert read(nothing, alphabet="a").row() == {"text": "", "score": 0.0, "symbols": []}
    assert read(nothing, alphabet="a", score="probability").score == pytest.approx(0.72)
    assert read(steps, alphabet="ab", threshold=0.7).text == ""
    assert task(alphabet="ab").decode({"y": steps}, threshold=0.7)[0].row()["symbols"] == []


def test_axes_logits_and_whole_numbers() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (2, 7, 4)).astype(np.float32)
    text = task(alphabet=["x", "yy", "z"], activation="softmax")
    lines = text.decode({"y": logits})
    assert lines == text.decode({"y": np.ascontiguousarray(np.moveaxis(logits, 1, 2))})
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    for line, same in zip(lines, text.decode({"y": np.log(shares)}), strict=True):
        assert line.text == same.text
        assert line.score == pytest.approx(same.score, rel=1e-5)
    paths = logits.argmax(axis=2)
    whole = text.decode({"y": paths})
    assert [line.text for line in whole] == [line.text for line in lines]
    assert whole[0].score is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 4), st.booleans())
def test_a_wide_beam_finds_the_most_probable_of_all_texts(seed: int, length: int, count: int, last: bool) -> None:
    steps = np.random.default_rng(seed).dirichlet(np.full(count, 0.5), length).astype(np.float32)
    blank = count - 1 if last else 0
    texts = every_text(steps, blank)
    reading = beam_search(steps, blank, 1000)
    assert reading.probability == pytest.approx(max(texts.values()), rel=1e-4, abs=1e-12)
    assert texts[reading.symbols] == pytest.approx(reading.probability, rel=1e-4, abs=1e-12)
    path = tuple(int(symbol) for symbol in steps.argmax(axis=1))
    best = greedy(steps, blank)
    assert best.symbols == spelled(path, blank)
    assert best.probability == pytest.approx(float(steps.max(axis=1).astype(float).prod()), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 4))
def test_symbols_begin_where_the_best_path_of_their_text_has_them(seed: int, length: int, count: int) -> None:
    steps = np.random.default_rng(seed).dirichlet(np.full(count, 0.5), length).astype(np.float32)
    path = max(
        itertools.product(range(count), repeat=length),
        key=lambda path: np.prod([steps[at, symbol] for at, symbol in enumerate(path)]),
    )
    for other in (path, tuple(np.random.default_rng(seed).integers(0, count, length).tolist())):
        text = spelled(other, 0)
        best = max(
            (path for path in itertools.product(range(count), repeat=length) if spelled(path, 0) == text),
            key=lambda path: np.prod([steps[at, symbol] for at, symbol in enumerate(path)]),
        )
        expected = [at for at in range(length) if best[at] and (not at or best[at] != best[at - 1])]
        assert begins(steps, text, 0) == expected


def test_a_beam_prefers_a_text_with_many_paths() -> None:
    """The best path is two blanks (0.36), but "a" has 0.64 in three paths."""
    steps = np.array([[[0.6, 0.4], [0.6, 0.4]]], np.float32)
    assert read(steps, alphabet="a").text == ""
    line = read(steps, alphabet="a", beam_width=2, score="probability")
    assert line.text == "a"
    assert line.score == pytest.approx(0.64)


def test_a_beam_reads_long_lines_of_many_symbols() -> None:
    steps = one_hot([*range(1, 200), 0], 6625, sure=0.5)
    line = read(steps, alphabet=[chr(0x4E00 + index) for index in range(6624)], beam_width=5)
    assert len(line.text) == 199
    assert line.score == pytest.approx(0.5)


def test_an_alphabet_beside_the_spec_travels_in_it(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes("a\r\n　\n\u2028\nß".encode())
    (tmp_path / "spec.toml").write_text(FILE + "space = true\n")
    spec = files.read(tmp_path / "spec.toml")
    assert loads(dumps(spec)) == spec
    text = decoder(spec)
    [line] = text.decode({"y": one_hot([1, 2, 3, 4, 5], 6)})
    assert line.row()["text"] == "a　\u2028ß "
    assert "\u2028" not in line.brief()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\n\nb\n", "line 2: empty, expected a symbol"),
        (b"\n\n", "0 symbols"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a\n" * 30_001, "30,001 symbols"),
    ],
)
def test_what_is_no_alphabet_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "keys.txt").write_bytes(content)
    (tmp_path / "spec.toml").write_text(FILE)
    with pytest.raises(SpecError, match=says):
        files.read(tmp_path / "spec.toml")


def test_a_spec_without_its_alphabet_or_with_the_blank_in_it_is_refused() -> None:
    for output, says in (({}, "either alphabet or alphabet_file"), ({"alphabet": ["", "a"]}, "a symbol is empty")):
        with pytest.raises(SpecError, match=says):
            task(**output)
    with pytest.raises(SpecError, match="was not read"):
        task(alphabet_file="keys.txt")


def test_outputs_that_are_no_steps_are_refused() -> None:
    text = task(alphabet="abc")
    for raw, says in (
        (np.zeros((1, 5, 3), np.float32), r"\[1, 5, 3\].*3 symbols and the blank, so \[N, T, 4\]"),
        (np.zeros((1, 4), np.float32), "is expected"),
        (np.random.default_rng(1).normal(size=(1, 5, 4)), "expected probabilities with the sum 1"),
        (np.full((1, 5, 4), np.nan), "non-finite scores"),
        (np.full((1, 5), 4), "symbols from 4 to 4; with the blank the Spec has 4"),
        (np.zeros((1, 1, 5), np.int64), r"symbols are read from \[N, T\]"),
    ):
        with pytest.raises(ModelError, match=says):
            text.decode({"y": raw})


def test_the_blank_is_compared_apart() -> None:
    raw = one_hot([0, 1, 2], 4)
    columns = task(alphabet="abc").columns({"y": raw})
    assert list(columns) == ["y, score of the blank", "y, scores of the symbols"]
    np.testing.assert_array_equal(columns["y, scores of the symbols"], raw[:, :, 1:])
