"""Drawn frames arrive whole: in clips with their times, in folders, and at the other end of a stream."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import number_of, numbered, require_av
from plimsoll.errors import ImageError, InputError
from plimsoll.inference.video.clip import Clip
from plimsoll.inference.video.writer import ClipSink, require_free, sink

require_av()


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out.mov", "out.ts"])
def test_a_clip_has_every_frame_with_its_time(tmp_path: Path, name: str) -> None:
    times = [0.0, 0.04, 0.5, 0.54, 1.3]
    target = sink(str(tmp_path / name), 25)
    for index, at in enumerate(times):
        target.write("a.mp4", numbered(index)[:, :, ::-1][:, :, ::-1], at)
    target.close()
    with Clip(tmp_path / name) as clip:
        frames = [(number_of(frame.pixels.samples), frame.time) for frame in clip]
    assert [number for number, _ in frames] == [*range(5)]
    assert [at for _, at in frames] == pytest.approx(times, abs=0.002)


def test_clips_and_pictures_follow_one_another_in_one_size(tmp_path: Path) -> None:
    """The second clip begins where the first ends; what has another size or order of channels is fitted in."""
    target = sink(str(tmp_path / "out.mp4"), 10)
    for index in range(5):
        target.write("a.mp4", numbered(index), index / 10)
    for index in range(5):
        bgr = np.ascontiguousarray(numbered(index)[:, :, ::-1])
        target.write("b.mp4", bgr[:, :, ::-1], index / 10)
    target.write("odd.png", np.full((101, 51, 3), 255, np.uint8), None)
    target.close()
    with Clip(tmp_path / "out.mp4") as clip:
        frames = [*clip]
    assert [number_of(frame.pixels.samples) for frame in frames[:10]] == [0, 1, 2, 3, 4] * 2
    assert [frame.time for frame in frames] == pytest.approx([index / 10 for index in range(11)], abs=0.002)
    last = frames[10].pixels.samples
    assert last.shape == frames[0].pixels.samples.shape
    assert last[:, 0].max() < 30
    assert last[96, 160].min() > 225


def test_a_folder_and_one_picture(tmp_path: Path) -> None:
    folder = sink(str(tmp_path / "drawn"), 25)
    for name, at in (
        ("x/a.mp4", 0.0),
        ("x/a.mp4", 1.5),
        ("x/b.jpg", None),
        ("y/b.jpg", None),
        ("rtsp://h/../c?d", 2.0),
    ):
        folder.write(name, numbered(3), at)
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == ["a-000000.000.jpg", "a-000001.500.jpg", "b-1.jpg", "b.jpg", "c_d-000002.000.jpg"]
    picture = sink(str(tmp_path / "last.png"), 25)
    picture.write("a.mp4", numbered(3), 0.0)
    picture.write("a.mp4", numbered(4), 0.1)
    with Image.open(tmp_path / "last.png") as stored:
        assert number_of(np.asarray(stored.convert("RGB"))) == 4, "the last one"


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    for target in ("there.mp4", "full", "odd.gif", "missing/out.mp4"):
        with pytest.raises(InputError):
            require_free(str(tmp_path / target), replace=False)
    require_free(str(tmp_path / "there.mp4"), replace=True)
    with pytest.raises(InputError, match="can't be sent to https"):
        ClipSink("https://127.0.0.1/x", 25).write("a", numbered(0), 0.0)


def test_a_stream_over_udp_arrives_whole() -> None:
    """A receiver on loopback gets every frame, in order, with its times, while another thread sends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"udp://127.0.0.1:{port}"
    received: list[tuple[int, float]] = []
    count = 60

    def receive() -> None:
        try:
            with Clip(f"{address}?fifo_size=100000&buffer_size=8000000&timeout=4000000") as clip:
                clip.live = False  # every frame counts here
                for frame in clip:
                    received.append((number_of(frame.pixels.samples), frame.time))
        except ImageError:
            pass  # Nothing comes any more.

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    target = sink(f"{address}?pkt_size=1316", 25)
    # Whoever joins a stream waits for the next key frame, and looks at some seconds of it first.
    for index in range(count + 175):
        target.write("a", numbered(index), index / 25)
    target.close()
    receiver.join(60)
    numbers = [number for number, _ in received]
    assert len(numbers) > count
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
    assert numbers[-1] >= count + 170, "up to the end"
    assert np.diff([at for _, at in received]) == pytest.approx(0.04, abs=0.002)


_RECEIVER = """
import sys, av
sys.path.insert(0, sys.argv[2])
from helpers.clips import number_of
numbers = []
try:
    with av.open(sys.argv[1], options={"listen": "1"}, timeout=20) as source:
        for frame in source.decode(video=0):
            numbers.append(number_of(frame.to_ndarray(format="rgb24")))
except (av.error.FFmpegError, OSError):
    pass
print(numbers)
"""


def test_a_stream_over_rtmp_arrives_whole() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, tests = f"rtmp://127.0.0.1:{port}/live/host", str(Path(__file__).parents[3])
    command = [sys.executable, "-c", _RECEIVER, address, tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        for _ in range(300):
            target = sink(address, 25)
            try:
                target.write("a", numbered(0), 0.0)
                break
            except InputError:  # It doesn't listen yet.
                time.sleep(0.1)
        for index in range(1, 50):
            target.write("a", numbered(index), index / 25)
        target.close()
        assert receiver.communicate(timeout=60)[0] == f"{[*range(50)]}\n"


def test_an_address_that_this_ffmpeg_does_not_know_is_named() -> None:
    """PyAV's wheels have no SRT; where a PyAV has, nobody listens there."""
    with pytest.raises(InputError, match=r"srt://127\.0\.0\.1:9: "):
        sink("srt://127.0.0.1:9", 25).write("a", numbered(0), 0.0)
