"""The way to a provider: one request, one whole reply, or how far it came."""

from typing import Final, Protocol

from channels.adapter import NotWritten, Reply, Request, Written

__all__ = ["LONGEST_REPLY_BYTES", "NotWritten", "Transport", "Written"]

LONGEST_REPLY_BYTES: Final = 4 * 1024 * 1024


class Transport(Protocol):
    """Sends requests of one provider."""

    async def send(self, request: Request, timeout_s: float) -> Reply:
        """The whole reply, whatever its status. Raises NotWritten or Written; `timeout_s` spans everything."""
        ...

    async def close(self) -> None: ...
