"""What a provider says later: whether a message was delivered, and what a user texted back."""

from typing import Final, Literal

from msgspec import Struct

ReportStatus = Literal["sent", "delivered", "undelivered"]
#: A report of a lower rank never replaces one of a higher; of two final ones the first wins.
RANKS: Final[dict[str, int]] = {"sent": 0, "delivered": 1, "undelivered": 1}


class Report(Struct, frozen=True, array_like=True, gc=False):
    """The provider's later word on one message. `id` is our message id, where the vendor carries it; else `find` is the
    key that the message's receipt named (`Receipt.find`). `dead`: the address itself will never work.

    `at_ms`: epoch milliseconds, as the provider tells them, 0 when it does not. `price` is of the whole message.
    """

    provider: str
    status: ReportStatus
    id: str | None = None
    find: str | None = None
    to: str | None = None
    code: str | None = None
    at_ms: int = 0
    segments: int | None = None
    price: float | None = None
    dead: bool = False


class Uplink(Struct, frozen=True, array_like=True, gc=False):
    """What a user texted to one of our numbers. `key` tells repeated deliveries of it apart from others."""

    provider: str
    channel: str
    sender: str
    text: str
    to: str = ""
    at_ms: int = 0
    key: str = ""
