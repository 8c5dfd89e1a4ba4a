"""The actors' outer shells: build a role from its spec inside its own process, and wait until it stands."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from typing import Final

from actors.cast import router_name, sender_name, senders_of, shard_name
from actors.follower import Follower
from actors.host import Host, spec_decoder, wall_ms
from actors.intake import ShardIntake
from actors.journal import Entry, Journal, boot_of, in_memory, open_journal, path_of
from actors.letters import letter_bounds
from actors.ports import PeerGone, Reach, RouterPeer, SenderPeer, ShardPeer
from actors.reports import ReportDesk, keep_ms_of
from actors.router import Router
from actors.sender import Sender
from actors.shard import Shard, ShardSettings
from actors.uplinks import uplink_desk
from channels import build
from config.schema import Config
from dispatcher.catalog import KINDS_OF, Catalog
from dispatcher.kinds import LANES
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.connection import note_ring, ring_of
from dispatcher.store.deadletters import DeadLetters
from dispatcher.store.finds import Finds
from dispatcher.store.log import Log
from dispatcher.store.profiles import ProfileStore
from dispatcher.store.snapshots import Snapshots

FENCED_EXIT: Final = 3
SENDER_START_S: Final = 10.0
JOURNAL_S: Final = 5.0  # so long a journal is waited for that its last process still holds
_NOBODY: Final[list[SenderPeer]] = []
_log = logging.getLogger(__name__)


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
            _log.exception("%s could not start", name, exc_info=error)
            await asyncio.sleep(1.0)  # a store that is away makes no busy loop of restarts
            os._exit(1)

    async def finished(self) -> None:
        """Returns when the role stands."""
        if not self.done:
            await asyncio.shield(self._task)


class ShardRole:
    """A shard in its own process."""

    def __init__(self, spec: bytes, reach: Reach) -> None:
        self.process = Host(spec_decoder.decode(spec))
        config, redis = self.process.spec.config, self.process.redis
        catalog = Catalog()
        self.shard = Shard(
            shard_settings(config, self.process.spec.number),
            catalog,
            Follower(catalog, CatalogStore(redis), KINDS_OF["shard"]),
            Log(redis, config.durability, on_fenced=_leave_to_newer_owner, letters=letter_bounds(config)),
            Snapshots(redis),
            ProfileStore(redis),
            [RouterPeer(reach, router_name(n)) for n in range(config.routers)],
            wall_ms,
            Random(),
            self.process.tally,
            DeadLetters(redis),
            Finds(redis, keep_ms_of(config)),
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

    async def replay(self, batch: bytes) -> bytes:
        """See `Shard.replay`."""
        await self._booting.finished()
        return await self.shard.replay(batch)

    async def reported(self, batch: bytes) -> bytes:
        """See `Shard.reported`."""
        await self._booting.finished()
        return await self.shard.reported(batch)

    async def listed(self, whom: bytes) -> bytes:
        """See `Shard.listed`."""
        await self._booting.finished()
        return await self.shard.listed(whom)

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
        self.process = Host(spec_decoder.decode(spec))
        self.catalog = catalog = Catalog()
        self._reach = reach
        self._pools: dict[str, list[SenderPeer]] = {}
        catalog.on_change.append(self._on_catalog)
        follower = Follower(catalog, CatalogStore(self.process.redis), KINDS_OF["router"])
        self.router = Router(catalog, follower, self._senders, time.monotonic, Random(), self.process.tally)
        self._booting = _Booting(self._start(), self.process.spec.name)

    def _on_catalog(self, kind: str) -> None:
        """Every provider's senders by name; those that stay keep their handle."""
        if kind not in ("providers", "*"):
            return
        known = {peer.name: peer for pool in self._pools.values() for peer in pool}
        pools: dict[str, list[SenderPeer]] = {}
        for name, (provider, _) in senders_of(self.catalog.providers).items():
            pools.setdefault(provider, []).append(known.get(name) or SenderPeer(self._reach, name))
        self._pools = pools

    def _senders(self, provider: str) -> list[SenderPeer]:
        return self._pools.get(provider, _NOBODY)

    async def _start(self) -> None:
        await self.process.open()
        await self.router.start()

    async def route(self, batch: bytes) -> bytes:
        """See `Router.route`."""
        await self._booting.finished()
        return await self.router.route(batch)

    async def late(self, batch: bytes) -> bytes:
        """See `Router.late`."""
        return await self.router.late(batch)

    async def recall(self, batch: bytes) -> bytes:
        """See `Router.recall`."""
        await self._booting.finished()
        return await self.router.recall(batch)

    async def await_catalog(self, version: bytes) -> bytes:
        """Returns once this router and every sender there is work by this catalog version or a later one."""
        await self._booting.finished()
        await self.router.await_catalog(version)
        peers = [peer for pool in self._pools.values() for peer in pool]
        await asyncio.gather(*(_in_step(peer, version) for peer in peers))
        return b""

    async def candidates(self, batch: bytes) -> bytes:
        """See `Router.candidates`."""
        await self._booting.finished()
        return await self.router.candidates(batch)

    async def reported(self, batch: bytes) -> bytes:
        """See `Router.reported`."""
        await self._booting.finished()
        return await self.router.reported(batch)

    async def health(self, batch: bytes) -> bytes:
        """See `Router.health`."""
        await self._booting.finished()
        return await self.router.health(batch)

    async def describe(self, _: bytes) -> bytes:
        """This actor, for the topology."""
        return self.process.describe()


async def _in_step(peer: SenderPeer, version: bytes) -> None:
    """A sender that is not there yet starts with the newest catalog; one that does not come, or drains, is not waited
    for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SENDER_START_S):
            while True:
                try:
                    await peer.await_catalog(version)
                except PeerGone:
                    await asyncio.sleep(0.05)
                else:
                    return


class SenderRole:
    """One member of a provider's pool in its own process."""

    def __init__(self, spec: bytes, reach: Reach) -> None:
        self.process = Host(spec_decoder.decode(spec))
        catalog = Catalog()
        config, redis = self.process.spec.config, self.process.redis
        shards = [ShardPeer(reach, shard_name(n)) for n in range(config.shards)]
        intake = ShardIntake(shards, config.partitions, self.process.tally)
        desk = ReportDesk(
            Finds(redis, keep_ms_of(config)),
            shards,
            config.partitions,
            self.process.tally,
            wall_ms,
            uplink_desk(redis, shards, intake, config.region, os.environ, self.process.tally, wall_ms),
        )
        self.sender = Sender(
            self.process.spec.provider,
            self.process.spec.number,
            catalog,
            Follower(catalog, CatalogStore(self.process.redis), KINDS_OF["sender"]),
            lambda id_, provider: build(id_, provider, os.environ),
            wall_ms,
            time.monotonic,
            self.process.tally,
            SenderPeer(reach, sender_name(self.process.spec.provider, 0)).lend,
            SenderPeer(reach, sender_name(self.process.spec.provider, 0)).token,
            desk.heard,
        )
        self._booting = _Booting(self._start(), self.process.spec.name)

    async def _start(self) -> None:
        await self.process.open()
        spec, redis = self.process.spec, self.process.redis
        ring = await ring_of(redis, spec.name)
        journal, known = await self._journal(ring)
        await note_ring(redis, spec.name, journal.ring)  # before anything is written
        self.sender.use(journal, known, first=ring is None)
        await self.sender.start()

    async def _journal(self, ring: bytes | None) -> tuple[Journal, list[Entry]]:
        spec = self.process.spec
        path, boot = path_of(Path(spec.config.data_dir) / "sent", spec.name), boot_of(spec.run)
        deadline = time.monotonic() + JOURNAL_S
        while True:
            try:
                return open_journal(path, boot, ring, wall_ms())
            except BlockingIOError:
                if time.monotonic() > deadline:
                    _log.warning("%s is another process's: when %s dies, all in its hand is unknown", path, spec.name)
                    return in_memory(wall_ms()), []
                await asyncio.sleep(0.05)

    async def send(self, batch: bytes) -> bytes:
        """See `Sender.send`."""
        await self._booting.finished()
        return await self.sender.send(batch)

    async def recall(self, batch: bytes) -> bytes:
        """See `Sender.recall`."""
        await self._booting.finished()
        return await self.sender.recall(batch)

    async def lend(self, claim: bytes) -> bytes:
        """See `Sender.lend`."""
        await self._booting.finished()
        return await self.sender.lend(claim)

    async def token(self, stale: bytes) -> bytes:
        """See `Sender.token`."""
        await self._booting.finished()
        return await self.sender.token(stale)

    async def await_catalog(self, version: bytes) -> bytes:
        """See `Sender.await_catalog`."""
        await self._booting.finished()
        return await self.sender.await_catalog(version)

    async def describe(self, _: bytes) -> bytes:
        """This actor, for the topology."""
        return self.process.describe(provider=self.process.spec.provider)

    async def drain(self, _: bytes) -> bytes:
        """See `Sender.drain`."""
        await self._booting.finished()
        return await self.sender.drain()


def _leave_to_newer_owner(_: list[int]) -> None:
    """Another shard has opened these partitions: what this one still holds in memory is no longer the truth."""
    os._exit(FENCED_EXIT)
