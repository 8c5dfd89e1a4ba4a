"""End to end: how many messages a second, at what CPU cost by role, and how long one takes, everything on this machine.

Load generator, dispatcher (embedded store, shipped rules, durable log) and simulated provider share the cores. Three
set-ups: a provider that takes 100 messages a request, for one shard and for two, and one that takes a single message.
For each: a run as fast as the server reads, for throughput and CPU; then a run at half that rate, for latency from the
intended send.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from actors.demo.children import Child
from bench.cpu import command_of, cpu_by_role, descendants
from bench.load import TEMPLATES, Plan, Report, Spread, latencies
from config.show import toml_of
from dispatcher.client import Client

PROVIDER: Final = "bench"
WARM_S: Final = 2.0


class Case(Struct, frozen=True):
    """One set-up. `users`: enough that the shipped daily caps of five a line do not end the run."""

    name: str
    max_batch: int
    seconds: float = 8.0
    users: int = 150_000
    concurrency: int = 32
    connections: int = 4
    shards: int = 1
    goal: float = 0.0


CASES: Final = (
    Case("100 a request", max_batch=100, goal=60_000),
    Case("100 a request, two shards", max_batch=100, shards=2, goal=25_000),
    Case("1 a request", max_batch=1, goal=11_000),
)


class Outcome(Struct, frozen=True):
    """What one case came to. Rates are messages a second at the provider; CPU is microseconds a message by role."""

    case: Case
    start_s: float
    messages_per_s: float
    cpu_us: dict[str, float]
    accepted: int
    delivered: int
    half_rate: float
    latency: Spread
    half_late_max_ms: float

    @property
    def cpu_us_in_all(self) -> float:
        return sum(self.cpu_us.values())


class Rig:
    """A dispatcher, its provider, and the pids of everything."""

    def __init__(self, up: Child, simulator: Child, session: aiohttp.ClientSession, start_s: float) -> None:
        self.up = up
        self.simulator = simulator
        self.start_s = start_s
        self._session = session

    async def roles(self) -> dict[str, list[int]]:
        """Every process of the dispatcher by role; what is not an actor is Ray's own, the store's or `up`."""
        topology = await self._get(f"{self.up.url}/v1/topology")
        roles: dict[str, list[int]] = {}
        for actor in topology["actors"]:
            roles.setdefault(actor["role"], []).append(actor["pid"])
        roles["simulator"] = [self.simulator.process.pid]
        named = {pid for pids in roles.values() for pid in pids}
        for pid in descendants(self.up.process.pid):
            if pid not in named:
                roles.setdefault("store" if "valkey" in command_of(pid) else "ray", []).append(pid)
        roles["up"] = [self.up.process.pid]
        return roles

    async def delivered(self) -> int:
        """Messages the provider has accepted so far."""
        stats = await self._get(f"{self.simulator.url}/stats")
        return int(stats[PROVIDER]["accepted"])

    async def journal(self) -> list[dict[str, Any]]:
        """What the provider has received, by message."""
        async with self._session.get(f"{self.simulator.url}/journal") as response:
            rows: list[dict[str, Any]] = msgspec.json.Decoder().decode_lines(await response.read())
            return rows

    async def forget(self) -> None:
        """Empty the journal."""
        async with self._session.delete(f"{self.simulator.url}/journal") as response:
            response.raise_for_status()

    async def all_delivered(self, accepted: int, before: int = 0) -> int:
        """Wait until the provider has what was accepted; returns how many it has."""
        deadline = time.monotonic() + 60
        while True:
            delivered = await self.delivered() - before
            if delivered >= accepted or time.monotonic() > deadline:
                return delivered
            await asyncio.sleep(0.05)

    async def _get(self, url: str) -> Any:
        async with self._session.get(url) as response:
            return await response.json()


@contextlib.asynccontextmanager
async def rig(case: Case, place: Path, settings: dict[str, Any]) -> AsyncIterator[Rig]:
    """Everything started, its users loaded."""
    async with contextlib.AsyncExitStack() as stack:
        simulator = await Child.start(["simulate", "--port", "0", "--provider", PROVIDER], place / "simulate.log")
        stack.push_async_callback(simulator.stop)
        config = place / "bench.toml"
        chosen = {"shards": case.shards} | settings | _documents(case, simulator.url)
        config.write_text(toml_of(chosen | {"data_dir": str(place / "data")}))
        started = time.monotonic()
        up = await Child.start(["up", "--config", str(config)], place / "up.log")
        stack.push_async_callback(up.stop)
        start_s = time.monotonic() - started
        session = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(Client(up.url))
        await client.put_users((f"u{n}", {"addresses": {"sms": [f"+86139{n:08d}"]}}) for n in range(case.users))
        yield Rig(up, simulator, session, start_s)


def _documents(case: Case, simulator: str) -> dict[str, Any]:
    provider = {
        "kind": "webhook",
        "channel": "sms",
        "max_batch": case.max_batch,
        "concurrency": case.concurrency,
        "options": {"url": f"{simulator}/p/{PROVIDER}", "allow_private": True, "reports_by": "id"},
    }
    return {"http": {"port": 0}, "templates": TEMPLATES, "providers": {PROVIDER: provider}}


async def run_load(url: str, plan: Plan, connections: int, place: Path) -> tuple[Report, int]:
    """The load generator as a process of its own; its report and its pid."""
    out = place / "load.json"
    process = await _spawn_load(url, plan, connections, out)
    code = await process.wait()
    if code:
        raise RuntimeError(f"the load generator ended with {code}")
    return msgspec.json.decode(out.read_bytes(), type=Report), process.pid


async def _spawn_load(url: str, plan: Plan, connections: int, out: Path) -> asyncio.subprocess.Process:
    options = {
        "url": url, "rate": plan.rate, "seconds": plan.seconds, "users": plan.users, "seed": plan.seed, "mix": plan.mix,
        "connections": connections, "out": out,
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *arguments, stdout=asyncio.subprocess.DEVNULL
    )


async def measure(case: Case, place: Path, settings: dict[str, Any]) -> Outcome:
    """One case on a fresh dispatcher."""
    async with rig(case, place, settings) as r:
        rate, cpu_us, report, delivered = await _flat_out(case, r, place)
        half = rate / 2
        await r.forget()
        plan = Plan(half, case.seconds, case.users, seed=8)
        half_report, _ = await run_load(r.up.url, plan, case.connections, place)
        await r.all_delivered(half_report.summary["accepted"])
        found = latencies(await r.journal(), plan, half_report.start_epoch_s, half_report.sent)
        return Outcome(
            case, r.start_s, rate, cpu_us, report.summary["accepted"], delivered, half, found, half_report.late_max_ms
        )


async def _flat_out(case: Case, r: Rig, place: Path) -> tuple[float, dict[str, float], Report, int]:
    """As fast as the server reads. The window begins after a warm-up and ends before the tail."""
    plan = Plan(0, case.seconds + WARM_S, case.users, seed=7)
    process = await _spawn_load(r.up.url, plan, case.connections, place / "load.json")
    roles = await r.roles()
    roles["load"] = [process.pid]
    await asyncio.sleep(WARM_S)
    cpu_before, count_before, at = cpu_by_role(roles), await r.delivered(), time.monotonic()
    await asyncio.sleep(case.seconds - 1.0)
    cpu_after, count_after, until = cpu_by_role(roles), await r.delivered(), time.monotonic()
    if await process.wait():
        raise RuntimeError("the load generator failed")
    report = msgspec.json.decode((place / "load.json").read_bytes(), type=Report)
    delivered = await r.all_delivered(report.summary["accepted"])
    messages = max(count_after - count_before, 1)
    cpu_us = {role: (cpu_after[role] - cpu_before[role]) / messages * 1e6 for role in roles}
    return messages / (until - at), cpu_us, report, delivered
