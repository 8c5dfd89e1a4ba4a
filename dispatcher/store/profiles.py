"""User profiles: one JSON value each, next to their partition's log."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import telling


class ProfileStore:
    """Profiles by (partition, user)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get_many(self, users: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """The stored JSON of each, None where there is none."""
        if not users:
            return []
        with telling():
            found: Any = await self._redis.mget([keys.user(p, id_) for p, id_ in users])
        return list(found)

    async def put_many(self, users: Sequence[tuple[int, str, bytes]]) -> None:
        """Store or replace."""
        if not users:
            return
        with telling():
            await self._redis.mset({keys.user(p, id_): data for p, id_, data in users})

    async def delete(self, users: Sequence[tuple[int, str]]) -> None:
        """Forget; an unknown user is no error."""
        if not users:
            return
        with telling():
            await self._redis.unlink(*[keys.user(p, id_) for p, id_ in users])
