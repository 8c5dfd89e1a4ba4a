"""The gateway: hosts the HTTP application in an actor, and joins its ports to the other actors."""

import asyncio
import logging
import os
from typing import Any, Final

import msgspec
from prometheus_client import generate_latest

from actors.cast import gateway_name, router_name, sender_name, shard_name
from actors.desk import BlacklistDesk, CatalogDesk, UserDesk
from actors.forwarder import AT_ONCE, Forwarder
from actors.host import Host, spec_decoder, wall_ms
from actors.intake import ShardIntake
from actors.letters import LetterDesk, letter_bounds
from actors.pages import Pages
from actors.ports import Call, PeerGone, Reach, RouterPeer, ShardPeer
from actors.reports import ReportDesk, keep_ms_of
from actors.uplinks import uplink_desk
from actors.vendors import VendorDesk
from channels import check
from channels.forwarding import check_line
from channels.lean import LeanTransport
from config.schema import Config
from config.secrets import resolve_keys
from dispatcher.catalog import decode_document
from dispatcher.http.app import make_app
from dispatcher.http.hosting import Hosting
from dispatcher.http.ports import Ports
from dispatcher.http.settings import Settings
from dispatcher.store.blacklist import BlacklistStore
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.deadletters import DeadLetters
from dispatcher.store.errors import Away
from dispatcher.store.finds import Finds
from dispatcher.store.forwards import Forwards

LOOK_S: Final = 0.2  # how often shards are asked whether they are ready
STORE_AWAY: Final = "store_unavailable"
ASK_S: Final = 1.0  # how long an actor has to describe itself
_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()


class Operations:
    """`dispatcher.http.ports.Operations`: what all actors say of themselves."""

    def __init__(
        self, process: Host, reach: Reach, shards: list[ShardPeer], routers: list[RouterPeer], intake: ShardIntake
    ) -> None:
        self.draining = False
        self._process = process
        self._reach = reach
        self._shards = shards
        self._routers = routers
        self._intake = intake
        self._store = CatalogStore(process.redis)
        self._reasons = ["starting"]

    async def watch(self) -> None:
        """Keep asking the shards how they are."""
        while True:
            try:
                await self._look()
            except Exception:
                _log.exception("gateway: a look at the shards failed")
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        away, *answers = await asyncio.gather(self._store_away(), *(_ask(shard.status) for shard in self._shards))
        for i, answer in enumerate(answers):
            self._intake.heed(i, STORE_AWAY if away or answer == STORE_AWAY else None)
        self._reasons = [
            f"shard {i}: {'away' if answer is _SILENT else answer}"
            for i, answer in enumerate(answers)
            if answer is not None
        ]
        if away and not self._reasons:  # nothing was asked of the store since it left
            self._reasons = [STORE_AWAY]

    async def _store_away(self) -> bool:
        try:
            async with asyncio.timeout(ASK_S):
                await self._store.version()
        except (Away, TimeoutError):
            return True
        return False

    def ready(self) -> list[str]:
        """Why requests should not come here now."""
        return ["draining"] if self.draining else self._reasons

    async def topology(self) -> dict[str, Any]:
        """Nodes, actors and partitions, as of now."""
        actors = [self._absent_or(name, await _ask(call)) for name, call in await self._everyone()]
        partitions = []
        for actor in actors:
            backlog, epochs = actor.get("backlog"), actor.pop("partitions", {})
            partitions += [{"id": p, "owner": actor["name"], "epoch": epoch} for p, epoch in epochs.items()]
            if backlog is not None:
                actor["backlog"] = backlog
        partitions.sort(key=lambda partition: int(partition["id"]))
        nodes = sorted({actor["node"] for actor in actors if "node" in actor})
        return {"nodes": nodes, "actors": actors, "partitions": partitions, "run": self._process.spec.run}

    def metrics(self) -> bytes:
        """This process's metrics."""
        return generate_latest(self._process.registry)

    async def targets(self) -> list[dict[str, Any]]:
        """Where Prometheus finds every process."""
        told = [await _ask(call) for _, call in await self._everyone()]
        return [
            {"targets": [actor["metrics"]], "labels": {"role": actor["role"], "actor": actor["name"]}}
            for actor in told
            if isinstance(actor, dict)
        ]

    async def provider_health(self, id_: str) -> dict[str, Any] | None:
        """What a router has seen of a provider lately."""
        for router in self._routers:
            try:
                health = msgspec.msgpack.decode(await router.health(b""))
            except PeerGone:
                continue
            found: dict[str, Any] | None = health.get(id_)
            return found
        return None

    async def _everyone(self) -> list[tuple[str, Call]]:
        config = self._process.spec.config
        names = [gateway_name(n) for n in range(config.gateways)]
        names += [shard_name(n) for n in range(config.shards)]
        names += [router_name(n) for n in range(config.routers)]
        try:
            for id_, row in (await self._store.list("providers")).items():
                provider = decode_document("providers", row.doc)
                names += [sender_name(id_, n) for n in range(provider.senders if provider.enabled else 0)]
        except Away:
            pass  # the others can still be asked
        return [(name, self._reach(name, "describe")) for name in names]

    def _absent_or(self, name: str, told: Any) -> dict[str, Any]:
        role = name.partition(":")[0]
        return told if isinstance(told, dict) else {"name": name, "role": role, "absent": True}


class _Silent:
    """What an actor that does not answer says."""


_SILENT: Final = _Silent()


async def _ask(call: Call) -> Any:
    try:
        async with asyncio.timeout(ASK_S):
            return msgspec.msgpack.decode(await call(b""), strict=False)
    except (PeerGone, TimeoutError):
        return _SILENT


class GatewayRole:
    """A gateway in its own process. All gateways listen on one port; the kernel deals out connections."""

    def __init__(self, spec: bytes, reach: Reach) -> None:
        self.process = process = Host(spec_decoder.decode(spec))
        config = process.spec.config
        shards = [ShardPeer(reach, shard_name(n)) for n in range(config.shards)]
        routers = [RouterPeer(reach, router_name(n)) for n in range(config.routers)]
        self.intake = ShardIntake(shards, config.partitions, process.tally)
        self.operations = Operations(process, reach, shards, routers, self.intake)
        catalog = CatalogDesk(CatalogStore(process.redis), shards, routers, wall_ms)
        blacklist = BlacklistDesk(BlacklistStore(process.redis), catalog, shards, wall_ms)
        letters = LetterDesk(DeadLetters(process.redis), shards, config.partitions, letter_bounds(config), wall_ms)
        reports = ReportDesk(
            Finds(process.redis, keep_ms_of(config)), shards, config.partitions, process.tally, wall_ms,
            uplink_desk(process.redis, shards, self.intake, config.region, os.environ, process.tally, wall_ms),
        )  # fmt: skip
        vendors = VendorDesk(CatalogStore(process.redis), reports, Pages(LeanTransport(4)), os.environ, wall_ms)
        users = UserDesk(shards, config.partitions)
        forwarder = Forwarder(
            Forwards(process.redis), CatalogStore(process.redis), LeanTransport(AT_ONCE), LeanTransport(AT_ONCE, True),
            os.environ, process.tally, wall_ms,
        )  # fmt: skip
        ports = Ports(self.intake, catalog, users, blacklist, self.operations, letters, vendors)
        self._hosting = Hosting(make_app(ports, _settings(config)), config.drain_s)
        self._tasks = [
            asyncio.get_running_loop().create_task(work)
            for work in (self._start(), self.operations.watch(), blacklist.sweep(), letters.sweep(), forwarder.run())
        ]

    async def _start(self) -> None:
        await self.process.open()
        http = self.process.spec.config.http
        await self._hosting.open(http.host, http.port)

    async def ready(self, _: bytes) -> bytes:
        """Why this gateway takes nothing now (msgpack list of words); empty: it does."""
        starting = self._tasks[0]
        if not starting.done():
            return _encoder.encode(["gateway: starting"])
        if starting.exception() is not None:
            return _encoder.encode([f"gateway: {starting.exception()}"])
        return _encoder.encode(self.operations.ready())

    async def describe(self, _: bytes) -> bytes:
        """This actor, for the topology."""
        return self.process.describe()

    async def drain(self, _: bytes) -> bytes:
        """Take no new request and answer those in hand. Whoever asks goes on being told that it drains."""
        self.operations.draining = True
        await self._hosting.idle()
        await self.intake.stop()
        return b""

    async def leave(self, _: bytes) -> bytes:
        """Stop listening."""
        await self._hosting.close()
        return b""


def _settings(config: Config) -> Settings:
    return Settings(
        keys=resolve_keys(config.http.keys, os.environ),
        region=config.region,
        stream_patience_s=config.http.stream_patience_s,
        max_streams=config.http.max_streams,
        check_provider=check,
        check_line=check_line,
        public_url=config.http.public_url.rstrip("/"),
    )
