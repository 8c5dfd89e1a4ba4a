"""What an adapter is: our messages to a provider's request, its reply to our receipts. Pure, no I/O, no clock."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt


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


class Unsendable(Exception):
    """Raised by `request`: the vendor would not take these messages, so none is written. `args[0]` is the code."""

    def __init__(self, answer: Answer, code: str) -> None:
        super().__init__(code)
        self.answer = answer


class Adapter(Protocol):
    """One provider's protocol. At most the provider's `max_batch` messages go into one request."""

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        """The request that carries these messages; the same messages give the same idempotency key. May raise
        Unsendable."""
        ...

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        """One receipt for each message, in order. Never raises, whatever the reply holds."""
        ...


@runtime_checkable
class Splits(Protocol):
    """An adapter whose requests cannot carry just any messages together."""

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        """The places of the messages of each request, in order; together all places, each once."""
        ...


class Token(Struct, frozen=True):
    """An access token, good until `expires_s` (epoch seconds)."""

    value: str
    expires_s: float

    def __repr__(self) -> str:
        return f"Token(until {self.expires_s:.0f})"


class NoToken(Exception):
    """The vendor gives no access token. `answer` is what that means for messages, `args[0]` says why, with no secret
    in it."""

    def __init__(self, answer: Answer, why: str) -> None:
        super().__init__(why)
        self.answer = answer


@runtime_checkable
class Tokened(Protocol):
    """An adapter whose requests carry an access token that is fetched. All senders of a provider share one."""

    def token_request(self, now_s: float) -> Request:
        """Asks the vendor for one."""
        ...

    def token_of(self, reply: Reply, now_s: float) -> Token:
        """The token in the vendor's reply. Raises NoToken."""
        ...

    def use(self, token: str) -> None:
        """Put this one into the requests made from now on."""
        ...

    def is_stale(self, reply: Reply) -> bool:
        """Whether the vendor says that the token is not good any more: nothing was sent, and the request may be
        repeated with another."""
        ...
