"""A dispatcher with simulated providers that can be made sick, and load on it, for trials."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from actors.demo.children import Child
from bench.cpu import command_of, descendants, rss_kib
from bench.load import Report
from bench.plan import TEMPLATES, Plan
from config.show import toml_of
from dispatcher.client import Client

#: The latency of a provider that is well.
USUAL: Final = {"kind": "lognormal", "p50_ms": 20.0, "p99_ms": 60.0}
_SHARE: Final = re.compile(r'^dispatcher_provider_share\{provider="(\w+)"\} ([0-9.e+-]+)$', re.MULTILINE)
_OUTCOME: Final = re.compile(r'^dispatcher_outcomes_total\{(.*)\} ([0-9.e+]+)$', re.MULTILINE)
#: A stream of a lane that is overloaded tenfold ends long after its last trigger was sent.
FINISH_S: Final = 300.0


class Load:
    """A load generator in a process of its own."""

    def __init__(self, plan: Plan, process: asyncio.subprocess.Process, out: Path) -> None:
        self.plan = plan
        self._process = process
        self._out = out

    async def report(self) -> Report:
        """Once it has sent everything and was answered."""
        if await self._process.wait():
            raise RuntimeError("a load generator failed")
        return msgspec.json.decode(self._out.read_bytes(), type=Report)


class Rig:
    """A running dispatcher, its simulator, and what trials ask of them."""

    def __init__(self, up: Child, simulator: Child, session: aiohttp.ClientSession, place: Path) -> None:
        self.up = up
        self.simulator = simulator
        self.place = place
        self._session = session
        self._loads = 0

    async def load(self, plan: Plan, connections: int = 2) -> Load:
        """Begin to send a plan."""
        self._loads += 1
        out = self.place / f"load-{self._loads}.json"
        options = {
            "url": self.up.url, "rate": plan.rate, "seconds": plan.seconds, "users": plan.users, "seed": plan.seed,
            "mix": plan.mix, "line": plan.line, "connections": connections, "finish-s": FINISH_S, "out": out,
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.load", *arguments, stdout=asyncio.subprocess.DEVNULL
        )
        return Load(plan, process, out)

    async def behave(self, provider: str, **behaviour: Any) -> None:
        """From now on this provider behaves so."""
        await self._ask("PUT", f"{self.simulator.url}/p/{provider}/behaviour", behaviour)

    async def play(self, provider: str, scenario: str) -> None:
        """Begin a shipped scenario at this provider."""
        await self._ask("PUT", f"{self.simulator.url}/p/{provider}/scenario", {"name": scenario})

    async def journal(self) -> list[dict[str, Any]]:
        """What the providers received, by provider and message."""
        async with self._session.get(f"{self.simulator.url}/journal") as response:
            rows: list[dict[str, Any]] = msgspec.json.Decoder().decode_lines(await response.read())
            return rows

    async def stats(self) -> dict[str, dict[str, Any]]:
        """Counts of every provider."""
        found: dict[str, dict[str, Any]] = await self._ask("GET", f"{self.simulator.url}/stats")
        return found

    async def topology(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("GET", f"{self.up.url}/v1/topology")
        return found

    async def provider(self, name: str) -> dict[str, Any]:
        """`GET /v1/providers/{name}`."""
        found: dict[str, Any] = await self._ask("GET", f"{self.up.url}/v1/providers/{name}")
        return found

    async def backlog(self) -> dict[str, int]:
        """Messages accepted and not ended, by lane."""
        waiting: dict[str, int] = {}
        for actor in (await self.topology())["actors"]:
            for lane, n in actor.get("backlog", {}).items():
                waiting[lane] = waiting.get(lane, 0) + n
        return waiting

    async def outcomes(self) -> dict[str, int]:
        """How many messages ended how, by outcome, over all shards."""
        counts: dict[str, int] = {}
        for address in await self.targets("shard"):
            for labels, n in _OUTCOME.findall(await self._metrics(address)):
                outcome = re.search(r'outcome="(\w+)"', labels)
                assert outcome is not None
                counts[outcome[1]] = counts.get(outcome[1], 0) + int(float(n))
        return counts

    async def targets(self, role: str) -> list[str]:
        """Where the metrics of each process of this role are."""
        found = await self._ask("GET", f"{self.up.url}/v1/targets")
        return [target["targets"][0] for target in found if target["labels"]["role"] == role]

    async def share(self, provider: str, routers: Sequence[str]) -> list[float]:
        """The provider's share now by the word of each of these routers."""
        texts = await asyncio.gather(*(self._metrics(address) for address in routers))
        return [float(dict(_SHARE.findall(text)).get(provider, 0.0)) for text in texts]

    async def _metrics(self, address: str) -> str:
        async with self._session.get(f"http://{address}/metrics") as response:
            return await response.text()

    async def settled(self, accepted: int, patience_s: float = 120.0) -> dict[str, int]:
        """The outcomes, once so many messages have ended or patience has."""
        deadline = time.monotonic() + patience_s
        while True:
            counts = await self.outcomes()
            if sum(counts.values()) >= accepted or time.monotonic() > deadline:
                return counts
            await asyncio.sleep(0.2)

    async def rss_kib(self) -> dict[str, int]:
        """Resident memory of every process of the dispatcher: role and number of pid, or program."""
        names = {actor["pid"]: actor["name"] for actor in (await self.topology())["actors"] if "pid" in actor}
        found = {}
        for pid in (self.up.process.pid, *descendants(self.up.process.pid)):
            kib = rss_kib(pid)
            if kib is not None:
                found[names.get(pid, f"{command_of(pid)} {pid}")] = kib
        return found

    def kill(self) -> None:
        """SIGKILL to the dispatcher and all its processes."""
        for pid in (self.up.process.pid, *descendants(self.up.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _ask(self, method: str, url: str, body: Any = None) -> Any:
        async with self._session.request(method, url, json=body) as response:
            if response.status >= 400:
                raise RuntimeError(f"{method} {url}: {response.status} {await response.text()}")
            return await response.json()


async def until(condition: Callable[[], Awaitable[bool]], what: str, patience_s: float = 60.0) -> None:
    """Wait for an asynchronous condition by asking it."""
    deadline = time.monotonic() + patience_s
    while not await condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience_s:g} s in vain for {what}")
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def rig(
    place: Path,
    providers: Mapping[str, Mapping[str, Any]],
    users: int,
    addresses: Sequence[str] = ("sms",),
    **more: Any,
) -> AsyncIterator[Rig]:
    """Everything started, its users loaded, no rules. `providers`: documents without kind and options."""
    async with contextlib.AsyncExitStack() as stack:
        names = [part for name in providers for part in ("--provider", name)]
        simulator = await Child.start(["simulate", "--port", "0", *names], place / "simulate.log")
        stack.push_async_callback(simulator.stop)
        documents = {
            name: {
                "kind": "webhook",
                "channel": "sms",
                "options": {"url": f"{simulator.url}/p/{name}", "allow_private": True},
                **document,
            }
            for name, document in providers.items()
        }
        settings = {
            "http": {"port": 0}, "templates": TEMPLATES, "providers": documents, "rules": [],
            "lines": {"flood": {}, "trickle": {}}, "data_dir": str(place / "data"), **more,
        }  # fmt: skip
        (place / "trial.toml").write_text(toml_of(settings))
        up = await Child.start(["up", "--config", str(place / "trial.toml")], place / "up.log")
        stack.push_async_callback(up.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(Client(up.url))
        await client.put_users(
            (f"u{n}", {"addresses": {channel: [_address(channel, n)] for channel in addresses}}) for n in range(users)
        )
        yield Rig(up, simulator, session, place)


def _address(channel: str, n: int) -> Any:
    return {"token": f"token-{n}", "vendor": "fcm", "app": "app"} if channel == "push" else f"+86139{n:08d}"
