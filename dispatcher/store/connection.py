"""Connecting to Redis or Valkey, and refusing one that cannot keep what it is told."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final, cast

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from dispatcher.store import keys
from dispatcher.store.errors import Away, StoreError

#: A client of the server, for those outside who only pass it on.
Connection = Redis

OLDEST: Final = (6, 2)
WAITAOF_SINCE: Final = (7, 2)
#: The form of users' records, messages and log entries. 1: records of 24 bytes, and kinds with a task.
LAYOUT: Final = 2
TIMEOUT_S: Final = 5.0


class Server(Struct, frozen=True):
    """What the server says of itself."""

    kind: str  # redis or valkey
    version: str
    waitaof: bool
    appendonly: bool
    appendfsync: str


def connect(url: str) -> Redis:
    """A client for redis://, rediss:// or unix:// URLs; nothing is sent yet. Raises StoreError for any other URL.

    It repeats nothing by itself: we do, knowing what may be repeated.
    """
    try:
        client: Redis = Redis.from_url(
            url, protocol=2, socket_connect_timeout=2.0, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise StoreError(f"redis.url: {error}") from error
    return client


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """What the Redis client raises becomes Away, so that nobody above the store needs to know the client."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise Away(f"the store does not answer: {error}") from error


async def describe(client: Redis) -> Server:
    """Ask the server for its version and persistence. Raises StoreError when it is too old or does not answer."""
    with telling():
        info: dict[str, Any] = await client.info()
    version = str(info.get("valkey_version") or info["redis_version"])
    number = tuple(int(part) for part in version.split(".")[:2])
    valkey = "valkey_version" in info
    with telling():
        try:
            settings = await client.config_get("appendfsync")
        except ResponseError:  # managed servers may forbid CONFIG; INFO still tells whether there is an AOF
            settings = {}
    appendonly = info.get("aof_enabled", 0) == 1
    appendfsync = str(settings.get("appendfsync", "everysec"))
    if number < OLDEST:
        raise StoreError(f"redis.url: the server is {version}; 6.2 or later is needed")
    waitaof = valkey or number >= WAITAOF_SINCE
    return Server("valkey" if valkey else "redis", version, waitaof, appendonly, appendfsync)


def check_durability(server: Server, durability: str) -> None:
    """Raises StoreError with what to mend when the server cannot give the durability asked for."""
    if not server.appendonly:
        raise StoreError(
            f"redis.url: {server.kind} {server.version} runs without an append-only file, so a restart would lose "
            "messages; set `appendonly yes` there"
        )
    if durability == "fsync" and server.appendfsync != "always" and not server.waitaof:
        raise StoreError(
            f"durability: fsync needs WAITAOF (Redis 7.2, Valkey) or a server with `appendfsync always`; this is "
            f"{server.kind} {server.version} with `appendfsync {server.appendfsync}`. Mend the server, or set "
            'durability = "everysec"'
        )


async def count_start(client: Redis, run: str, actor: str) -> int:
    """How many times this actor has started under this run, this time included."""
    with telling():
        return int(await client.hincrby(keys.starts(run), actor, 1))


async def ring_of(client: Redis, sender: str) -> bytes | None:
    """The number of the journal that the last sender of this name wrote; None when there was none."""
    with telling():
        return cast("bytes | None", await client.hget(keys.RINGS, sender))


async def note_ring(client: Redis, sender: str, ring: bytes) -> None:
    """From now on the sender of this name writes the journal of this number."""
    with telling():
        await client.hset(keys.RINGS, sender, ring)


async def fix_layout(client: Redis, partitions: int) -> None:
    """The number of partitions is fixed at the first start on a store, and so is the form in which users are kept.
    Raises StoreError when either is another now."""
    with telling():
        if await client.get(keys.PARTITIONS) is None:
            await client.set(keys.LAYOUT, LAYOUT)
            await client.set(keys.PARTITIONS, partitions, nx=True)
    await check_layout(client, partitions)


async def check_layout(client: Redis, partitions: int) -> None:
    """Raises StoreError when the store was made with another number of partitions, or keeps its users in another form.
    A store that nobody has started on is right for any; nothing is written."""
    with telling():
        if await client.get(keys.PARTITIONS) is None:
            return
        layout = int(await client.get(keys.LAYOUT) or 1)
        made = int(await client.get(keys.PARTITIONS) or partitions)
    if layout != LAYOUT:
        raise StoreError(
            f"this store keeps its users in form {layout}, which only another version of the dispatcher reads (this "
            f"one keeps them in form {LAYOUT}): start that version, or start on an empty store"
        )
    if made != partitions:
        raise StoreError(
            f"partitions: this store was made with {made}, which decides where every user lives; set partitions = "
            f"{made}, or start on an empty store"
        )
