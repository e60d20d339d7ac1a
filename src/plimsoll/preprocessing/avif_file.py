"""AVIF files by their structure: how large the coded pictures are, whatever the file says beside them.

libavif decodes an AV1 picture whole and shrinks it to the size that the container states. So the sizes in the AV1
sequence headers (AV1 specification, 5.5.1) are compared with those of the container before anything is decoded.
Boxes: ISO/IEC 14496-12 and 23008-12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plimsoll.errors import ImageError

Size = tuple[int, int]

_MOST_BOXES, _MOST_OBUS, _MOST_FRAMES, _MOST_TRACKS, _MOST_DEPTH = 100_000, 100_000, 64, 16, 4
_MOST_STRUCTURE = 4_000_000
"""No box that says where something lies is larger, in bytes."""
_SEQUENCE_HEADER, _FRAME_HEADERS = 1, frozenset({3, 6})
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SELECT = 2
"""SELECT_SCREEN_CONTENT_TOOLS and SELECT_INTEGER_MV: each frame says it."""

_DAMAGED = "can't be decoded: it begins like an AVIF picture, but what follows is damaged"


class _Bits:
    """Numbers of any width from the start of some bytes, the highest bit first."""

    def __init__(self, data: memoryview) -> None:
        data = data[:512]
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("cut short")
        return self._value >> self._left & (1 << count) - 1

    def take_uvlc(self) -> int:
        zeros = 0
        while not self.take():
            zeros += 1
        return self.take(zeros) + (1 << zeros) - 1 if zeros < 32 else (1 << 32) - 1


@dataclass(frozen=True)
class _Sequence:
    """What a sequence header says of its frames."""

    size: Size
    largest: Size
    """What a frame that states its own size can state."""
    reduced: bool
    time_bits: int
    id_bits: int
    screen_content: int
    integer_motion: int


def check(data: bytes, max_pixels: float) -> Size | None:
    """Return the (width, height) that an AVIF states, if it holds a still picture.

    Raises ImageError where what is coded has another size, or more than `max_pixels`, or the structure can't be read.
    """
    try:
        return _check(memoryview(data), max_pixels)
    except (ValueError, IndexError, KeyError) as error:
        raise ImageError(_DAMAGED) from error


def _check(data: memoryview, max_pixels: float) -> Size | None:
    boxes = _boxes(data)
    budget = [_MOST_OBUS]
    if "moov" in boxes:
        tracks = _all(boxes["moov"][0], "trak")
        if len(tracks) > _MOST_TRACKS:
            raise ValueError("too many tracks")
        for track in tracks:
            _check_track(data, track, max_pixels, budget)
    meta = _boxes(boxes["meta"][0][4:]) if "meta" in boxes else {}
    return _check_items(data, meta, max_pixels, budget) if "pitm" in meta else None


def _check_items(data: memoryview, meta: dict[str, list[memoryview]], max_pixels: float, budget: list[int]) -> Size:
    """Check the main picture, its tiles and their transparency; not thumbnails, which nobody decodes."""
    if any(len(meta[kind][0]) > _MOST_STRUCTURE for kind in ("iloc", "iinf", "iprp", "iref") if kind in meta):
        raise ValueError("too many items")
    fields = meta["pitm"][0]
    primary = _number(fields[4:], 0, 4 if fields[0] else 2)
    places, sizes, references = _locations(data, meta), _stated_sizes(meta), _references(meta)
    items = {primary}
    for _ in range(_MOST_DEPTH):
        items |= {source for source, kind, target in references if kind == "auxl" and target in items}
        items |= {target for source, kind, target in references if kind == "dimg" and source in items}
    whole = sizes[primary]
    for item in sorted(items):
        coded = _largest(places[item], max_pixels, budget, _MOST_FRAMES) if item in places else None
        if coded is None:
            continue
        stated = sizes.get(item, whole)
        if coded != stated:
            raise _disagreement(coded, stated)
        if coded[0] * coded[1] > whole[0] * whole[1] and coded[0] * coded[1] > max_pixels:
            raise _too_large(coded)
    return whole


def _check_track(data: memoryview, track: memoryview, max_pixels: float, budget: list[int]) -> None:
    """Check an animation's frames: none may be larger than the track."""
    header = _only(track, "tkhd")
    stated = (_number(header, len(header) - 8, 2), _number(header, len(header) - 4, 2))
    table = _boxes(_only(_only(_only(track, "mdia"), "minf"), "stbl"))
    if any(len(bodies[0]) > _MOST_STRUCTURE for bodies in table.values()):
        raise ValueError("too many samples")
    if b"av01" not in bytes(table["stsd"][0]):  # sound, for example
        return
    coded = _largest(_samples(data, table), max_pixels, budget, _MOST_OBUS)
    if coded is not None and (coded[0] > stated[0] or coded[1] > stated[1]):
        raise _disagreement(coded, stated)


def _largest(parts: Iterator[memoryview] | list[memoryview], max_pixels: float, budget: list[int], most_frames: int
) -> Size | None:  # fmt: skip
    """Return the (width, height) of what is coded in an item or a track; None where no AV1 is in it."""
    size: Size | None = None
    sequence: _Sequence | None = None
    frames = 0
    for part in parts:
        for kind, body in _obus(part):
            budget[0] -= 1
            if budget[0] < 0:
                raise ImageError(f"an AVIF of more than {_MOST_OBUS:,} parts", "Store it with fewer frames.")
            if kind == _SEQUENCE_HEADER:
                sequence = _sequence(_Bits(body))
                size = (
                    sequence.size if size is None else (max(size[0], sequence.size[0]), max(size[1], sequence.size[1]))
                )
            elif kind in _FRAME_HEADERS and sequence is not None:
                frames += 1
                if frames > most_frames:
                    raise ImageError(f"an AVIF whose picture takes more than {most_frames} coded frames")
                width, height = sequence.largest
                if width * height > max_pixels and _states_its_size(_Bits(body), sequence):
                    raise ImageError("an AVIF whose frames change their size", "Store it as JPEG, PNG or WebP.")
    return size


def _obus(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the kind and the payload of each open bitstream unit (AV1, 5.3)."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        length = len(data) - at
        if head & 2:
            length, shift = 0, 0
            while True:
                byte = data[at]
                at += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
                if shift > 49:
                    raise ValueError("a length of more than 8 bytes")
        if length < 0 or length > len(data) - at:
            raise ValueError("a part reaches over the end")
        yield head >> 3 & 15, data[at : at + length]
        at += length


def _sequence(bits: _Bits) -> _Sequence:
    take = bits.take
    take(4)  # profile, still picture
    reduced = bool(take())
    time_bits = 0
    if reduced:
        take(5)
    else:
        time_bits = _skip_timing(bits)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    size, largest = (take(width_bits) + 1, take(height_bits) + 1), (1 << width_bits, 1 << height_bits)
    id_bits = take(4) + take(3) + 3 if not reduced and take() else 0
    take(3)
    screen_content = integer_motion = _SELECT
    if not reduced:
        take(4)
        if take():  # order hints
            take(2)
        if not take():
            screen_content = take()
        if screen_content and not take():
            integer_motion = take()
    return _Sequence(size, largest, reduced, time_bits, id_bits, screen_content, integer_motion)


def _skip_timing(bits: _Bits) -> int:
    """Go over a sequence's timing and operating points; return how many bits of time each shown frame has."""
    take = bits.take
    delay_bits, time_bits, equal_interval, model = 0, 0, 0, 0
    if take():
        take(64)
        if equal_interval := take():
            bits.take_uvlc()
        if model := take():
            delay_bits = take(5) + 1
            take(32 + 5)
            time_bits = take(5) + 1
    initial_delay = take()
    for _ in range(take(5) + 1):
        take(12)
        if take(5) > 7:
            take()
        if model and take():
            take(2 * delay_bits + 1)
        if initial_delay and take():
            take(4)
    return 0 if equal_interval else time_bits


def _states_its_size(bits: _Bits, sequence: _Sequence) -> bool:
    """Tell whether a frame has another size than its sequence (AV1, 5.9.2: frame_size_override_flag)."""
    take = bits.take
    if sequence.reduced or take():  # the latter shows a frame that was decoded before
        return False
    kind, shown = take(2), take()
    take(sequence.time_bits if shown else 1)
    if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and shown):
        take()
    take()
    screen_content = take() if sequence.screen_content == _SELECT else sequence.screen_content
    if screen_content and sequence.integer_motion == _SELECT:
        take()
    take(sequence.id_bits)
    return kind == _SWITCH_FRAME or bool(take())


def _locations(data: memoryview, meta: dict[str, list[memoryview]]) -> dict[int, list[memoryview]]:
    """Return each item's bytes, from `iloc`."""
    body = meta["iloc"][0]
    version, at = body[0], 6
    widths = (body[4] >> 4, body[4] & 15, body[5] >> 4, body[5] & 15 if version else 0)
    offset_bytes, length_bytes, base_bytes, index_bytes = widths
    wide = 4 if version == 2 else 2
    count, at = _number(body, at, wide), at + wide
    places: dict[int, list[memoryview]] = {}
    to_join = len(data)
    for _ in range(count):
        item, at = _number(body, at, wide), at + wide
        source = data
        if version:
            method, at = _number(body, at, 2) & 15, at + 2
            source = meta["idat"][0] if method == 1 else data
        at += 2
        base, at = _number(body, at, base_bytes), at + base_bytes
        extents, at = _number(body, at, 2), at + 2
        parts = []
        for _ in range(extents):
            at += index_bytes
            start, at = base + _number(body, at, offset_bytes), at + offset_bytes
            length, at = _number(body, at, length_bytes), at + length_bytes
            parts.append(source[start : start + length] if length else source[start:])
        if len(parts) > 1:
            to_join -= sum(map(len, parts))
            if to_join < 0:
                raise ValueError("extents overlap")
            parts = [memoryview(b"".join(parts))]
        places[item] = parts
    kinds = _item_kinds(meta)
    return {item: parts for item, parts in places.items() if kinds.get(item) == "av01"}


def _item_kinds(meta: dict[str, list[memoryview]]) -> dict[int, str]:
    body = meta["iinf"][0]
    kinds = {}
    for entry in _all(body[8:] if body[0] else body[6:], "infe"):
        wide = 4 if entry[0] == 3 else 2
        kinds[_number(entry, 4, wide)] = str(entry[6 + wide : 10 + wide], "latin-1")
    return kinds


def _stated_sizes(meta: dict[str, list[memoryview]]) -> dict[int, Size]:
    """Return what each item's first `ispe` property states."""
    properties = meta["iprp"][0]
    container = list(_walk(_only(properties, "ipco")))
    sizes: dict[int, Size] = {}
    for body in _all(properties, "ipma"):
        wide, step, at = 4 if body[0] else 2, 2 if body[3] & 1 else 1, 8
        for _ in range(_number(body, 4, 4)):
            item, at = _number(body, at, wide), at + wide
            count, at = body[at], at + 1
            for _ in range(count):
                index, at = _number(body, at, step) & (0x7FFF if step == 2 else 0x7F), at + step
                kind, content = container[index - 1] if index else ("", body[:0])
                if kind == "ispe":
                    sizes.setdefault(item, (_number(content, 4, 4), _number(content, 8, 4)))
    return sizes


def _references(meta: dict[str, list[memoryview]]) -> list[tuple[int, str, int]]:
    """Return (from, kind, to) of each reference between items."""
    if "iref" not in meta:
        return []
    body = meta["iref"][0]
    wide = 4 if body[0] else 2
    return [
        (_number(entry, 0, wide), kind, _number(entry, at, wide))
        for kind, entry in _walk(body[4:])
        for at in range(wide + 2, wide + 2 + wide * _number(entry, wide, 2), wide)
    ]


def _samples(data: memoryview, table: dict[str, list[memoryview]]) -> Iterator[memoryview]:
    """Yield the samples of a track, chunk by chunk."""
    if "co64" in table:
        offsets, wide = table["co64"][0], 8
    else:
        offsets, wide = table["stco"][0], 4
    groups, sizes = table["stsc"][0], table["stsz"][0]
    same, left = _number(sizes, 4, 4), _number(sizes, 8, 4)
    number, group, groups_count = 0, 0, _number(groups, 4, 4)
    for chunk in range(_number(offsets, 4, 4)):
        while group + 1 < groups_count and _number(groups, 8 + 12 * (group + 1), 4) <= chunk + 1:
            group += 1
        at = _number(offsets, 8 + wide * chunk, wide)
        for _ in range(_number(groups, 8 + 12 * group + 4, 4)):
            if number >= left:
                return
            length = same or _number(sizes, 12 + 4 * number, 4)
            if at + length > len(data):
                raise ValueError("a sample reaches over the end")
            yield data[at : at + length]
            at, number = at + length, number + 1


def _walk(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    at = 0
    for _ in range(_MOST_BOXES):
        if at + 8 > len(data):
            return
        size, head = _number(data, at, 4), 8
        if size == 1:
            size, head = _number(data, at + 8, 8), 16
        end = len(data) if size == 0 else at + size
        if end > len(data) or end < at + head:
            raise ValueError("a box reaches over the end")
        yield str(data[at + 4 : at + 8], "latin-1"), data[at + head : end]
        at = end
    raise ValueError("too many boxes")


def _boxes(data: memoryview) -> dict[str, list[memoryview]]:
    boxes: dict[str, list[memoryview]] = {}
    for kind, body in _walk(data):
        boxes.setdefault(kind, []).append(body)
    return boxes


def _all(data: memoryview, kind: str) -> list[memoryview]:
    return _boxes(data).get(kind, [])


def _only(data: memoryview, kind: str) -> memoryview:
    return _boxes(data)[kind][0]


def _number(data: memoryview, at: int, width: int) -> int:
    if at < 0 or at + width > len(data):
        raise ValueError("cut short")
    return int.from_bytes(data[at : at + width])


def _disagreement(coded: Size, stated: Size) -> ImageError:
    return ImageError(
        f"the file states {stated[0]}x{stated[1]}, but its AV1 picture is coded as {coded[0]}x{coded[1]}",
        "Store it again: a viewer would have to rescale it.",
    )


def _too_large(coded: Size) -> ImageError:
    return ImageError(f"a part of the AVIF has {coded[0] * coded[1] / 1e6:,.1f} megapixels ({coded[0]}x{coded[1]})")
