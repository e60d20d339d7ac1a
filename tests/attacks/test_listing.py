"""Folders and lists of every kind of bad path: each is a row with its error or is left out by name, in an order that
stays, and nothing blocks, follows a loop or ends the run."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.slow_predictor import pictures, slow
from plimsoll.errors import ImageError, InputError
from plimsoll.inference import path_list
from plimsoll.inference.images import find_images, list_images
from plimsoll.inference.walk import LeftOut, UnreadablePath
from plimsoll.preprocessing.decode import read

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="these kinds of files are POSIX's"),
    pytest.mark.timeout(60),  # a pipe that is opened waits for ever
]

NOBODY = 65534


def listed(*paths: str | Path) -> list[str]:
    return list(find_images(map(str, paths), left_out=LeftOut()))


def reasons(*paths: str | Path) -> dict[str, str]:
    return {str(path): path.reason for path in listed(*paths) if isinstance(path, UnreadablePath)}


def names(folder: Path, paths: list[str]) -> list[str]:
    return [os.path.relpath(path, folder) for path in paths]


@contextmanager
def without_privileges() -> Iterator[Path]:
    """Yield a folder of somebody who is not root, as whom the block runs: root may read everything."""
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-listing-"))
    before = os.geteuid()
    try:
        if before == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        os.seteuid(before)
        shutil.rmtree(folder, ignore_errors=True)


def special(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # The path of a socket may have 107 bytes.
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    else:
        path.symlink_to("/dev/zero")


KINDS = ("pipe", "socket", "device")


@pytest.mark.parametrize("kind", KINDS)
def test_pipes_sockets_and_devices_in_a_folder_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    special(kind, tmp_path / "b.jpg", monkeypatch)
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / "*.jpg", tmp_path / "**"):
        left_out = LeftOut()
        assert names(tmp_path, list(find_images([str(path)], left_out=left_out))) == ["a.jpg", "c.jpg"]
        assert left_out.counts == {kind: 1}
        assert str(left_out).startswith(f"1 {kind} (")


@pytest.mark.parametrize("kind", KINDS)
def test_pipes_sockets_and_devices_that_are_named_are_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    special(kind, tmp_path / "b.jpg", monkeypatch)
    assert listed(tmp_path / "b.jpg") == [str(tmp_path / "b.jpg")]
    with pytest.raises(ImageError, match=f"not a regular file but a {kind}"):
        read(tmp_path / "b.jpg")


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a path and its opening, another file may take its place."""
    (tmp_path / "regular").touch()
    os.mkfifo(tmp_path / "pipe")
    look = (tmp_path / "regular").stat()
    monkeypatch.setattr(os, "stat", lambda _: look)
    with pytest.raises(ImageError, match="not a regular file but a pipe"):
        read(tmp_path / "pipe")


def test_loops_of_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.jpg").touch()
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "here").symlink_to(".")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "linked.jpg").symlink_to("a/b/x.jpg")
    (tmp_path / "nowhere.jpg").symlink_to("missing")
    left_out = LeftOut()
    walked = names(tmp_path, list(find_images([str(tmp_path)], left_out=left_out)))
    assert walked == ["linked.jpg", "nowhere.jpg", "self.jpg", "a/b/x.jpg"]
    assert left_out.counts == {"link to a folder": 2}
    assert names(tmp_path, listed(tmp_path / "**" / "*.jpg")) == walked
    assert names(tmp_path, listed(tmp_path / "a" / "*" / "*.jpg")) == ["a/b/x.jpg"]
    assert names(tmp_path, listed(tmp_path / "a" / "b" / "*" / "*.jpg")) == [
        "a/b/up/linked.jpg",
        "a/b/up/nowhere.jpg",
        "a/b/up/self.jpg",
    ], "a link that a part of the pattern names is followed, once"
    with pytest.raises(ImageError, match="levels of symbolic links"):
        read(tmp_path / "self.jpg")


def test_folders_and_files_without_permission_are_rows_and_the_others_are_answered() -> None:
    with without_privileges() as folder:
        for name in ("a", "closed", "z"):
            (folder / name).mkdir()
            (folder / name / "x.jpg").touch()
        (folder / "unreadable.jpg").touch(mode=0)
        (folder / "closed").chmod(0)
        walked = listed(folder)
        matched = reasons(folder / "*" / "*.jpg"), reasons(folder / "**" / "x.jpg")
        with pytest.raises(ImageError, match="Permission denied"):
            read(folder / "unreadable.jpg")
        with pytest.raises(ImageError, match="Permission denied"):
            read(folder / "closed" / "x.jpg")
        left = list_images([str(folder)])
        (folder / "closed").chmod(0o700)
    assert names(folder, walked) == ["unreadable.jpg", "a/x.jpg", "closed", "z/x.jpg"]
    assert isinstance(walked[2], UnreadablePath)
    assert walked[2].reason == "can't list the folder: Permission denied"
    assert matched == ({str(folder / "closed"): walked[2].reason},) * 2
    assert names(folder, left) == ["unreadable.jpg", "a/x.jpg", "z/x.jpg"]


def test_a_folder_that_vanishes_meanwhile_is_a_row(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").touch()
    walk = find_images([str(tmp_path)], left_out=LeftOut())
    first = next(walk)
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "c" / "x.jpg").unlink()
    gone = next(walk)
    assert names(tmp_path, [first, gone, *walk]) == ["a/x.jpg", "b"]
    assert isinstance(gone, UnreadablePath)
    assert gone.reason == "can't list the folder: No such file or directory"


def test_paths_too_long_for_the_system_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 300 + ".jpg")
    assert listed(long) == [str(long)]
    with pytest.raises(ImageError, match="name too long"):
        read(long)
    monkeypatch.chdir(tmp_path)
    for _ in range(30):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    os.chdir(tmp_path)
    (tmp_path / "z.jpg").touch()
    *_, last = listed(tmp_path)
    assert isinstance(last, UnreadablePath)
    assert last.reason == "can't list the folder: File name too long"
    shutil.rmtree(tmp_path / ("d" * 200))


def test_a_folder_deeper_than_python_may_call_itself_is_walked(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1500):
        deep /= "d"
        deep.mkdir()
    (deep / "x.jpg").touch()
    assert listed(tmp_path) == listed(tmp_path / "**" / "*.jpg") == [str(deep / "x.jpg")]
    (deep / "x.jpg").unlink()
    while deep != tmp_path:  # what clears away folders calls itself, too
        deep.rmdir()
        deep = deep.parent


ODD_NAMES = (
    b"caf\xe9.jpg",
    b"\xff\xfe.jpg",
    b"a\nb.jpg",
    b"tab\t.jpg",
    b"\x1b[2J.jpg",
    "😀.jpg".encode(),
    b" .jpg",
    b"-.jpg",
)


def test_odd_names_are_walked_listed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.fsencode(tmp_path)
    try:
        for name in ODD_NAMES:
            Path(os.fsdecode(folder + b"/" + name)).write_bytes(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    walked = listed(tmp_path)
    assert sorted(map(os.fsencode, walked)) == sorted(folder + b"/" + name for name in ODD_NAMES)
    assert walked == sorted(walked) == listed(tmp_path / "*.jpg")
    assert [read(Path(path)) for path in walked] == [
        Path(path).name.encode("utf-8", "surrogateescape") for path in walked
    ]
    everything = b"\0".join(map(os.fsencode, walked))
    assert from_list(everything, monkeypatch, null=True) == walked


@pytest.mark.parametrize("path", ["", "nul\0.jpg", "missing.jpg", "missing/", "missing/*.jpg", "*.jpg", "[", "**"])
def test_paths_that_lead_nowhere_are_rows_beside_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for name in ("good", "empty"):
        (tmp_path / name).mkdir()
    (good,) = pictures(tmp_path / "good", 1)
    monkeypatch.chdir(tmp_path / "empty")
    with slow(tmp_path) as predictor:
        first, bad, last = predictor.predict_many(find_images([good, path, good]))
    assert first.answer is not None
    assert last.answer is not None
    assert (bad.path, bad.answer) == (path, None)
    assert bad.error
    if path:
        assert list_images([good, path]) == [good]
        with pytest.raises(InputError):
            list_images([path, path])
        with pytest.raises(InputError):
            list_images([good, path], all_needed=True)


def test_the_order_stays_whatever_the_file_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "a/x/1.png", "a/0.gif", "z.jpg", "A.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = ["A.jpg", "z.jpg", "a/0.gif", "a/x/1.png", "b/10.jpg", "b/2.jpg"]
    assert names(tmp_path, listed(tmp_path)) == expected
    scandir = os.scandir

    @contextmanager
    def backwards(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backwards)
    assert names(tmp_path, listed(tmp_path)) == expected
    assert names(tmp_path, listed(tmp_path / "**" / "*")) == expected
    assert names(tmp_path, listed(tmp_path / "[a-z]" / "*")) == ["a/0.gif", "b/10.jpg", "b/2.jpg"]


def test_patterns_match_what_those_of_the_standard_library_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.png", ".hidden.jpg", "d/a.jpg", "d/e/[x].jpg", "d/.h/c.jpg", ".g/a.jpg", "f/e/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for pattern in (
        *("*", "*.jpg", "?.jpg", "[ab].*", ".*", ".*/*", "./*.jpg", "*/*.jpg", "*/", "**", "**/*", "**/*.jpg"),
        *("**/e/*", "*/e/a.jpg", "**/a.jpg", "**/**/a.jpg", "d/**", "d/**/*.jpg", "**/[[]x[]].jpg", "d/.h/*", "x/*"),
        str(tmp_path / "*.jpg"),
        str(tmp_path) + "//d/*",
    ):
        expected = [path for path in glob.glob(pattern, recursive=True) if Path(path).is_file()]  # noqa: PTH207
        actual = [os.path.normpath(path) for path in listed(pattern) if not isinstance(path, UnreadablePath)]
        assert len(actual) == len(set(actual)), pattern
        assert set(actual) == set(map(os.path.normpath, expected)), pattern


def from_list(data: bytes, monkeypatch: pytest.MonkeyPatch, *, null: bool = False, step: int = 1 << 16) -> list[str]:
    """Return what a list on standard input means, sent in pieces of `step` bytes."""
    reader, writer = os.pipe()
    real: Callable[[int, int], bytes] = os.read

    def send() -> None:
        for start in range(0, len(data), step):
            os.write(writer, data[start : start + step])
        os.close(writer)

    with monkeypatch.context() as patch:
        patch.setattr(
            os, "read", lambda descriptor, size: real(reader if descriptor == 0 else descriptor, min(size, step))
        )
        thread = threading.Thread(target=send)
        thread.start()
        lines = list(find_images(["-"], null=null, left_out=LeftOut()))
        thread.join()
    os.close(reader)
    return lines


@pytest.mark.parametrize("step", [1, 3, 1 << 16])
def test_lists_in_every_way_of_writing_them(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    expected = ["a b.jpg", "ä.jpg", "😀.jpg", "- x.jpg"]
    for separator in ("\n", "\r\n", "\n\n", "\n \n"):
        for end in ("", separator):
            text = separator.join(expected) + end
            for encoding in ("utf-8", "utf-8-sig", "utf-16"):
                assert from_list(text.encode(encoding), monkeypatch, step=step) == expected, (separator, encoding)
            big_endian = b"\xfe\xff" + text.encode("utf-16-be")
            assert from_list(big_endian, monkeypatch, step=step) == expected
    assert from_list(b"a\nb\r\0c\n\0\0", monkeypatch, null=True, step=step) == ["a\nb\r", "c\n"]
    assert from_list(b"\xef\xbb\xbfa\0b", monkeypatch, null=True, step=step) == ["a", "b"]
    for nothing in (b"", b"\n", b"\xef\xbb\xbf", b"\xff\xfe"):
        assert from_list(nothing, monkeypatch, step=step) == []
    assert from_list(b"\xef", monkeypatch, step=step) == [os.fsdecode(b"\xef")]


@pytest.mark.parametrize("size", [path_list._MAX_LINE + 1, 3 * path_list._MAX_LINE, 1_000_000])
def test_a_line_without_end_is_a_row_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    first, long, last = from_list(b"a.jpg\n" + b"x" * size + b"\nb.jpg", monkeypatch, step=50_000)
    assert (first, last) == ("a.jpg", "b.jpg")
    assert long == "x" * 60 + "…"
    assert isinstance(long, UnreadablePath)
    assert "65,536 bytes" in long.reason


def test_a_list_separated_by_nul_without_the_option_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = from_list(b"a.jpg\0b.jpg\0", monkeypatch)
    assert row == "a.jpg"
    assert isinstance(row, UnreadablePath)
    assert "--null" in row.reason


def test_what_looks_like_a_picture_is_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.HEIC", "b.heic", "c.cr2", "d.mp4", "e.txt", "f.jpg", "sub/g.avif", "h.exr", "README", "archive"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "archive").write_bytes(b"PK\3\4")
    (tmp_path / "hash").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "movie").write_bytes(b"\0\0\0\x18ftypmp42")
    with caplog.at_level("WARNING", logger="plimsoll"):
        assert names(tmp_path, list(find_images([str(tmp_path)]))) == ["f.jpg"]
    for words in (
        *("left out: 1 AVIF picture (", "2 HEIC pictures (", "/a.HEIC), ", "1 camera raw picture (", "1 video ("),
        "1 OpenEXR picture (",
        *("1 JPEG picture without an ending (", "/hash)", "1 video without an ending (", "pip install 'plimsoll-line["),
    ):
        assert words in caplog.text
    assert not any(word in caplog.text for word in ("README", "archive", "e.txt"))
    enabled = list(find_images([str(tmp_path)], ["jpeg", "heif", "avif"], left_out=(left_out := LeftOut())))
    assert names(tmp_path, enabled) == ["a.HEIC", "b.heic", "f.jpg", "sub/g.avif"]
    assert sorted(left_out.counts) == [
        "JPEG picture without an ending",
        "OpenEXR picture",
        "camera raw picture",
        "video",
        "video without an ending",
    ]
    (tmp_path / "f.jpg").unlink()
    with pytest.raises(InputError, match="left out: 1 AVIF picture"):
        list_images([str(tmp_path)])
