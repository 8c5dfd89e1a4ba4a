"""How actors reach each other: one `bytes` in, one `bytes` out. Ray's side of it is in `actors.root`."""

from typing import Protocol


class PeerGone(Exception):
    """The peer died or cannot be reached. The call may or may not have been carried out."""


class Call(Protocol):
    """One method of one peer. Raises PeerGone."""

    async def __call__(self, batch: bytes, /) -> bytes: ...


class RouterPeer(Protocol):
    """A router as a shard or gateway sees it."""

    route: Call
    recall: Call
    await_catalog: Call
    health: Call


class ShardPeer(Protocol):
    """A shard as a gateway sees it."""

    submit: Call
    users: Call
    await_catalog: Call
    status: Call
