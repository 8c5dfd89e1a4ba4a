"""What a provider's delivery reports name (`Receipt.find`) -> our message id, for as long as reports may come.

One hash for each provider and half day, which the server drops whole: a key of its own for each message would cost a
third more memory and several times the writing.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import telling

WIDTH_MS: Final = 43_200_000
MOST_WORDS: Final = 10_000  # in one command, so that others get in between


class Finds:
    """The map. Kept are `keep_ms` and up to half a day more."""

    def __init__(self, redis: Redis, keep_ms: int) -> None:
        self._redis = redis
        self._keep_ms = keep_ms

    async def put(self, finds: Mapping[str, Mapping[str, str]], now_ms: int) -> None:
        """provider -> key -> message. Raises Away."""
        number = now_ms // WIDTH_MS
        left_ms = (number + 1) * WIDTH_MS - now_ms + self._keep_ms
        pipe = self._redis.pipeline(transaction=False)
        for provider, by_key in finds.items():
            name = keys.finds(provider, number)
            words = [word for pair in by_key.items() for word in pair]
            for at in range(0, len(words), MOST_WORDS):
                pipe.hset(name, items=words[at : at + MOST_WORDS])
            pipe.pexpire(name, left_ms)
        with telling():
            await pipe.execute()

    async def get(self, provider: str, wanted: Collection[str], now_ms: int) -> dict[str, str]:
        """The messages of those keys that are known, the newest where a key was used again. Raises Away."""
        asked = list(wanted)
        if not asked:
            return {}
        oldest, newest = (now_ms - self._keep_ms) // WIDTH_MS, now_ms // WIDTH_MS
        pipe = self._redis.pipeline(transaction=False)
        for number in range(max(oldest, 0), newest + 2):  # clocks differ: a shard may be half a day ahead for a moment
            pipe.hmget(keys.finds(provider, number), asked)
        with telling():
            rows: Any = await pipe.execute()
        return {
            key: message.decode()
            for row in rows
            for key, message in zip(asked, row, strict=True)
            if message is not None
        }
