"""How actors reach each other: one `bytes` in, one `bytes` out. Ray's side of it is in `actors.root`."""

from typing import Protocol


class PeerGone(Exception):
    """The peer died or cannot be reached. The call may or may not have been carried out."""


class PeerAbsent(PeerGone):
    """Nobody was there to be called. The call was surely not carried out."""


class Call(Protocol):
    """One method of one peer. Raises PeerGone, PeerAbsent."""

    async def __call__(self, batch: bytes, /) -> bytes: ...


class Reach(Protocol):
    """One method of the actor of that name."""

    def __call__(self, name: str, method: str, /) -> Call: ...


class RouterPeer:
    """A router as a shard or gateway sees it."""

    def __init__(self, reach: Reach, name: str) -> None:
        self.name = name
        self.route = reach(name, "route")
        self.late = reach(name, "late")
        self.recall = reach(name, "recall")
        self.candidates = reach(name, "candidates")
        self.await_catalog = reach(name, "await_catalog")
        self.health = reach(name, "health")
        self.reported = reach(name, "reported")
        self.describe = reach(name, "describe")


class SenderPeer:
    """A sender as a router, or another sender of its pool, sees it."""

    def __init__(self, reach: Reach, name: str) -> None:
        self.name = name
        self.send = reach(name, "send")
        self.recall = reach(name, "recall")
        self.lend = reach(name, "lend")
        self.token = reach(name, "token")
        self.await_catalog = reach(name, "await_catalog")
        self.describe = reach(name, "describe")


class ShardPeer:
    """A shard as a gateway sees it."""

    def __init__(self, reach: Reach, name: str) -> None:
        self.name = name
        self.submit = reach(name, "submit")
        self.users = reach(name, "users")
        self.listed = reach(name, "listed")
        self.replay = reach(name, "replay")
        self.reported = reach(name, "reported")
        self.await_catalog = reach(name, "await_catalog")
        self.status = reach(name, "status")
        self.describe = reach(name, "describe")
