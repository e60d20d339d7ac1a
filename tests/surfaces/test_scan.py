"""`plimsoll scan`: every picture has a row, once, whatever happens; and what the rows are for."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import crashing_runtime
from helpers.small_models import SPEC, small_model
from surfaces.conftest import COMMAND, Run, RunHere

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402  # where it is installed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with its Spec beside it."""
    folder = tmp_path_factory.mktemp("model")
    small_model(folder)
    (folder / "spec.toml").write_text(SPEC)
    return folder / "small.onnx"


def picture(seed: int) -> bytes:
    stored = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(pixels).save(stored, "PNG")
    return stored.getvalue()


def pictures(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(picture(number))
    return paths


def arguments(model: Path, *others: str | Path) -> list[str]:
    return ["scan", str(model), *map(str, others), "--spec", str(model.with_name("spec.toml"))]


def rows(table: Path) -> list[dict[str, Any]]:
    parts = sorted((table / "rows").iterdir())
    assert all(part.name.startswith("part-") and part.suffix == ".parquet" for part in parts)
    return [row for part in parts for row in parquet.read_table(part).to_pylist()]


def answers(table: Path) -> dict[str, Any]:
    """Return what a table says of each picture, without its time and number."""
    stored = rows(table)
    assert max(Counter(row["path"] for row in stored).values()) == 1
    return {row.pop("path"): {**row, "time": None, "item": None} for row in stored}


def test_a_folder_becomes_a_table_that_duckdb_questions(tmp_path: Path, model: Path, run_here: RunHere) -> None:
    duckdb = pytest.importorskip("duckdb")
    photos = pictures(tmp_path / "photos", 30)
    (tmp_path / "photos" / "broken.png").write_bytes(picture(0)[:60])
    (tmp_path / "photos" / "twice.png").write_bytes(picture(3))
    table = tmp_path / "table"
    done = run_here(*arguments(model, tmp_path / "photos", "--out", table, "--shard-size", "10"))
    assert done.returncode == 0, done.stderr
    predicted = run_here("predict", str(model), "--spec", str(model.with_name("spec.toml")), str(tmp_path / "photos"))
    expected = {row["path"]: row for row in map(json.loads, predicted.stdout.splitlines())}

    stored = {row["path"]: row for row in rows(table)}
    assert stored.keys() == expected.keys()
    for path, row in stored.items():
        assert (row["label"], row["error"]) == (expected[path]["label"], expected[path]["error"])
        if row["error"] is None:
            assert dict(row["scores"]) == pytest.approx(expected[path]["scores"], abs=1e-5)
            assert (row["width"], row["height"], row["bytes"]) == (6, 5, Path(path).stat().st_size)
    assert stored[str(photos[3])]["sha256"] == stored[str(tmp_path / "photos" / "twice.png")]["sha256"]
    assert stored[str(tmp_path / "photos" / "broken.png")]["error_kind"] == "ImageError"

    question = "SELECT label, count(*), max(scores[label]) FROM read_parquet(?) WHERE error IS NULL GROUP BY label"
    counted = {label: count for label, count, _ in duckdb.execute(question, [f"{table}/rows/*.parquet"]).fetchall()}
    assert counted == Counter(row["label"] for row in expected.values() if row["error"] is None)
    footers = (
        "SELECT sum((decode(value)::JSON->>'pictures')::INT) FROM parquet_kv_metadata(?) WHERE key = 'plimsoll.shard'"
    )
    assert duckdb.execute(footers, [f"{table}/rows/*.parquet"]).fetchall() == [(32,)]


def test_archives_lists_and_tables_are_sources_too(tmp_path: Path, model: Path, run_here: RunHere) -> None:
    photos = pictures(tmp_path / "photos", 4)
    (tmp_path / "list.txt").write_text("".join(f"{photo}\r\n" for photo in photos[:2]) + "\n" + "missing.png")
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for number in range(3):
            for name, content in ((f"{number:09}.png", picture(100 + number)), (f"{number:09}.json", b"{}")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    stored = pyarrow.table(
        {"key": ["a", "b"], "image": [{"bytes": picture(7), "path": None}, {"bytes": None, "path": None}]}
    )
    parquet.write_table(stored, tmp_path / "images.parquet")
    sources = [tmp_path / name for name in ("list.txt", "00000.tar", "images.parquet")]
    second = small_model(tmp_path / "second", form="float16").path
    table = tmp_path / "table"
    done = run_here(*arguments(model, *sources, "--out", table, "--also", second))
    assert done.returncode == 0, done.stderr

    by_picture: dict[str, list[dict[str, Any]]] = {}
    for row in rows(table):
        by_picture.setdefault(row["path"], []).append(row)
    archive_path, table_path = f"{sources[1]}/{1:09}.png", f"{sources[2]}/a"
    assert set(by_picture) == {
        *map(str, photos[:2]),
        "missing.png",
        *(f"{sources[1]}/{number:09}.png" for number in range(3)),
        table_path,
        f"{sources[2]}/b",
    }
    for path, pair in by_picture.items():
        assert len({row["bundle_sha256"] for row in pair}) == 2
        assert len({row["sha256"] for row in pair}) == 1
        assert {row["error"] is None for row in pair} == {path not in ("missing.png", f"{sources[2]}/b")}
    assert by_picture[archive_path][0]["bytes"] == len(picture(101))
    assert by_picture[table_path][0]["score"] == pytest.approx(by_picture[table_path][1]["score"], abs=1e-2)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
def test_killed_at_any_moment_it_goes_on_and_each_picture_has_its_row_once(tmp_path: Path, model: Path) -> None:
    photos = tmp_path / "photos"
    pictures(photos, 4_000)
    undisturbed, table = tmp_path / "undisturbed", tmp_path / "table"
    subprocess.run([*COMMAND, *arguments(model, photos, "--out", undisturbed)], check=True, capture_output=True)
    kills = 0
    for stop in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        before = stored_bytes(table)
        process = subprocess.Popen([*COMMAND, *arguments(model, photos, "--out", table)], stderr=subprocess.PIPE)
        while process.poll() is None and stored_bytes(table) <= before + 20_000:
            time.sleep(0.002)
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
        kills += process.returncode not in (0, 1, 2)
        assert stop != signal.SIGTERM or process.returncode == 143 or process.returncode == 0, said
    assert kills >= 2, "the pictures were too few: it had ended before it was killed"
    done = subprocess.run([*COMMAND, *arguments(model, photos, "--out", table)], capture_output=True, check=True)
    assert comparable(answers(table)) == comparable(answers(undisturbed)), done.stderr
    assert not (table / "partial").exists()


def stored_bytes(table: Path) -> int:
    return sum(path.stat().st_size for path in table.glob("*/part*")) if table.exists() else 0


def comparable(stored: dict[str, Any]) -> dict[str, Any]:
    """Return answers without the last digits of their scores, which depend on what else was in the batch."""
    return {
        path: {**row, "score": None, "scores": {name: round(value, 4) for name, value in row["scores"]}}
        for path, row in stored.items()
    }


@pytest.mark.usefixtures("nsfw_model_path")
def test_a_picture_that_kills_the_worker_is_isolated(tmp_path: Path, plimsoll: Run) -> None:
    environment = crashing_runtime.install(tmp_path / "site")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(9):
        level = crashing_runtime.KILLS if number == 4 else 10 + number
        (photos / f"{number}.png").write_bytes(crashing_runtime.picture(level))
    table = tmp_path / "table"
    done = plimsoll("scan", "open_nsfw", photos, "--out", table, "--target", "fragile:cpu:float32", env=environment)
    assert done.returncode == 0, done.stderr
    stored = answers(table)
    assert len(stored) == 9
    failed = {path: row for path, row in stored.items() if row["error"] is not None}
    assert list(failed) == [str(photos / "4.png")]
    assert failed[str(photos / "4.png")]["error_kind"] == "Crash"
    assert "SIGSEGV" in failed[str(photos / "4.png")]["error"]


def test_since_scans_only_what_is_new_and_errors_are_tried_again(
    tmp_path: Path, model: Path, run_here: RunHere
) -> None:
    photos = pictures(tmp_path / "photos", 3)
    broken = tmp_path / "photos" / "broken.png"
    broken.write_bytes(b"")
    old = time.time() - 1_000
    for path in (*photos, broken):
        os.utime(path, (old, old))
    first, second = tmp_path / "first", tmp_path / "second"
    command = arguments(model, tmp_path / "photos", "--out", first)
    assert run_here(*command).returncode == 0

    [new] = pictures(tmp_path / "photos", 1, first=9)
    photos[0].write_bytes(picture(50))
    os.utime(photos[0], (time.time() + 10, time.time() + 10))
    done = run_here(*arguments(model, tmp_path / "photos", "--out", second, "--since", first))
    assert done.returncode == 0, done.stderr
    assert set(answers(second)) == {str(new), str(photos[0])}

    broken.write_bytes(picture(60))
    assert run_here(*command).returncode == 0
    assert answers(first)[str(broken)]["error"] is not None, "only on demand"
    before = answers(first)
    assert run_here(*command, "--retry-errors").returncode == 0
    after = answers(first)
    assert after[str(broken)]["error"] is None
    assert {**after, str(broken): None} == {**before, str(broken): None}


def test_a_table_of_another_scan_is_refused(tmp_path: Path, model: Path, run_here: RunHere) -> None:
    pictures(tmp_path / "photos", 2)
    table = tmp_path / "table"
    command = arguments(model, tmp_path / "photos", "--out", table)
    assert run_here(*command).returncode == 0
    before = answers(table)
    for changed, word in (
        ([*command, "--threshold", "0.9"], b"another version"),
        (arguments(model, tmp_path, "--out", table), b"other sources"),
        (arguments(model, tmp_path / "photos", "--out", tmp_path / "photos"), b"not empty"),
    ):
        refused = run_here(*changed)
        assert refused.returncode == 2
        assert word in refused.stderr
    import filelock

    with filelock.FileLock(table / ".lock"):
        refused = run_here(*command)
    assert refused.returncode == 2
    assert b"another scan" in refused.stderr
    assert answers(table) == before
    assert run_here(*command, "--threshold", "0.9", "--force").returncode == 0


def test_a_full_disk_is_said_and_the_next_run_goes_on(tmp_path: Path, model: Path) -> None:
    photos = tmp_path / "photos"
    pictures(photos, 300)
    table = tmp_path / "table"
    command = [*COMMAND, *arguments(model, photos, "--out", table)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))

    full = subprocess.run(command, capture_output=True, preexec_fn=limit, check=False)
    assert full.returncode == 2, full.stderr
    assert b"can't write" in full.stderr
    assert b"Traceback" not in full.stderr
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(answers(table)) == 300
