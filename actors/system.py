"""The whole system in one place: store, actors, their number and their end. Lives in the process of `dispatcher up`."""

import asyncio
import errno
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Iterable
from pathlib import Path
from random import SystemRandom
from typing import Final

import msgspec

from actors import root
from actors.cast import gateway_name, router_name, senders_of, shard_name
from actors.embedded import EmbeddedValkey
from actors.follower import Follower
from actors.host import Spec
from actors.ports import PeerGone
from config.schema import Config
from config.secrets import resolve_keys
from config.seeds import seeds, with_callback_secrets
from dispatcher.catalog import KINDS_OF, Catalog, decode_document
from dispatcher.documents import Provider
from dispatcher.http.providers import with_callback_secret
from dispatcher.store.catalog import CatalogStore, Versioned
from dispatcher.store.connection import Connection, check_durability, connect, describe, fix_layout
from dispatcher.store.errors import Away

START_S: Final = 60.0
PORT_S: Final = 15
LEAVE_S: Final = 5.0
_log = logging.getLogger(__name__)
_reasons: Final = msgspec.msgpack.Decoder(list[str])


class StartError(Exception):
    """The system cannot start; the text says what to mend."""


class System:
    """Start it, wait for what happens, drain it. One a process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.run = secrets.token_hex(4)
        self.port = config.http.port
        self._embedded: EmbeddedValkey | None = None
        self._redis: Connection | None = None
        self._url = config.redis.url
        self._catalog = Catalog()
        self._follower: Follower | None = None
        self._reserved: socket.socket | None = None
        self._senders: dict[str, tuple[str, int]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}  # senders that drain, by name

    @property
    def url(self) -> str:
        """Where the HTTP application answers."""
        host = self.config.http.host
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{self.port}"

    async def start(self) -> None:
        """Returns when `/readyz` would be 200. Raises StartError or StoreError with what to mend."""
        resolve_keys(self.config.http.keys, os.environ)  # one that leads nowhere stops the start here, not a gateway
        await self._reserve_port()
        store = await self._open_store()
        documents = with_callback_secrets(seeds(self.config), SystemRandom())
        if not await store.seed(documents, time.time_ns() // 1_000_000):
            await self._tell_of_unused_seeds(store)
        self._follower = Follower(self._catalog, store, KINDS_OF["sender"])  # who is to be there
        await self._follower.start()
        try:
            await root.join(self.config.ray.address, self.run, "warning")
        except root.JoinError as error:
            raise StartError(f"ray.address: {error}" if self.config.ray.address else f"ray: {error}") from error
        self._spawn_all()
        self._catalog.on_change.append(self._on_catalog)
        await self._until_ready()

    async def _reserve_port(self) -> None:
        """Hold the port that the gateways share. One that is taken is waited for: the actors of a dispatcher that was
        killed hold theirs for a few seconds more."""
        host, port = self.config.http.host, self.config.http.port
        for left_s in range(PORT_S, -1, -1):
            try:
                self.port, self._reserved = _reserved(host, port)
                break
            except OSError as error:
                why = os.strerror(error.errno or 0)
                if left_s == 0 or error.errno != errno.EADDRINUSE:
                    raise StartError(
                        f"http.port: cannot listen on {host}:{port} ({why}); stop what listens there, or set http.port "
                        "(0 takes a free one)"
                    ) from error
            if left_s == PORT_S:
                _log.warning("http.port: %s:%d is taken (%s); waiting %d s for it", host, port, why, PORT_S)
            await asyncio.sleep(1.0)

    async def _open_store(self) -> CatalogStore:
        config = self.config
        if not self._url:
            self._embedded = EmbeddedValkey(Path(config.data_dir), config.durability)
            self._url = await self._embedded.start()
        self._redis = connect(self._url)
        try:
            server = await describe(self._redis)
        except Away as error:
            raise StartError(f"redis.url: {error}; is it running?") from error
        check_durability(server, config.durability)
        await fix_layout(self._redis, config.partitions)
        _log.info("store: %s %s", server.kind, server.version)
        return CatalogStore(self._redis)

    async def _tell_of_unused_seeds(self, store: CatalogStore) -> None:
        """A catalog that exists wins over the configuration: say where they differ, or the edit is a riddle."""
        unused = [
            f"{kind}.{id_}"
            for kind, by_id in seeds(self.config).items()
            for id_, seed in by_id.items()
            if self._configured(kind, id_) and not _same(kind, seed, await store.get(kind, id_))
        ]
        if unused:
            named = ", ".join(unused[:8]) + (", ..." if len(unused) > 8 else "")
            _log.warning(
                "the configuration seeds the catalog at the first start only; what it says now of %s is not used: the "
                "catalog has its own. Change the catalog over HTTP (PUT /v1/...)",
                named,
            )

    def _configured(self, kind: str, id_: str) -> bool:
        """Whether somebody wrote this document down; the shipped defaults are nobody's wish."""
        origins = self.config.origins
        return origins.get(f"{kind}.{id_}", origins.get(kind, "default")) != "default"

    # -- actors

    def _spec(self, role: str, name: str, number: int, provider: str = "") -> Spec:
        http = msgspec.structs.replace(self.config.http, port=self.port)
        config = msgspec.structs.replace(
            self.config, http=http, templates={}, lines={}, rules=[], providers={}, routes=[], keywords={}, origins={},
            data_dir=str(Path(self.config.data_dir).absolute()),
        )  # fmt: skip
        return Spec(role, name, number, self.run, self._url, config, provider)

    def _spawn_all(self) -> None:
        config = self.config
        for number in range(config.shards):
            root.spawn(self._spec("shard", shard_name(number), number))
        for number in range(config.routers):
            root.spawn(self._spec("router", router_name(number), number))
        for number in range(config.gateways):
            root.spawn(self._spec("gateway", gateway_name(number), number))
        self._match_senders()

    def _on_catalog(self, kind: str) -> None:
        if kind in ("providers", "*"):
            self._match_senders()

    def _match_senders(self) -> None:
        """Start the senders that the catalog wants and that are not there; end those it wants no more. One that is
        wanted again while it drains is started anew once it has left."""
        wanted = senders_of(self._catalog.providers)
        before, self._senders = self._senders, dict(wanted)
        for name, (provider, number) in wanted.items():
            if name not in before and name not in self._leaving:
                root.spawn(self._spec("sender", name, number, provider))
        for name in before.keys() - wanted.keys() - self._leaving.keys():
            self._leaving[name] = asyncio.get_running_loop().create_task(self._end_sender(name))

    async def _end_sender(self, name: str) -> None:
        await _within(self.config.drain_s, [root.reach(name, "drain")(b"")], f"{name}: draining")
        root.dismiss(name)
        while name in self._senders:
            provider, number = self._senders[name]
            try:
                root.spawn(self._spec("sender", name, number, provider))
                break
            except ValueError:  # Ray's word for a name that is taken, as that of a killed actor is for a moment
                await asyncio.sleep(0.05)
        del self._leaving[name]

    def _names(self) -> list[str]:
        config = self.config
        return [
            *(gateway_name(n) for n in range(config.gateways)),
            *(shard_name(n) for n in range(config.shards)),
            *(router_name(n) for n in range(config.routers)),
            *self._senders,
        ]

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        reasons = ["starting"]
        while time.monotonic() < deadline:
            reasons = []
            for number in range(self.config.gateways):
                try:
                    reasons += _reasons.decode(await root.reach(gateway_name(number), "ready")(b""))
                except PeerGone:
                    reasons.append(f"{gateway_name(number)} is starting")
            if not reasons:
                calls = [root.reach(name, "describe")(b"") for name in self._senders]
                await _within(deadline - time.monotonic(), calls, "senders: start")
                return
            await asyncio.sleep(0.05)
        raise StartError(f"not ready after {START_S:.0f} s: {'; '.join(reasons)}")

    # -- the end

    async def drain(self) -> None:
        """Take nothing new, settle what is out, write everything down. What still waits goes on at the next start. The
        gateways listen to the end: a refusal says more than a closed port."""
        config = self.config
        gateways = [root.reach(gateway_name(n), "drain")(b"") for n in range(config.gateways)]
        await _within(config.drain_s, gateways, "gateways: requests")
        shards = [root.reach(shard_name(n), "drain")(b"") for n in range(config.shards)]
        await _within(config.drain_s, shards, "shards: messages at providers")
        await _within(config.drain_s, [root.reach(name, "drain")(b"") for name in self._senders], "senders: requests")
        gateways = [root.reach(gateway_name(n), "leave")(b"") for n in range(config.gateways)]
        await _within(LEAVE_S, gateways, "gateways: connections")

    async def close(self) -> None:
        """End every actor, then Ray, then the store."""
        if self._follower is not None:
            await self._follower.stop()
        for name in self._names():
            root.dismiss(name)
        await root.leave()
        if self._redis is not None:
            await self._redis.aclose()
        if self._embedded is not None:
            await self._embedded.stop()
        if self._reserved is not None:
            self._reserved.close()


def _reserved(host: str, port: int) -> tuple[int, socket.socket]:
    """The port with a socket that holds it. A plain bind first: a shared one would join a stranger's.
    Raises OSError."""
    with socket.create_server((host, port)) as plain:
        port = plain.getsockname()[1]
    shared = socket.socket()
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((host, port))
    except OSError:
        shared.close()
        raise
    return port, shared


def _same(kind: str, seed: bytes, stored: Versioned | None) -> bool:
    """Whether a seed says what the catalog says; a callback secret that was made is nobody's wish."""
    if stored is None:
        return False
    ours, theirs = decode_document(kind, seed), decode_document(kind, stored.doc)
    if isinstance(ours, Provider):
        ours = with_callback_secret(ours, stored.doc, SystemRandom())
    return bool(ours == theirs)


async def _within(limit_s: float, calls: Iterable[Awaitable[bytes]], what: str) -> None:
    """Wait for calls; one that takes too long is left behind, what it held is in the log."""
    try:
        async with asyncio.timeout(limit_s):
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(answer, BaseException) and not isinstance(answer, PeerGone):
                    _log.error("%s: %s", what, answer)
    except TimeoutError:
        _log.warning("%s did not end within %.0f s; the log has them for the next start", what, limit_s)
