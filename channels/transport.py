"""The way to a provider: one request, one whole reply, or how far it came."""

import math
from typing import Final, Protocol

from msgspec import Struct

from channels.adapter import NotWritten, Reply, Request, Written

__all__ = ["LONGEST_REPLY_BYTES", "PHASES", "NotWritten", "Phases", "Transport", "Watch", "Written"]

LONGEST_REPLY_BYTES: Final = 4 * 1024 * 1024


class Phases(Struct, frozen=True):
    """How long a part of an exchange may last, seconds, within the `timeout_s` of the whole.

    `connect_s`: from the look-up of the name to the end of the TLS handshake; 3 s outlast the first two repetitions of
    a SYN (RFC 6298, section 2: 1 s, then doubled). `write_s`: until the kernel has taken the whole request.
    `first_byte_s`: from the writing to the first byte of the reply.
    """

    connect_s: float = 3.0
    write_s: float = 5.0
    first_byte_s: float = math.inf


PHASES: Final = Phases()


class Watch(Protocol):
    """Who must know when a request is written."""

    def begin(self) -> None:
        """The first byte is about to be written. Raises NotWritten to forbid it."""
        ...

    def written(self) -> None:
        """The kernel has all of it. Not told when the request ended before that was known."""
        ...


class Transport(Protocol):
    """Sends requests of one provider."""

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        """The whole reply, whatever its status. Raises NotWritten or Written; `timeout_s` spans everything, the wait
        for a free connection included."""
        ...

    async def close(self) -> None: ...
