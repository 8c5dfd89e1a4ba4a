"""Lines out of chunks as they arrive, holding back never more than one line that is not too long."""

from collections.abc import AsyncIterator, Iterator
from typing import Final, NamedTuple

from aiohttp import StreamReader

BOM: Final = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """Whole lines, and whether a line too long for anyone follows them (it is skipped as it arrives)."""

    lines: bytes
    oversize: bool = False


class LineSplitter:
    """Cuts a stream into pieces of whole lines."""

    __slots__ = ("_at_start", "_max_bytes", "_skipping", "_tail")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tail = bytearray()
        self._skipping = False
        self._at_start = True

    def feed(self, data: bytes) -> Piece:
        """The lines that these bytes complete."""
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return Piece(b"")
            self._skipping = False
            data = data[end + 1 :]
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._tail += data
            return Piece(b"", self._give_up())
        lines = data if cut == len(data) else data[:cut]
        if self._tail:
            lines = bytes(self._tail) + lines
            self._tail = bytearray()
        if cut < len(data):
            self._tail += memoryview(data)[cut:]
        return Piece(self._without_bom(lines), self._give_up())

    def finish(self) -> bytes:
        """The last line, when nothing ended it."""
        tail, self._tail = bytes(self._tail), bytearray()
        return self._without_bom(tail)

    def _give_up(self) -> bool:
        if len(self._tail) <= self._max_bytes + 1:  # one more for the CR of a CRLF
            return False
        self._tail = bytearray()
        self._skipping = True
        self._at_start = False
        return True

    def _without_bom(self, lines: bytes) -> bytes:
        if self._at_start and lines:
            self._at_start = False
            return lines.removeprefix(BOM)
        return lines


def each_line(lines: bytes) -> Iterator[bytes]:
    """The lines that are not blank, without their ends."""
    for line in lines.split(b"\n"):
        text = line.strip(b" \t\r")
        if text:
            yield text


def may_hold_longer(lines: bytes, max_bytes: int) -> bool:
    """False when surely no line is longer: one that is would cover a whole window of half that size."""
    if len(lines) <= max_bytes:
        return False
    window = max_bytes // 2
    return any(lines.find(b"\n", at, at + window) < 0 for at in range(0, len(lines) - window, window))


async def pieces(content: StreamReader, max_bytes: int) -> AsyncIterator[Piece]:
    """The pieces of a whole body."""
    splitter = LineSplitter(max_bytes)
    async for data in content.iter_any():
        piece = splitter.feed(data)
        if piece.lines or piece.oversize:
            yield piece
    last = splitter.finish()
    if last:
        yield Piece(last)
