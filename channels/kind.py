"""A provider kind: what `Provider.kind` names, and all that the rest of the program knows about it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from channels.adapter import Adapter
from channels.courier import Courier
from channels.options import Options
from dispatcher.report import Report, Uplink


class Callbacks(Protocol):
    """What a vendor posts to us. Pure."""

    def reports(self, provider: str, call: "Callback", options: Options) -> "Heard":
        """Delivery reports."""
        ...

    def uplinks(self, provider: str, call: "Callback", options: Options) -> "Heard":
        """Messages of users. A vendor that posts both to one address gives both here and in `reports`. An uplink with
        an empty channel came by the provider's."""
        ...


class Callback(Struct, frozen=True):
    """One HTTP request of a vendor. Header names are in lower case; `url` is the address it was sent to, as the vendor
    knows it (some sign it)."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    now_s: float
    fetched: Mapping[str, bytes] = {}  # pages that `Missing` asked for, by URL


class Heard(Struct, frozen=True):
    """What a vendor's request said, and what it is to be answered once that is kept. `visit`: the vendor wants this URL
    of its own to be got first, which confirms that the callback address is ours."""

    items: Sequence[Report | Uplink] = ()
    body: bytes = b""
    content_type: str = "application/json"
    status: int = 200
    visit: str | None = None


class Missing(Exception):
    """The request cannot be judged without the page at `url`, the vendor's certificate say: ask again with it among
    `Callback.fetched`. Only URLs on the vendor's own hosts are asked for, and what they hold never changes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class NotTrue(Exception):
    """The request is not the vendor's: its signature is wrong, or missing."""


class Kind(Struct, frozen=True):
    """`build` makes the adapter from the provider's id and its opened options, `open` the courier of a kind that needs
    one, with the provider's `concurrency`; both raise OptionsError. One of the two is there.

    `most`: messages a request carries at most. `callbacks`: None when the vendor posts nothing.
    """

    options: type[Options]
    channels: tuple[str, ...]
    build: Callable[[str, Options], Adapter] | None = None
    open: Callable[[str, Options, int], Courier] | None = None
    most: int = 1
    callbacks: Callbacks | None = None
