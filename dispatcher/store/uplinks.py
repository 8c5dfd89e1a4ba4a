"""Uplinks as they came: a stream that keeps the last of them, whatever is made of each."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from dispatcher.report import Uplink
from dispatcher.store import keys
from dispatcher.store.connection import telling

KEPT: Final = 100_000
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Uplink)


class Uplinks:
    """About the last `KEPT` of them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def add(self, uplinks: Sequence[Uplink]) -> None:
        """Keep these; a vendor that repeats itself is kept again. Raises Away."""
        pipe = self._redis.pipeline(transaction=False)
        for uplink in uplinks:
            pipe.xadd(keys.UPLINKS, {b"u": _encoder.encode(uplink)}, maxlen=KEPT, approximate=True)
        with telling():
            await pipe.execute()

    async def last(self, count: int) -> list[Uplink]:
        """The last ones, newest first. Raises Away."""
        with telling():
            rows: Any = await self._redis.xrevrange(keys.UPLINKS, count=count)
        return [_decoder.decode(fields[b"u"]) for _, fields in rows]
