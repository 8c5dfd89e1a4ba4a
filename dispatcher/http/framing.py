"""MessagePack objects out of chunks as they arrive (https://github.com/msgpack/msgpack/blob/master/spec.md).

A table step over each element finds where an object ends; `msgspec` then decodes it. That needs no second MessagePack
library, costs about 80 ns an element, and can step over an object too large to keep.
"""

from typing import Final


class FramingError(Exception):
    """The bytes are no MessagePack: where the next object begins is unknown."""


def _tables() -> tuple[bytes, bytes, bytes]:
    """For a first byte: bytes in all when fixed, elements that follow inside, and the width of a length field."""
    step, inside, width = bytearray(256), bytearray(256), bytearray(256)
    for b in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):
        step[b] = 1
    for n in range(16):
        step[0x80 + n], inside[0x80 + n] = 1, 2 * n  # map
        step[0x90 + n], inside[0x90 + n] = 1, n  # array
    for n in range(32):
        step[0xA0 + n] = 1 + n  # str
    sizes = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    for b, size_bytes in {**sizes, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}.items():
        step[b] = size_bytes
    widths = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
    for b, size_bytes in {**widths, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.items():
        width[b] = size_bytes
    return bytes(step), bytes(inside), bytes(width)


_STEP, _INSIDE, _WIDTH = _tables()
_EXT: Final = frozenset((0xC7, 0xC8, 0xC9))  # one byte of type between length and data
_ARRAYS: Final = frozenset((0xDC, 0xDD))
_MAPS: Final = frozenset((0xDE, 0xDF))


class Framer:
    """Cuts a stream into whole objects."""

    __slots__ = ("_at", "_buffer", "_max_bytes", "_need", "_skipped")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = b""
        self._at = 0  # the walk stands here, inside the first object of the buffer; may lie beyond the buffer's end
        self._need = 1  # elements until that object is whole
        self._skipped = False  # that object is too large: what was walked over is forgotten

    @property
    def inside(self) -> bool:
        """Whether an object has begun and not ended."""
        return bool(self._buffer) or self._skipped

    def feed(self, data: bytes) -> tuple[list[bytes | None], FramingError | None]:
        """The objects these bytes complete, None for one that is too large, and what ended the stream, if anything."""
        buffer = self._buffer + data if self._buffer else data
        found: list[bytes | None] = []
        start, failure = 0, None
        try:
            while self._walk(buffer):
                found.append(None if self._skipped or self._at - start > self._max_bytes else buffer[start : self._at])
                start, self._need, self._skipped = self._at, 1, False
        except FramingError as error:
            failure = error
        self._skipped = self._skipped or len(buffer) - start > self._max_bytes
        kept_from = min(self._at, len(buffer)) if self._skipped else start
        self._buffer = buffer[kept_from:]
        self._at -= kept_from
        return found, failure

    def _walk(self, buffer: bytes) -> bool:
        """Walk to the end of the object; False when more bytes are needed."""
        at, need, size_bytes = self._at, self._need, len(buffer)
        step, inside = _STEP, _INSIDE
        while need and at < size_bytes:
            first = buffer[at]
            length_bytes = step[first]
            if length_bytes:
                at += length_bytes
                need += inside[first] - 1
                continue
            beyond = _long(buffer, at, first)
            if beyond is None:
                break
            at += beyond[0]
            need += beyond[1] - 1
        self._at, self._need = at, need
        return not need and at <= size_bytes


def _long(buffer: bytes, at: int, first: int) -> tuple[int, int] | None:
    """`(bytes, elements inside)` of an element with a length field; None when the field is not all there."""
    width = _WIDTH[first]
    if not width:
        raise FramingError(f"byte 0x{first:02x} begins no MessagePack object")
    field = buffer[at + 1 : at + 1 + width]
    if len(field) < width:
        return None
    n = int.from_bytes(field, "big")
    if first in _ARRAYS:
        return 1 + width, n
    if first in _MAPS:
        return 1 + width, 2 * n
    return 1 + width + n + (first in _EXT), 0
