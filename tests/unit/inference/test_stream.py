"""A stream keeps the order, loses nothing, is bounded, ends when it should, and passes on what goes wrong."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from helpers.service_process import until
from helpers.slow_predictor import SlowPredictor, pictures, slow
from plimsoll.backends.base import Objective
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Tensors
from plimsoll.errors import BuildError
from plimsoll.preprocessing import decode


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("plimsoll")]


@pytest.mark.parametrize("batch", [None, 1, 3, 8])
@pytest.mark.parametrize("cores", [1, 2, 5])
def test_answers_come_in_order_whatever_takes_long(tmp_path: Path, cores: int, batch: int | None) -> None:
    listed = pictures(tmp_path, 10) * 3
    with slow(tmp_path, {0: 0.1, 3: 0.05}, cores=cores) as predictor:
        actual = list(predictor.predict_many(listed, batch=batch))
        alone = [predictor.predict(path) for path in listed[:10]] * 3
    assert [prediction.path for prediction in actual] == listed
    for prediction, expected in zip(actual, alone, strict=True):
        assert prediction.answer is not None
        assert prediction.answer.row()["scores"] == pytest.approx(expected.row()["scores"], abs=1e-6)
    assert not threads()


def test_batches_are_filled_across_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "plimsoll.inference.stream._IDLE_S", 60.0
    )  # A crowded machine starves threads for longer than a batch waits.
    with slow(tmp_path, cores=4) as predictor:
        assert sum(1 for _ in predictor.predict_many(pictures(tmp_path, 5) * 4, batch=5)) == 20
    assert predictor.session.calls <= 8, "20 pictures in 4 threads are four batches of 5, or some more at the end"


def test_a_runtime_that_compiles_each_size_is_asked_for_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures go one by one at first, then in full batches, and the rest one by one again."""
    monkeypatch.setattr("plimsoll.inference.stream._ALONE_FIRST", 6)
    monkeypatch.setattr("plimsoll.inference.stream._IDLE_S", 60.0)
    sizes = list[int]()
    with slow(tmp_path, cores=2) as predictor:
        runner = predictor.runner("throughput")
        runner.stream_batch = 4
        infer = runner.infer

        def counted(batch: NDArray[Any]) -> Tensors:
            sizes.append(len(batch))
            return infer(batch)

        monkeypatch.setattr(runner, "infer", counted)
        assert all(row.answer is not None for row in predictor.predict_many(pictures(tmp_path, 5) * 8))
        first = sizes.index(4)
        assert sum(sizes) == 40
        assert set(sizes) == {1, 4}
        assert first >= 6
        sizes.clear()
        assert sum(1 for _ in predictor.predict_many(pictures(tmp_path, 5))) == 5
        assert sorted(sizes) == [1, 4], "what was compiled once needs no run-up in the next stream"


def test_a_failed_batch_is_tried_picture_by_picture(tmp_path: Path) -> None:
    with slow(tmp_path, cores=1, failing=frozenset({0, 2})) as predictor:
        actual = list(predictor.predict_many(pictures(tmp_path, 4), batch=4))
    assert sorted(prediction.error or "" for prediction in actual) == ["", "", "", "a planted failure"]


def test_the_caller_s_error_comes_after_the_answers(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield from pictures(tmp_path, 3)
        raise KeyError("the list is broken")

    answered = list[str | None]()
    with slow(tmp_path, 0.02) as predictor, pytest.raises(KeyError, match="the list is broken"):
        answered.extend(prediction.error for prediction in predictor.predict_many(broken()))
    assert answered == [None] * 3
    assert not threads()


def test_a_mistake_in_a_thread_is_raised_in_the_caller_s(tmp_path: Path) -> None:
    class Mistaken(SlowPredictor):
        def runner(self, objective: Objective) -> Runner:
            result = super().runner(objective)
            self.session._inner = None  # type: ignore[assignment]  # The next call finds nothing to call.
            return result

    with slow(tmp_path) as predictor:
        predictor.__class__ = Mistaken
        with pytest.raises(AttributeError, match="NoneType"):
            list(predictor.predict_many(pictures(tmp_path)))
    assert not threads()


def test_a_runtime_that_can_not_be_loaded_ends_the_stream(tmp_path: Path) -> None:
    class Unloadable(SlowPredictor):
        def runner(self, objective: Objective) -> Runner:
            time.sleep(0.1)  # Long enough for the threads to wait for it.
            raise BuildError(f"nothing loads for {objective}")

    with slow(tmp_path) as predictor:
        predictor.__class__ = Unloadable
        with pytest.raises(BuildError, match="nothing loads for throughput"):
            list(predictor.predict_many(pictures(tmp_path)))
    assert not threads()


def test_what_is_under_way_is_bounded_and_a_stream_can_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plimsoll.inference.stream._WHILE_LOADING", 7)
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for path in itertools.cycle(pictures(tmp_path)):
            taken += 1
            yield path

    with slow(tmp_path, cores=2) as predictor:
        stream = predictor.predict_many(endless())
        for _ in range(5):
            next(stream)
        time.sleep(0.3)
        assert taken <= 7 + 2 * 2 * 9 + 1, "five answers used up the room that there was while the runtime was loaded"
        stream.close()  # type: ignore[attr-defined]  # a generator
    assert not threads()


def test_a_picture_that_comes_late_keeps_no_answer_waiting(tmp_path: Path) -> None:
    """A batch that isn't full goes as it is while the list on standard input makes a pause."""
    more = threading.Event()

    def halting() -> Iterator[str]:
        first, second, third = pictures(tmp_path)
        yield first
        yield second
        assert more.wait(60), "the first two answers did not come"
        yield third

    with slow(tmp_path) as predictor:
        stream = predictor.predict_many(halting(), batch=8)
        assert [next(stream).error, next(stream).error] == [None, None]
        more.set()
        assert len(list(stream)) == 1


def test_pictures_are_prepared_while_the_runtime_is_loaded(tmp_path: Path) -> None:
    seen = Counter[str]()

    class Late(SlowPredictor):
        def runner(self, objective: Objective) -> Runner:
            until(lambda: seen["prepare"] == 3, "all pictures to be prepared")
            return super().runner(objective)

    with slow(tmp_path) as predictor:
        predictor.__class__ = Late
        actual = list(predictor.predict_many(pictures(tmp_path), observe=lambda stage, _: seen.update([stage])))
    assert all(prediction.answer is not None for prediction in actual)
    assert seen["read"] == seen["prepare"] == seen["inference"] == seen["output"] == 3


def test_what_is_prepared_meanwhile_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Counter[str]()

    class Late(SlowPredictor):
        def runner(self, objective: Objective) -> Runner:
            until(lambda: seen["prepare"] == 36 + 10, "what there is room for")
            time.sleep(0.2)
            assert seen["prepare"] == 36 + 10
            return super().runner(objective)

    with slow(tmp_path, cores=2) as predictor:
        predictor.__class__ = Late
        size = 4 * 3 * 5 * 6
        monkeypatch.setattr("plimsoll.inference.stream._WHILE_LOADING_BYTES", 10 * size + size // 2)
        listed = pictures(tmp_path, 5) * 20
        answered = predictor.predict_many(listed, observe=lambda stage, _: seen.update([stage]))
        assert [row.path for row in answered] == listed


def test_a_session_with_fewer_streams_than_cores_leaves_the_cores_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the session needs no core: on two cores, more than two pictures get as far as the session."""
    arrived, three = list[int](), threading.Event()
    with slow(tmp_path, cores=2) as predictor:
        runner = predictor.runner("throughput")
        runner.streams = 1
        infer, run = runner.infer, predictor.session.run

        def arriving(batch: NDArray[Any]) -> Tensors:
            arrived.append(len(batch))
            if len(arrived) == 3:
                three.set()
            return infer(batch)

        def held(feeds: Mapping[str, NDArray[Any]]) -> Tensors:
            assert three.wait(60), "two pictures keep the others away"
            return run(feeds)

        monkeypatch.setattr(runner, "infer", arriving)
        monkeypatch.setattr(predictor.session, "run", held)
        actual = list(predictor.predict_many(pictures(tmp_path, 4), batch=1))
    assert [prediction.error for prediction in actual] == [None] * 4


@pytest.mark.parametrize(("slow_from", "at_once"), [(0.002, range(3, 5)), (10.0, range(1, 3))])
def test_slow_files_are_read_by_more_threads_than_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_from: float, at_once: range
) -> None:
    most = 0
    lock = threading.Lock()
    under_way = 0

    def slowly(source: bytes | Path) -> bytes:
        nonlocal most, under_way
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return decode.read(source)

    monkeypatch.setattr("plimsoll.inference.pictures.read", slowly)
    monkeypatch.setattr("plimsoll.inference.stream._SLOW_READ_S", slow_from)
    with slow(tmp_path, cores=2) as predictor:
        assert sum(1 for _ in predictor.predict_many(pictures(tmp_path, 10) * 8)) == 80
    assert most in at_once
    assert not threads()
