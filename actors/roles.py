"""The actors' outer shells: build a role from its spec inside its own process, and wait until it stands."""

import asyncio
import os
import time
from collections.abc import Awaitable
from random import Random
from typing import Final

import msgspec

from actors.cast import router_name, senders_of
from actors.follower import Follower
from actors.ports import Reach, RouterPeer, SenderPeer
from actors.process import Process, spec_decoder
from actors.router import Router
from actors.sender import Sender
from actors.shard import Shard, ShardSettings
from config.schema import Config
from dispatcher.catalog import Catalog
from dispatcher.kinds import LANES
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.log import Log
from dispatcher.store.profiles import ProfileStore
from dispatcher.store.snapshots import Snapshots

FENCED_EXIT: Final = 3
_version_decoder: Final = msgspec.msgpack.Decoder(int)


def wall_ms() -> int:
    """The shard's clock: epoch milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def shard_settings(config: Config, number: int) -> ShardSettings:
    """The part of the configuration that one shard needs."""
    return ShardSettings(
        number=number,
        shards=config.shards,
        partitions=config.partitions,
        timezone=config.timezone,
        region=config.region,
        outbox_messages=config.outbox.max_messages,
        parked_messages=config.outbox.max_parked,
        windows=(config.window.urgent, config.window.normal, config.window.bulk),
        idempotency_s=config.idempotency.window_s,
        idempotency_triggers=config.idempotency.max_triggers,
        cache_users=config.profiles.cache_users,
        snapshot_entries=config.snapshot.entries,
        snapshot_s=config.snapshot.every_s,
        slice_users=config.snapshot.slice_users,
    )


class _Booting:
    """Runs a role's start in its actor's loop; calls that come before wait for it. A start that fails ends the
    process, so that it is tried again from nothing."""

    def __init__(self, start: Awaitable[None], name: str) -> None:
        self.done = False
        self._task = asyncio.ensure_future(self._run(start, name))

    async def _run(self, start: Awaitable[None], name: str) -> None:
        try:
            await start
            self.done = True
        except BaseException as error:
            import logging

            logging.getLogger(__name__).exception("%s could not start", name, exc_info=error)
            await asyncio.sleep(1.0)  # a store that is away makes no busy loop of restarts
            os._exit(1)

    async def finished(self) -> None:
        """Returns when the role stands."""
        if not self.done:
            await asyncio.shield(self._task)


class ShardRole:
    """A shard in its own process."""

    def __init__(self, spec: bytes, reach: Reach) -> None:
        self.process = Process(spec_decoder.decode(spec))
        config, redis = self.process.spec.config, self.process.redis
        catalog = Catalog()
        self.shard = Shard(
            shard_settings(config, self.process.spec.number),
            catalog,
            Follower(catalog, CatalogStore(redis)),
            Log(redis, config.durability, on_fenced=_leave_to_newer_owner),
            Snapshots(redis),
            ProfileStore(redis),
            [RouterPeer(reach, router_name(n)) for n in range(config.routers)],
            wall_ms,
            Random(),
            self.process.tally,
        )
        self._watch()
        self._booting = _Booting(self._start(), self.process.spec.name)

    def _watch(self) -> None:
        shard, tally = self.shard, self.process.tally
        tally.gauge(
            "dispatcher_outbox_messages",
            lambda: {(LANES[i],): float(n) for i, n in enumerate(shard.outbox.counts)},
        )
        tally.gauge("dispatcher_parked_messages", lambda: {(): float(shard.tenancy.parked)})
        tally.gauge("dispatcher_users", lambda: {(): float(shard.tenancy.users)})

    async def _start(self) -> None:
        await self.process.open()
        await self.shard.start()

    async def submit(self, batch: bytes) -> bytes:
        """See `Shard.submit`. A shard that is still recovering answers when it has."""
        await self._booting.finished()
        return await self.shard.submit(batch)

    async def users(self, batch: bytes) -> bytes:
        """See `Shard.users`."""
        await self._booting.finished()
        return await self.shard.users(batch)

    async def await_catalog(self, version: bytes) -> bytes:
        """See `Shard.await_catalog`."""
        await self._booting.finished()
        return await self.shard.await_catalog(version)

    async def status(self, _: bytes) -> bytes:
        """See `Shard.status`; answers while recovering, too."""
        return await self.shard.status(b"")

    async def describe(self, _: bytes) -> bytes:
        """This actor, for the topology."""
        return self.process.describe(**self.shard.topology())

    async def drain(self, _: bytes) -> bytes:
        """See `Shard.drain`."""
        await self._booting.finished()
        return await self.shard.drain(b"")


class RouterRole:
    """A router in its own process."""

    def __init__(self, spec: bytes, reach: Reach) -> None:
        self.process = Process(spec_decoder.decode(spec))
        catalog = Catalog()
        self._follower = Follower(catalog, CatalogStore(self.process.redis))
        self._peers: dict[str, SenderPeer] = {}
        self._reach = reach
        self.router = Router(catalog, self._senders, time.monotonic, Random(), self.process.tally)
        self._booting = _Booting(self._start(), self.process.spec.name)

    def _senders(self, provider: str) -> list[SenderPeer]:
        names = [n for n, (id_, _) in senders_of(self.router.catalog.providers).items() if id_ == provider]
        return [self._peers.get(n) or self._peers.setdefault(n, SenderPeer(self._reach, n)) for n in names]

    async def _start(self) -> None:
        await self.process.open()
        await self._follower.start()

    async def route(self, batch: bytes) -> bytes:
        """See `Router.route`."""
        await self._booting.finished()
        return await self.router.route(batch)

    async def recall(self, batch: bytes) -> bytes:
        """See `Router.recall`."""
        await self._booting.finished()
        return await self.router.recall(batch)

    async def await_catalog(self, version: bytes) -> bytes:
        """Returns once this router and the senders it knows of work by this catalog version or a later one."""
        await self._booting.finished()
        await self._follower.reached(_version_decoder.decode(version))
        return await self.router.await_senders(version)

    async def health(self, batch: bytes) -> bytes:
        """See `Router.health`."""
        await self._booting.finished()
        return await self.router.health(batch)

    async def describe(self, _: bytes) -> bytes:
        """This actor, for the topology."""
        return self.process.describe()


class SenderRole:
    """One member of a provider's pool in its own process."""

    def __init__(self, spec: bytes, reach: Reach) -> None:
        self.process = Process(spec_decoder.decode(spec))
        catalog = Catalog()
        self._follower = Follower(catalog, CatalogStore(self.process.redis))
        self.sender = Sender(self.process.spec.provider, catalog, time.time, dict(os.environ), self.process.tally)
        self._booting = _Booting(self._start(), self.process.spec.name)

    async def _start(self) -> None:
        await self.process.open()
        await self._follower.start()

    async def send(self, batch: bytes) -> bytes:
        """See `Sender.send`."""
        await self._booting.finished()
        return await self.sender.send(batch)

    async def recall(self, batch: bytes) -> bytes:
        """See `Sender.recall`."""
        await self._booting.finished()
        return await self.sender.recall(batch)

    async def await_catalog(self, version: bytes) -> bytes:
        """Returns once this sender works by this catalog version or a later one."""
        await self._booting.finished()
        await self._follower.reached(_version_decoder.decode(version))
        return b""

    async def describe(self, _: bytes) -> bytes:
        """This actor, for the topology."""
        return self.process.describe(provider=self.process.spec.provider)

    async def drain(self, _: bytes) -> bytes:
        """See `Sender.drain`."""
        await self._booting.finished()
        await self.sender.drain()
        return b""


def _leave_to_newer_owner(_: list[int]) -> None:
    """Another shard has opened these partitions: what this one still holds in memory is no longer the truth."""
    os._exit(FENCED_EXIT)
