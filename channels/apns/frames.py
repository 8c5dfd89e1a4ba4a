"""HTTP/2 frames out of a stream of bytes, GOAWAY apart. Source: RFC 9113, 4.1 and 6.8.

h2 takes no frame after a GOAWAY, though a server answers what it has begun (RFC 9113, 6.8). So it is not shown any.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from channels.push import document, text_of

_HEAD_BYTES: Final = 9
_GOAWAY: Final = 7


class Goaway(Struct, frozen=True):
    """The server takes no stream after `last`. `reason`: the word Apple puts there."""

    last: int
    error: int
    reason: str


class NoFrame(Exception):
    """The bytes are no frame that may be sent to us."""


class Frames:
    """What is not whole yet is kept."""

    def __init__(self, largest_bytes: int) -> None:
        self._largest = largest_bytes
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes | Goaway]:
        """Whole frames as they came, several together. Raises NoFrame."""
        data = self._rest + data if self._rest else data
        begin = end = 0
        self._rest = b""
        while len(data) - end >= _HEAD_BYTES:
            size = int.from_bytes(data[end : end + 3])
            if size > self._largest:
                raise NoFrame
            after = end + _HEAD_BYTES + size
            if after > len(data):
                break
            if data[end + 3] == _GOAWAY:
                if end > begin:
                    yield data[begin:end]
                yield _goaway(data[end + _HEAD_BYTES : after])
                begin = after
            end = after
        self._rest = data[end:]
        if end > begin:
            yield data[begin:end]


def _goaway(body: bytes) -> Goaway:
    if len(body) < 8:
        raise NoFrame
    reason = text_of(document(body[8:]).get("reason"))
    return Goaway(int.from_bytes(body[:4]) & 0x7FFF_FFFF, int.from_bytes(body[4:8]), reason)
