"""Clips are read upright, with their times, in whole, and within limits; what is damaged says so after what could be
read."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import HEIGHT, WIDTH, number_of, numbered, numbered_clip, require_av, write
from plimsoll.errors import BackendMissingError, ImageError, InputError
from plimsoll.inference.video.answers import ClipReader
from plimsoll.inference.video.clip import Clip, Limits, upright
from plimsoll.inference.video.sampling import Sampling, SceneCuts
from plimsoll.inference.video.source import is_clip, is_live
from plimsoll.inference.walk import UnreadablePath

av = require_av()
RATE = 25


def read(path: Path | bytes, sampling: str = "all", **settings: Any) -> tuple[list[int], list[float], str]:
    """Return what each frame says its number is, its time, and the error at the end."""
    numbers, times, error = [], [], ""
    try:
        with Clip(path, sampling, **settings) as clip:
            for frame in clip:
                numbers.append(number_of(frame.pixels.samples))
                times.append(frame.time)
    except ImageError as raised:
        error = raised.message
    return numbers, times, error


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames, 4 seconds, a key frame every 20."""
    path = tmp_path_factory.mktemp("clips") / "numbered.mp4"
    return numbered_clip(path, 100, options={"g": "20", "sc_threshold": "0", "x264-params": "open-gop=0"})


def test_every_frame_of_a_file_comes_with_its_time(clip: Path) -> None:
    numbers, times, error = read(clip)
    assert (numbers, error) == ([*range(100)], "")
    assert times == pytest.approx([index / RATE for index in range(100)], abs=1e-6)
    assert read(clip.read_bytes())[0] == numbers, "the same from bytes"


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("every=7", [*range(0, 100, 7)]),
        ("seconds=1", [0, 25, 50, 75]),
        ("seconds=0.5s", [0, 13, 25, 38, 50, 63, 75, 88]),
        ("keyframes", [0, 20, 40, 60, 80]),
    ],
)
def test_sampling(clip: Path, sampling: str, expected: list[int]) -> None:
    numbers, times, error = read(clip, sampling)
    assert (numbers, error) == (expected, "")
    assert times == pytest.approx([number / RATE for number in expected], abs=1e-6)


def test_times_are_the_clip_s_own(tmp_path: Path) -> None:
    """A phone's clip has no constant rate, and a stream need not begin at 0."""
    at = [0.5, 0.52, 0.9, 1.0, 2.0, 2.01, 3.5]
    path = numbered_clip(tmp_path / "uneven.mkv", len(at), times=lambda index: at[index])
    numbers, times, _ = read(path)
    assert numbers == [*range(len(at))]
    assert np.diff(times) == pytest.approx(np.diff(at), abs=2e-3)
    assert times[0] == pytest.approx(0, abs=1e-3)
    assert read(path, "seconds=1")[0] == [0, 4, 6]


TURNS: list[tuple[int, bool, bool]] = [(turn, flip, False) for turn in (0, 90, 180, 270) for flip in (False, True)]


@pytest.mark.parametrize(("degrees", "hflip", "vflip"), TURNS)
def test_frames_are_upright(tmp_path: Path, degrees: int, hflip: bool, vflip: bool) -> None:
    """The pixels are stored as a camera that lies on its side or faces its owner has them."""
    shown = [numbered(index) for index in range(3)]

    def stored(frame: Any) -> Any:
        frame = frame[:, ::-1] if hflip else frame
        return np.ascontiguousarray(np.rot90(frame, -degrees // 90))

    path = write(
        tmp_path / "turned.mp4",
        map(stored, shown),
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip),
    )
    with Clip(path) as turned:
        frames = [frame.pixels.samples for frame in turned]
    assert [frame.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 3
    assert [number_of(frame) for frame in frames] == [0, 1, 2]


def test_frames_are_freed_at_once(clip: Path) -> None:
    """PyAV's side data and its frame hold each other: read in every frame, pixels pile up until a collection."""
    gc.collect()
    gc.disable()
    try:
        with Clip(clip) as opened:
            assert sum(1 for _ in opened) == 100
        held = [each for each in gc.get_objects() if type(each).__name__ in ("SideDataContainer", "VideoFrame")]
    finally:
        gc.enable()
    assert len(held) <= 4


def test_an_angle_between_goes_to_the_nearer_quarter() -> None:
    frame = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert np.array_equal(upright(frame, (60_000, -9_000, 9_000, 60_000)), frame)
    assert np.array_equal(upright(frame, (9_000, -60_000, 60_000, 9_000)), np.rot90(frame))


def test_both_orders_of_channels(clip: Path) -> None:
    with Clip(clip) as rgb, Clip(clip, colour="BGR") as bgr:
        first, second = next(iter(rgb)).pixels, next(iter(bgr)).pixels
    assert (first.colour, second.colour) == ("RGB", "BGR")
    assert np.array_equal(first.samples, second.samples[:, :, ::-1])


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_clip_that_was_cut_says_so_after_its_frames(tmp_path: Path, name: str) -> None:
    whole = numbered_clip(
        tmp_path / name,
        200,
        options={"g": "10", "crf": "10"},
        container={"movflags": "faststart"} if name.endswith("mp4") else {},
    )
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    numbers, _, error = read(whole)
    assert numbers == [*range(len(numbers))]
    assert 60 < len(numbers) < 140
    assert "the clip ends early" in error


def test_damage_costs_its_frames_alone(tmp_path: Path) -> None:
    """The packets of one key frame and those after it are overwritten; the rest is read."""
    path = numbered_clip(tmp_path / "whole.mp4", 100, options={"g": "10", "bf": "0", "sc_threshold": "0"})
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in places[30:33]:
        data[position : position + size] = b"\xff" * size
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    numbers, times, error = read(damaged)
    assert set(range(30)) | set(range(40, 100)) <= set(numbers)
    assert times[-1] == pytest.approx(99 / RATE, abs=1e-6)
    assert "the clip is damaged: 3 parts" in error


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"no clip" * 100, "no clip that can be read"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n", "no clip that can be read"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "no clip that can be read"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path: Path, clip: Path, content: bytes, expected: str) -> None:
    """A playlist would make it read other files."""
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    path = tmp_path / "hostile.mp4"
    path.write_bytes(content)
    assert expected in read(path)[2]
    if content:
        assert "no clip that can be read" in read(content)[2]


@pytest.mark.parametrize(
    ("limits", "count", "expected"),
    [
        (Limits(frames=30), 30, "longer than"),
        (Limits(seconds=3), 0, "it lasts 4 s"),
        (Limits(megapixels=0.05), 0, "frames of 320 x 192"),
    ],
)
def test_limits(clip: Path, limits: Limits, count: int, expected: str) -> None:
    numbers, _, error = read(clip, limits=limits)
    assert numbers == [*range(count)]
    assert expected in error


def test_sound_alone_and_rare_codecs_are_refused(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as output:
        stream = output.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4_096), np.float32), "fltp", "mono")
        frame.rate = 44_100
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert "sound alone" in read(sound)[2]
    with av.open(str(tmp_path / "nothing.mp4"), "w") as output:
        output.add_stream("libx264", rate=25)
        output.start_encoding()
    assert "no pictures" in read(tmp_path / "nothing.mp4")[2]
    rare = write(tmp_path / "rare.avi", [numbered(index) for index in range(3)], codec="snow", options={"strict": "-2"})
    assert "coded in snow" in read(rare)[2]


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


def test_a_clip_over_http(tmp_path: Path) -> None:
    """A file at an address is read as a file is; nothing is dropped, and a playlist there reaches no file here."""
    numbered_clip(tmp_path / "clip.mp4", 30, container={"movflags": "faststart"})
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfile://{tmp_path}/clip.mp4\n#EXT-X-ENDLIST\n"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            assert read_address(f"{root}/clip.mp4") == ([*range(30)], "")
            numbers, error = read_address(f"{root}/list.m3u8")
            assert numbers == []
            assert error
            assert "can't open the stream" in read_address(f"{root}/missing.mp4")[1]
        finally:
            server.shutdown()


class _Stalling(BaseHTTPRequestHandler):
    """Sends half of a clip, and then nothing more."""

    data = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.data)
        self.wfile.flush()
        threading.Event().wait(20)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


def test_a_stream_that_stalls_ends_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plimsoll.inference.video.source.LIVE_TIMEOUT_S", 1.0)
    data = numbered_clip(tmp_path / "clip.ts", 100).read_bytes()
    monkeypatch.setattr(_Stalling, "data", data[: len(data) // 2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stalling)
    server.daemon_threads, server.block_on_close = True, False
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _, error = read_address(f"http://127.0.0.1:{server.server_address[1]}/clip.ts")
        server.shutdown()
    assert error.endswith("nothing came for 1 s")


def read_address(address: str) -> tuple[list[int], str]:
    numbers: list[int] = []
    try:
        with Clip(address) as clip:
            numbers += [number_of(frame.pixels.samples) for frame in clip]
    except ImageError as error:
        return numbers, error.message
    return numbers, ""


def test_without_pyav_it_is_said_what_to_install(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendMissingError) as caught:
        Clip(clip)
    assert "plimsoll-line[video]" in caught.value.hint
    picture, unread = ClipReader().items(["a.jpg", str(clip)])
    assert picture == "a.jpg"
    assert isinstance(unread, UnreadablePath)
    assert "pip install 'plimsoll-line[video]'" in unread.reason


def live_clip(path: Path, monkeypatch: pytest.MonkeyPatch) -> Clip:
    """Return a file's clip that is read as a live source is."""
    opened = Clip(path)
    monkeypatch.setattr(opened, "live", True)
    return opened


def test_a_live_source_drops_frames_and_a_file_does_not(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live_clip(clip, monkeypatch) as live:
        numbers = []
        for frame in live:
            numbers.append(frame.number)
            time.sleep(0.05)
            dropped = live.dropped
    assert numbers == sorted(set(numbers))
    assert len(numbers) + dropped == 100
    assert dropped > 0
    with Clip(clip) as file:
        slow = []
        for frame in file:
            slow.append(frame.number)
            time.sleep(0.002)
    assert slow == [*range(100)]


def test_leaving_a_live_source_ends_its_thread(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live_clip(clip, monkeypatch) as live:
        next(iter(live))
    assert not [thread for thread in threading.enumerate() if thread.name == "plimsoll-live"]


def noise(seed: int) -> Callable[[int], Any]:
    level = np.random.default_rng(seed).integers(0, 255, (9, 16, 3)).repeat(22, 0).repeat(20, 1).astype(np.uint8)
    return lambda index: np.roll(level, 3 * index, axis=1)


def test_scenes_begin_where_the_picture_changes_at_once(tmp_path: Path) -> None:
    """Three scenes that pan quickly."""
    scenes = [noise(seed)(index) for seed in range(3) for index in range(30)]
    path = write(tmp_path / "scenes.mp4", [scene[:192] for scene in scenes])
    with Clip(path, "scenes") as clip:
        cuts = [frame.number for frame in clip]
    assert cuts == [0, 30, 60]


def test_a_still_clip_is_one_scene() -> None:
    cuts = SceneCuts()
    still = np.full((3, 36, 64), 90, np.int16)
    assert [cuts.cut(still + index % 2) for index in range(50)] == [True, *[False] * 49]


@pytest.mark.parametrize("text", ["every=0", "every=x", "seconds=-1", "seconds=nan", "often", "every", "all=2"])
def test_samplings_that_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        Sampling.parse(text)


def test_what_names_a_clip() -> None:
    clips = ["a.mp4", "b.MOV", "camera:0", "/dev/video1", "rtsp://host/x", "https://host/live.m3u8", "udp://0.0.0.0:1"]
    assert all(map(is_clip, clips))
    assert not any(map(is_clip, ["a.jpg", "mp4", "camera:x", "ftp://host/x.jpg", "-"]))
    assert [is_live(name) for name in ("a.mp4", "camera:0", "udp://0.0.0.0:1")] == [False, True, True]
