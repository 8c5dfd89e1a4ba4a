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
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from actors.embedded import EmbeddedValkey
from channels import OptionsError, build
from config.load import ConfigError, load
from config.schema import Config
from config.secrets import resolve_keys
from config.show import sources
from dispatcher.catalog import decode_document
from dispatcher.documents import Provider
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.connection import Connection, check_durability, connect, describe
from dispatcher.store.errors import Away, StoreError

LEAST_FREE_BYTES: Final = 1 << 30
LEAST_SHARED_BYTES: Final = 256 << 20
LEAST_FILES: Final = 4096
MOST_SKEW_S: Final = 1.0

ABOUT = """\
Check configuration, store, Ray's needs, providers and clock, and say what to mend.
Exit code 0 when a start would succeed.

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
    parser.add_argument("--redis", metavar="URL", help="look at this Redis or Valkey (redis.url)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing is broken."""
    console = Console(soft_wrap=True)
    marks = {True: "[green]ok[/]     ", None: "[yellow]warning[/]", False: "[red]broken[/] "}
    broken = 0
    for finding in asyncio.run(_collect(args.config, args.redis)):
        console.print(f"{marks[finding.good]} {finding.what}: ", end="")
        console.print(finding.said, markup=False, highlight=False)
        broken += finding.good is False
    return 1 if broken else 0


async def _collect(path: str | None, url: str | None) -> list[Finding]:
    try:
        config = load(path, os.environ, {"redis.url": url} if url else {})
    except ConfigError as error:
        return [Finding("configuration", False, str(error))]
    findings = [Finding("configuration", True, sources(config))]
    findings += [check(config) for check in (_python, _port, _keys, _files, _shared_memory, _disk)]
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
            client = await stack.enter_async_context(_reached(config))
            server = await describe(client)
            check_durability(server, config.durability)
        except Away as error:
            yield Finding("redis", False, f"{error}; is it running, is redis.url right?")
            return
        except (StoreError, OSError) as error:
            yield Finding("redis", False, str(error))
            return
        where = "at redis.url" if config.redis.url else "embedded"
        yield Finding("redis", True, f"{server.kind} {server.version} {where}, durability {config.durability}")
        yield await _clock(client)
        yield await _round_trip(client)
        if config.redis.url:
            for finding in _providers(await CatalogStore(client).list("providers")):
                yield finding


@contextlib.asynccontextmanager
async def _reached(config: Config) -> AsyncIterator[Connection]:
    """The store as a start would use it. The embedded one is tried in an empty folder: a running one is left alone."""
    with tempfile.TemporaryDirectory() as empty:
        embedded = None if config.redis.url else EmbeddedValkey(Path(empty), config.durability)
        url = config.redis.url or (await embedded.start() if embedded else "")
        client = connect(url)
        try:
            yield client
        finally:
            await client.aclose()
            if embedded is not None:
                await embedded.stop()


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


def _providers(rows: Any) -> Iterator[Finding]:
    for id_, row in rows.items():
        provider: Provider = decode_document("providers", row.doc)
        yield Finding(f"provider {id_}", *_judge(id_, provider))


def _judge(id_: str, provider: Provider) -> tuple[bool, str]:
    try:
        build(id_, provider, os.environ)
    except (OptionsError, KeyError) as error:
        return False, str(error)
    return True, "options are whole"
