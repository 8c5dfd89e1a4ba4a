"""`dispatcher doctor`: looks at everything a start needs, and says what to mend."""

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from actors.cluster import unreachable
from actors.embedded import EmbeddedValkey
from channels import OptionsError, build
from config.load import ConfigError, load
from config.schema import Config
from config.secrets import resolve_keys
from config.seeds import seeds
from config.show import sources
from dispatcher.catalog import decode_document
from dispatcher.documents import Provider
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.connection import Connection, check_durability, check_layout, connect, describe
from dispatcher.store.errors import Away, StoreError

LEAST_FREE_BYTES: Final = 1 << 30
LEAST_SHARED_BYTES: Final = 256 << 20
LEAST_FILES: Final = 4096
MOST_SKEW_S: Final = 1.0

ABOUT = """\
Check configuration, store, Ray, providers and clock, and say what to mend. Exit
code 0 when a start would succeed and every provider can be used. The data of the
embedded store are opened as a start would open them; nothing in them is changed.

  dispatcher doctor --config prod.toml
"""


class Finding(NamedTuple):
    """One thing looked at. `good`: True, False, or None for a warning."""

    what: str
    good: bool | None
    said: str


def add_parser(commands: Any) -> None:
    """Options of `doctor`."""
    parser = commands.add_parser(
        "doctor", help="find what is wrong", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="TOML that overlays the shipped defaults")
    parser.add_argument("--ray", metavar="ADDRESS", help="look at this Ray cluster (ray.address)")
    parser.add_argument("--redis", metavar="URL", help="look at this Redis or Valkey (redis.url)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing is broken."""
    console = Console(soft_wrap=True)
    marks = {True: "[green]ok[/]     ", None: "[yellow]warning[/]", False: "[red]broken[/] "}
    broken = 0
    wanted = {"ray.address": args.ray, "redis.url": args.redis}
    overrides = {key: value for key, value in wanted.items() if value is not None}
    for finding in asyncio.run(_collect(args.config, overrides)):
        console.print(f"{marks[finding.good]} {finding.what}: ", end="")
        console.print(finding.said, markup=False, highlight=False)
        broken += finding.good is False
    return 1 if broken else 0


async def _collect(path: str | None, overrides: dict[str, str]) -> list[Finding]:
    try:
        config = load(path, os.environ, overrides)
    except ConfigError as error:
        return [Finding("configuration", False, str(error))]
    findings = [Finding("configuration", True, sources(config))]
    findings += [check(config) for check in (_python, _port, _keys, _files, _shared_memory, _ray, _disk)]
    findings += [finding async for finding in _store(config)]
    return findings


def _python(_: Config) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), f"{version} on {sys.platform}")


def _port(config: Config) -> Finding:
    host, port = config.http.host, config.http.port
    try:
        with socket.create_server((host, port)):
            return Finding("http.port", True, f"{host}:{port} is free" if port else "a free one is taken at the start")
    except OSError as error:
        why = os.strerror(error.errno or 0)
        return Finding("http.port", False, f"{host}:{port}: {why}; a dispatcher may be running already")


def _keys(config: Config) -> Finding:
    keys = config.http.keys
    try:
        resolve_keys(keys, os.environ)
    except ConfigError as error:
        return Finding("http.keys", False, str(error))
    return Finding("http.keys", True, f"{len(keys)} keys" if keys else "none: everybody on this machine is let in")


def _files(_: Config) -> Finding:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{soft} open files allowed"
    return Finding("files", True if soft >= LEAST_FILES else None, said + _advice(soft, LEAST_FILES, "ulimit -n 65536"))


def _shared_memory(_: Config) -> Finding:
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else LEAST_SHARED_BYTES
    said = f"{free >> 20} MiB of shared memory free"
    advice = _advice(free, LEAST_SHARED_BYTES, "in a container: --shm-size 512m")
    return Finding("ray", True if free >= LEAST_SHARED_BYTES else None, said + advice)


def _ray(config: Config) -> Finding:
    address = config.ray.address
    if not address:
        return Finding("ray.address", True, "none: a Ray of its own is started")
    why = unreachable(address)
    return Finding("ray.address", why is None, f"{why}; is the cluster running?" if why else f"{address} answers")


def _disk(config: Config) -> Finding:
    place = Path(config.data_dir)
    there = next((p for p in (place, *place.absolute().parents) if p.exists()), Path("/"))
    if not os.access(there, os.W_OK):
        return Finding("data_dir", False, f"{place} cannot be written; set data_dir or its permissions")
    free = shutil.disk_usage(there).free
    said = f"{place}, {free >> 30} GiB free"
    advice = _advice(free, LEAST_FREE_BYTES, "make room")
    return Finding("data_dir", True if free >= LEAST_FREE_BYTES else None, said + advice)


def _advice(have: int, need: int, what: str) -> str:
    return "" if have >= need else f"; {need} is better ({what})"


async def _store(config: Config) -> AsyncIterator[Finding]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            client, where = await stack.enter_async_context(_reached(config))
            server = await describe(client)
            check_durability(server, config.durability)
        except Away as error:
            yield Finding("redis", False, f"{error}; is it running, is redis.url right?")
            return
        except (StoreError, OSError) as error:
            yield Finding("redis", False, str(error))
            return
        yield Finding("redis", True, f"{server.kind} {server.version} {where}, durability {config.durability}")
        yield await _clock(client)
        yield await _round_trip(client)
        yield await _partitions(client, config.partitions)
        for id_, provider in (await _providers(client, config)).items():
            yield Finding(f"provider {id_}", *_judge(id_, provider))


@contextlib.asynccontextmanager
async def _reached(config: Config) -> AsyncIterator[tuple[Connection, str]]:
    """The store as a start would find it, and where: at redis.url, the embedded one of a dispatcher that runs, one over
    the data that lie there, or one over nothing."""
    async with contextlib.AsyncExitStack() as stack:
        if config.redis.url:
            url, where = config.redis.url, "at redis.url"
        elif await _answers(url := EmbeddedValkey(Path(config.data_dir)).url):
            where = "embedded, of the dispatcher that runs on data_dir"
        else:
            there = (Path(config.data_dir) / "valkey" / "appendonlydir").is_dir()
            place = config.data_dir if there else stack.enter_context(tempfile.TemporaryDirectory())
            embedded = EmbeddedValkey(Path(place), config.durability)
            stack.push_async_callback(embedded.stop)
            url, where = await embedded.start(), "embedded"
        client = connect(url)
        stack.push_async_callback(client.aclose)
        yield client, where


async def _answers(url: str) -> bool:
    client = connect(url)
    try:
        await describe(client)
    except Away:
        return False
    finally:
        await client.aclose()
    return True


async def _partitions(client: Connection, partitions: int) -> Finding:
    try:
        await check_layout(client, partitions)
    except StoreError as error:
        return Finding("partitions", False, str(error).removeprefix("partitions: "))
    return Finding("partitions", True, f"{partitions}")


async def _clock(client: Connection) -> Finding:
    seconds, micros = await client.time()
    skew_s = abs(time.time() - seconds - micros / 1e6)
    advice = "" if skew_s < MOST_SKEW_S else "; caps by the day follow this machine's clock, keep both on NTP"
    said = f"{skew_s * 1000:.0f} ms apart from the store{advice}"
    return Finding("clock", True if skew_s < MOST_SKEW_S else None, said)


async def _round_trip(client: Connection) -> Finding:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        await client.ping()
        times.append(time.perf_counter() - start)
    median_ms = sorted(times)[10] * 1000
    return Finding("store latency", True if median_ms < 5 else None, f"{median_ms:.2f} ms a round trip")


async def _providers(client: Connection, config: Config) -> dict[str, Provider]:
    """The catalog's; those of the configuration where a first start would store them."""
    store = CatalogStore(client)
    if await store.seeded():
        docs = {id_: row.doc for id_, row in (await store.list("providers")).items()}
    else:
        docs = seeds(config)["providers"]
    return {id_: decode_document("providers", doc) for id_, doc in docs.items()}


def _judge(id_: str, provider: Provider) -> tuple[bool, str]:
    if not provider.enabled:
        return True, "is not enabled"
    try:
        build(id_, provider, os.environ)
    except (OptionsError, KeyError) as error:
        return False, str(error)
    return True, "options are whole"
