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

import msgspec
from rich.console import Console

from actors.cli import trial
from actors.cluster import unreachable
from actors.embedded import EmbeddedValkey
from channels import OptionsError, build, check
from config.load import ConfigError, survey
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

With --send-test it sends one real message instead, through one provider and nothing
else: no dispatcher, Ray or Redis has to run. It says what it will send and asks,
then tells the answer, what that means and what to mend. Exit code 0: accepted.

  dispatcher doctor --send-test sms-a --to +8613800000000
  dispatcher doctor --send-test aliyun --to +8613800000000 --template pay_ok --param amount=12.00
  dispatcher doctor --send-test fcm --to cVf9..:APA91bH.. --yes
  dispatcher doctor --send-test ops-robot      (a chat robot's group is its own)

The provider is the catalog's where a store with one answers, else the configuration's.
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
    trial.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing is broken; with `--send-test`, when the message was accepted."""
    wanted = {"ray.address": args.ray, "redis.url": args.redis}
    overrides = {key: value for key, value in wanted.items() if value is not None}
    if args.send_test is not None:
        return trial.run(args, overrides)
    if args.to or args.template or args.param or args.yes:
        print("doctor: --to, --template, --param and --yes belong to --send-test PROVIDER", file=sys.stderr)
        return 2
    return _look(args.config, overrides)


def _look(path: str | None, overrides: dict[str, str]) -> int:
    console = Console(soft_wrap=True)
    marks = {True: "[green]ok[/]     ", None: "[yellow]warning[/]", False: "[red]broken[/] "}
    broken = 0
    for finding in asyncio.run(_collect(path, overrides)):
        console.print(f"{marks[finding.good]} {finding.what}: ", end="")
        console.print(finding.said, markup=False, highlight=False)
        broken += finding.good is False
    return 1 if broken else 0


async def _collect(path: str | None, overrides: dict[str, str]) -> list[Finding]:
    try:
        config, faults = survey(path, os.environ, overrides)
    except ConfigError as error:
        return [Finding("configuration", False, str(error))]
    if faults:  # nothing starts with them; what the providers' references lead to can be told all the same
        found = [Finding("configuration", False, str(fault)) for fault in faults]
        return [*found, *(f for id_, doc in seeds(config)["providers"].items() for f in _unopened(id_, doc))]
    findings = [Finding("configuration", True, sources(config))]
    findings += [look(config) for look in (_python, _port, _keys, _files, _shared_memory, _ray, _disk)]
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
        for id_, doc in (await _providers(client, config)).items():
            for finding in _judge(id_, doc):
                yield finding


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


async def _providers(client: Connection, config: Config) -> dict[str, bytes]:
    """The catalog's; those of the configuration where a first start would store them."""
    store = CatalogStore(client)
    if await store.seeded():
        return {id_: row.doc for id_, row in (await store.list("providers")).items()}
    return seeds(config)["providers"]


def _judge(id_: str, doc: bytes) -> list[Finding]:
    """What a provider's document says, each fault by its path. One that is not enabled breaks nothing yet."""
    what = f"provider {id_}"
    try:
        provider: Provider = decode_document("providers", doc)
    except msgspec.ValidationError as error:
        return [Finding(what, False, f"providers.{id_}: {error}")]
    faults = check(provider) or _faults_of(id_, provider)
    if faults:
        bad = False if provider.enabled else None
        return [Finding(what, bad, f"providers.{id_}.{path}: {message}") for path, message in faults]
    return [Finding(what, True, "options are whole" if provider.enabled else "is not enabled; options are whole")]


def _unopened(id_: str, doc: bytes) -> list[Finding]:
    """What only opening its references finds, of a document that is sound otherwise."""
    try:
        provider: Provider = decode_document("providers", doc)
    except msgspec.ValidationError:
        return []  # told already, as is what is wrong with it as written
    return [] if check(provider) else [finding for finding in _judge(id_, doc) if finding.good is not True]


def _faults_of(id_: str, provider: Provider) -> list[tuple[str, str]]:
    try:
        build(id_, provider, os.environ)
    except OptionsError as error:
        return error.errors
    return []
