"""Backends are found by their folder, by entry point, and imported only when used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.contract_networks import network
from plimsoll import backends
from plimsoll.backends.base import Backend
from plimsoll.backends.runner import Runner
from plimsoll.core.foreign import require, translate
from plimsoll.core.target import Target
from plimsoll.errors import BackendMissingError, BuildError, ImageError, RunError, TargetError


def test_a_folder_in_the_folder_is_a_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The promise of the design: one new folder, no other edit anywhere."""
    source = (Path(backends.__file__).parent / "reference" / "backend.py").read_text()
    (tmp_path / "newcomer").mkdir()
    (tmp_path / "newcomer" / "__init__.py").write_text(source.replace('"reference"', '"newcomer"'))
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    backends.names.cache_clear()
    try:
        assert "newcomer" in backends.names()
        with Runner.open(network(tmp_path / "net.onnx"), Target.parse("newcomer")) as runner:
            assert runner.infer(np.ones((1, 5, 6, 3), np.float32))["scores"].shape == (1, 4)
    finally:
        backends.names.cache_clear()


def test_an_unknown_runtime_names_those_there_are() -> None:
    with pytest.raises(TargetError, match="imaginary") as caught:
        backends.for_target(Target("imaginary"))
    assert "onnxruntime" in caught.value.hint


def test_a_missing_runtime_carries_the_command_that_installs_it() -> None:
    with pytest.raises(BackendMissingError) as caught:
        require("no_such_runtime_here", "pip install no-such-runtime")
    assert "pip install no-such-runtime" in caught.value.hint


def test_a_runtime_that_is_there_but_broken_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_runtime.py").write_text(
        "raise ImportError('libsomething.so.3: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendMissingError, match=r"libsomething\.so\.3"):
        require("broken_runtime", "pip install broken-runtime")


def test_a_foreign_error_is_translated_once_with_its_cause() -> None:
    cause = RuntimeError("line one\nline two")
    with (
        pytest.raises(RunError, match="running: line one line two") as caught,
        translate(RunError, "running"),
    ):
        raise cause
    assert caught.value.__cause__ is cause


def test_our_own_errors_pass_untouched() -> None:
    with pytest.raises(ImageError), translate(BuildError, "building"):
        raise ImageError("as it was")


@pytest.mark.parametrize("name", backends.names())
def test_a_backend_is_called_like_its_folder(name: str) -> None:
    backend = backends.get(name)
    assert isinstance(backend, Backend)
    assert backend.name == name
    assert all(offer.target.runtime == name for offer in backend.targets())
