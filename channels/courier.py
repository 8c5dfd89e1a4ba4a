"""What a kind is whose vendor does not speak one request, one reply over HTTP/1.1: it keeps its own connections."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from channels.transport import Watch
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink

#: Takes what the vendor says on its own, on the courier's connection; returns once that is safe, so that the courier
#: may acknowledge it. Raises when it could not be kept: not to be acknowledged.
Inbox = Callable[[Sequence[Report | Uplink]], Awaitable[None]]


class Courier(Protocol):
    """One provider's connections. Many calls of `send` are in the air at once, as many as its `concurrency`."""

    async def send(self, messages: Sequence[Message], timeout_s: float, watch: Watch | None = None) -> list[Receipt]:
        """A receipt for each message, in order, whatever happens; raises NotWritten or Written where one answer holds
        for all of them. `watch` as in `channels.transport`. A cancelled call leaves nothing behind."""
        ...

    def listen(self, inbox: Inbox) -> None:
        """From now on hand over what the vendor says on its own; called once, before the first `send`."""
        ...

    async def close(self) -> None:
        """Ends everything; may be called again."""
        ...
