"""What an adapter is: our messages to a provider's request, its reply to our receipts. Pure, no I/O, no clock."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from dispatcher.message import Message
from dispatcher.receipt import Receipt


class Request(Struct, frozen=True, gc=False):
    """One HTTP request, ready to write; `url` is percent-encoded and goes out as it is (it may be signed)."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Addresses and headers may carry credentials, so only the method and sizes are shown."""
        return f"Request({self.method}, {len(self.headers)} headers, {len(self.body)} bytes)"


class Reply(Struct, frozen=True, gc=False):
    """One whole HTTP reply; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotWritten(Exception):
    """The request surely never left: connecting failed, no connection was free in time. `args[0]` says why."""


class Written(Exception):
    """No whole reply came, and the request may have been read by the provider. `args[0]` says why."""


class Adapter(Protocol):
    """One provider's protocol. At most the provider's `max_batch` messages go into one request."""

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        """The request that carries these messages; the same messages give the same idempotency key."""
        ...

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        """One receipt for each message, in order. Never raises, whatever the reply holds."""
        ...
