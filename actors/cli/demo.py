"""`dispatcher demo`: the whole system against simulated providers, with a live view and a checked summary."""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp
import msgspec
import uvloop
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from actors.demo import world
from actors.demo.audit import Check, audit
from actors.demo.children import Child, ChildError
from actors.demo.figures import Figures, read_figures
from actors.demo.view import View
from channels.simulator.journal import Record
from channels.simulator.scenario import names, shipped
from config.show import toml_of
from dispatcher.client import Client, Result, Summary

LOOK_S: Final = 0.5
LINE_S: Final = 5.0
SETTLE_S: Final = 60.0
SICK: Final = "sms-green"
SICKNESS: Final = "brownout"
HEALTHY: Final = {"error": 0, "latency": {"kind": "lognormal", "p50_ms": 15, "p99_ms": 60}}

EXAMPLE: Final = '{"user": "u1", "template": "login_code", "line": "wallet", "params": {"code": "4711"}}'

ABOUT = f"""\
Start everything on embedded defaults: three simulated SMS providers, two push
providers, 20,000 users; stream 200,000 triggers over HTTP; let one provider go
sick half way; then recount everything from the providers' journals. Exit code 1
when a single message was lost, doubled, or one too many. It lives where it is
about noon, so that marketing may be sent at any time you try it.

How it is sick is a scenario: {', '.join(names())}.
With some a provider takes messages, or may have, and says nothing; then those end
as `unknown`, verification codes go to another provider as well, and the checks
allow as many of both as there were requests without an answer.

  dispatcher demo             (make demo)
  dispatcher demo --keep      stays up afterwards (make demo KEEP=1)
  dispatcher demo --triggers 20000 --rate 2000
  dispatcher demo --scenario blackout      (make demo SCENARIO=blackout)
"""


def add_parser(commands: Any) -> None:
    """Options of `demo`."""
    parser = commands.add_parser(
        "demo", help="see it work", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triggers", type=int, default=200_000, help="how many to stream (default 200000)")
    parser.add_argument("--users", type=int, default=20_000, help="how many users to load (default 20000)")
    parser.add_argument("--rate", type=float, default=8_000, help="triggers a second, 0: no pause (default 8000)")
    parser.add_argument("--seed", type=int, default=7, help="of the traffic (default 7)")
    parser.add_argument("--port", type=int, default=0, help="of the HTTP server (default: a free one)")
    parser.add_argument(
        "--scenario", choices=names(), default=SICKNESS, metavar="NAME", help=f"how {SICK} is sick (default {SICKNESS})"
    )
    parser.add_argument("--keep", action="store_true", help="stay up after the summary until Ctrl-C")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when every check holds."""
    console = Console()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, tempfile.TemporaryDirectory() as place:
        try:
            return runner.run(_Demo(args, console, Path(place)).play())
        except ChildError as error:
            console.print(f"[red]{error}[/]")
            return 1


class _Demo:
    """One run of the demo."""

    def __init__(self, args: argparse.Namespace, console: Console, place: Path) -> None:
        self.args = args
        self.console = console
        self.place = place
        self.accepted: set[str] = set()
        self.summary = Summary()
        self.view = View(args.triggers)
        self.zone = world.noon_zone(datetime.now(UTC))
        self.unsure = False  # whether the sick provider leaves requests without an answer

    async def play(self) -> int:
        """Start, load, stream, check, stop."""
        async with contextlib.AsyncExitStack() as stack:
            simulator = await self._child(stack, "simulate", *_providers())
            session = await stack.enter_async_context(aiohttp.ClientSession())
            config = self._write_config(simulator.url, await _addresses(session, simulator.url))
            started = time.monotonic()
            with self.console.status("starting the dispatcher ..."):
                up = await self._child(stack, "up", "--config", str(config))
            took_s = time.monotonic() - started
            self.console.print(f"ready after {took_s:.1f} s at {up.url}, providers at {simulator.url}", soft_wrap=True)
            client = await stack.enter_async_context(Client(up.url))
            for name in (*world.SMS, *world.PUSH):
                await _behave(session, simulator.url, name, HEALTHY)
            await self._load_users(client)
            took_s = await self._stream(session, client, simulator.url, up.url)
            figures = await self._settled(session, up.url)
            records = await _journal(session, simulator.url)
            busy = self.args.triggers >= world.BUSY_UNTIL and self.args.users > len(world.BUSY)
            unsure = SICK if self.unsure else None
            checks = audit(self.accepted, records, figures, ZoneInfo(self.zone), busy, unsure)
            good = self._report(checks, figures, took_s)
            if self.args.keep:
                await self._stay(up.url, simulator.url)
            return 0 if good else 1

    async def _child(self, stack: contextlib.AsyncExitStack, command: str, *options: str) -> Child:
        child = await Child.start([command, *options], self.place / f"{command}.log")
        stack.push_async_callback(child.stop)
        return child

    def _write_config(self, simulator: str, addresses: dict[str, str]) -> Path:
        """An overlay file for `up`: the data goes to a folder of its own, the catalog is the demo's, and each provider
        is asked at its own port, which can refuse connections."""
        config = self.place / "demo.toml"
        settings = {
            "data_dir": str(self.place / "data"),
            "timezone": self.zone,
            "http": {"port": self.args.port},
        }
        documents = world.documents(simulator)
        for name, provider in documents["providers"].items():
            provider["options"]["url"] = addresses[name]
        config.write_text(toml_of(settings | documents))
        return config

    async def _load_users(self, client: Client) -> None:
        count = self.args.users
        with Progress(console=self.console) as progress:
            task = progress.add_task("loading users", total=count)

            def counted() -> Iterator[tuple[str, dict[str, Any]]]:
                for user in world.users(count):
                    progress.advance(task)
                    yield user

            loaded = await client.put_users(counted())
        if loaded.errors:
            raise ChildError(f"users were refused: {loaded.errors[:3]}")

    async def _stream(self, session: aiohttp.ClientSession, client: Client, simulator: str, url: str) -> float:
        start = time.monotonic()
        watcher = asyncio.create_task(self._watch(session, url))
        nurse = asyncio.create_task(self._fall_sick(session, simulator))
        try:
            async for result in client.stream(self._paced()):
                self._note(result)
        finally:
            self.summary = client.summary
            for task in (watcher, nurse):
                task.cancel()
            await asyncio.gather(watcher, nurse, return_exceptions=True)
        await _scenario(session, "DELETE", simulator)
        return time.monotonic() - start

    def _note(self, result: Result) -> None:
        if result.status == "accepted":
            self.accepted.update(m.message for m in result.messages if m.status == "accepted" and m.message)

    async def _paced(self) -> AsyncIterator[dict[str, Any]]:
        start, rate = time.monotonic(), self.args.rate
        for n, trigger in enumerate(world.triggers(self.args.triggers, self.args.users, self.args.seed)):
            if rate and not n % 200:
                await asyncio.sleep(max(0.0, start + n / rate - time.monotonic()))
            yield trigger

    async def _fall_sick(self, session: aiohttp.ClientSession, simulator: str) -> None:
        """Half way one provider goes sick, for a quarter of the run."""
        total = self.args.triggers
        await self.view.reached(total / 2)
        order = {"name": self.args.scenario, "repeat": True, "seed": self.args.seed}
        state = await _scenario(session, "PUT", simulator, order)
        self.unsure = state["leaves_unsure"]
        while self.view.answered < total * 3 / 4:
            self.view.note = f"{SICK} {state['note'] or 'is well for a moment'}"
            await asyncio.sleep(LOOK_S)
            state = await _scenario(session, "GET", simulator)
        await _scenario(session, "DELETE", simulator)
        self.view.note = f"{SICK} is well again"

    async def _watch(self, session: aiohttp.ClientSession, url: str) -> None:
        with contextlib.ExitStack() as stack:
            live = stack.enter_context(Live(console=self.console)) if self.console.is_terminal else None
            printed = time.monotonic()
            while True:
                self.view.look(await read_figures(session, url), time.monotonic())
                if live is not None:
                    live.update(self.view.picture())
                elif time.monotonic() - printed > LINE_S:
                    printed = time.monotonic()
                    self.console.print(self.view.line(), markup=False, highlight=False, soft_wrap=True)
                await asyncio.sleep(LOOK_S)

    async def _settled(self, session: aiohttp.ClientSession, url: str) -> Figures:
        deadline = time.monotonic() + SETTLE_S
        while True:
            figures = await read_figures(session, url)
            if figures.ended >= len(self.accepted) or time.monotonic() > deadline:
                return figures
            await asyncio.sleep(0.2)

    def _report(self, checks: list[Check], figures: Figures, took_s: float) -> bool:
        s = self.summary
        table = Table(title="What became of the triggers", show_header=False)
        for name in ("accepted", "filtered", "intercepted", "rejected", "duplicate", "overloaded"):
            table.add_row(name, f"{getattr(s, name):,}")
        for reason, n in sorted(s.reasons.items(), key=lambda item: -item[1]):
            table.add_row(f"  {reason}", f"{n:,}", style="dim")
        table.add_row("in all", f"{s.total:,} in {took_s:.1f} s, {s.total / took_s:,.0f}/s", style="bold")
        self.console.print(table)
        providers = Table(title="What providers answered")
        words = sorted({word for answers in figures.answers.values() for word in answers})
        for word in ("provider", *words):
            providers.add_column(word, justify="left" if word == "provider" else "right")
        for name, answers in sorted(figures.answers.items()):
            providers.add_row(name, *(f"{answers.get(word, 0):,.0f}" for word in words))
        self.console.print(providers)
        self.console.print(f"half way {SICK} went sick: {shipped(self.args.scenario).about}")
        verdict = Table(title="Recounted from the providers' journals")
        for column in ("", "must hold", "found"):
            verdict.add_column(column)
        for check in checks:
            verdict.add_row("[green]yes[/]" if check.holds else "[red]NO[/]", check.what, check.found)
        self.console.print(verdict)
        good = all(check.holds for check in checks) and s.total == self.args.triggers
        self.console.print("[green]every check holds[/]" if good else "[red]at least one check failed[/]")
        return good

    async def _stay(self, url: str, simulator: str) -> None:
        show_hints(self.console, url, simulator)
        stop = asyncio.Event()
        for number in (2, 15):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


def show_hints(console: Console, url: str, simulator: str) -> None:
    """Commands to paste: a line that the console broke would be another command."""
    console.print(
        f"\nstaying up; Ctrl-C ends it. Try:\n"
        f"  curl -s {url}/v1/topology\n"
        f"  curl -s {url}/metrics | grep ^dispatcher_\n"
        f"  curl -s -X POST {url}/v1/triggers -H 'content-type: application/json' \\\n"
        f"       -d '{EXAMPLE}'\n"
        f"  curl -s {simulator}/stats",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _providers() -> list[str]:
    names_of_all = (*world.SMS, *world.PUSH)
    return ["--port", "0", "--own-ports", *(option for name in names_of_all for option in ("--provider", name))]


async def _behave(session: aiohttp.ClientSession, simulator: str, name: str, how: dict[str, Any]) -> None:
    async with session.patch(f"{simulator}/p/{name}/behaviour", json=how) as response:
        response.raise_for_status()


async def _scenario(
    session: aiohttp.ClientSession, method: str, simulator: str, order: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Where the sick provider's scenario is, after it was asked for, looked at or stopped; empty without one."""
    async with session.request(method, f"{simulator}/p/{SICK}/scenario", json=order) as response:
        if method == "DELETE" and response.status == 404:  # the run ended before it
            return {}
        response.raise_for_status()
        state: dict[str, Any] = await response.json()
        return state


async def _addresses(session: aiohttp.ClientSession, simulator: str) -> dict[str, str]:
    """Each provider's own port."""
    async with session.get(f"{simulator}/providers") as response:
        return {name: one["url"] for name, one in (await response.json()).items()}


async def _journal(session: aiohttp.ClientSession, simulator: str) -> list[Record]:
    async with session.get(f"{simulator}/journal") as response:
        return msgspec.json.Decoder(Record).decode_lines(await response.read())
