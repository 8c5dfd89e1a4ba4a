"""What the HTTP application needs of the world. Every port may raise `Unavailable`; nothing else is an answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from dispatcher.answers import Answers, Want
from dispatcher.deadletter import LetterFilter, LetterPage, ReplayOrder, ReplayReport
from dispatcher.store.blacklist import StoredEntry
from dispatcher.store.catalog import Versioned
from dispatcher.trigger import Order


class Unavailable(Exception):
    """What was asked for cannot be had now; `reason` is a word, such as `store_unavailable`."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Intake(Protocol):
    """The way to the shards."""

    shards: int

    def shard_of(self, identity: str) -> int:
        """The shard, in `range(shards)`, that owns this user."""
        ...

    def refused(self, n: int) -> None:
        """So many triggers were rejected at the door, before any shard; they are to be counted."""
        ...

    async def submit(self, shard: int, orders: list[Order], want: Want) -> Answers:
        """One status for each order, in order, once everything they did is durable."""
        ...


class Catalog(Protocol):
    """The catalog's documents, which have been checked. A list kind's document has the id `all`."""

    async def get(self, kind: str, id_: str) -> Versioned | None:
        """One document."""
        ...

    async def list(self, kind: str) -> dict[str, Versioned]:
        """All documents of a kind."""
        ...

    async def ids(self, kind: str) -> set[str]:
        """The ids of a kind's documents."""
        ...

    async def put(self, kind: str, id_: str, doc: bytes, who: str, if_match: int | None) -> int:
        """Store a document; answers its version once everyone who decides by its kind decides by it.
        Raises `VersionMismatch` when `if_match` is not its version (0: it must not exist)."""
        ...

    async def delete(self, kind: str, id_: str, who: str, if_match: int | None) -> int:
        """Delete a document; answers the version of that (0: there was none) once everyone has.
        Raises `VersionMismatch`."""
        ...

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        """A document's versions, newest first; `doc` is empty where it was deleted."""
        ...


class Users(Protocol):
    """The users' profiles as JSON. Writes answer once every later decision sees them."""

    async def get(self, user: str) -> bytes | None:
        """The profile."""
        ...

    async def put(self, user: str, doc: bytes) -> None:
        """Store or replace a profile."""
        ...

    async def patch(self, user: str, patch: bytes) -> bytes | None:
        """Apply a JSON merge patch (RFC 7396); the merged profile, None when there is none.
        Raises `msgspec.ValidationError`."""
        ...

    async def delete(self, user: str) -> bool:
        """Forget a profile; whether there was one."""
        ...

    async def put_many(self, users: list[tuple[str, bytes]]) -> None:
        """Store or replace many; the last of equal users wins."""
        ...


class Blacklist(Protocol):
    """Blacklist entries as JSON, by id. Writes answer once every shard decides by them."""

    async def put_many(self, entries: list[StoredEntry], who: str) -> None:
        """Store or replace entries by their ids."""
        ...

    async def find(self, user: str | None, address: str | None) -> list[tuple[str, bytes]]:
        """The entries for this user, or for this address; one of them is given."""
        ...

    async def get(self, id_: str) -> bytes | None:
        """One entry."""
        ...

    async def delete(self, id_: str, who: str) -> bool:
        """Delete an entry; whether there was one."""
        ...


class DeadLetters(Protocol):
    """Messages that ended without being sent."""

    async def page(self, wanted: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        """Those below the cursor, newest first; fewer than `limit` where few of many are wanted."""
        ...

    async def replay(self, order: ReplayOrder) -> ReplayReport:
        """Send some again; answers once that is durable. The same again sends nothing twice."""
        ...


class VendorCall(Struct, frozen=True):
    """One request of a vendor at a callback address. Header names are in lower case; `url` is the whole address it was
    sent to, as the vendor knows it."""

    what: Literal["reports", "uplinks"]
    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class VendorAnswer(Struct, frozen=True):
    """What the vendor is answered, in its own words."""

    status: int
    content_type: str
    body: bytes


class Untrue(Exception):
    """A call that knows the secret address but is not signed as the vendor signs."""


class Vendor(Protocol):
    """A vendor that was let in."""

    async def heard(self, call: VendorCall) -> VendorAnswer:
        """Answers once what it said is durable. Raises Untrue; Unavailable when it has to say it again later."""
        ...


class Vendors(Protocol):
    """Those who call back."""

    async def find(self, provider: str, secret: str, address: str | None) -> Vendor | None:
        """The provider's vendor, when the secret is its own and the caller's address is allowed."""
        ...


class Operations(Protocol):
    """How the system is."""

    def ready(self) -> list[str]:
        """Why requests should not come here now (`starting`, `draining`, `store_unavailable`, ...); empty is ready.
        Asked for every request, so it must be cheap."""
        ...

    async def topology(self) -> dict[str, Any]:
        """Nodes, actors, partitions."""
        ...

    def metrics(self) -> bytes:
        """This process's metrics in the Prometheus text format."""
        ...

    async def targets(self) -> list[dict[str, Any]]:
        """A Prometheus `http_sd` list of every process's metrics address."""
        ...

    async def provider_health(self, id_: str) -> dict[str, Any] | None:
        """The live health of a provider, None when nothing is known of it."""
        ...


class Ports(Struct, frozen=True):
    """Everything the application talks to."""

    intake: Intake
    catalog: Catalog
    users: Users
    blacklist: Blacklist
    operations: Operations
    letters: DeadLetters
    vendors: Vendors
