"""Whether a pool of senders holds its rate quota, and uses it: the whole dispatcher, for a minute each round.

More marketing messages are streamed than the quota lets go, with a code now and then. Two witnesses: each sender's own
word, at log level debug, of when its requests were surely in the kernel's hands (`actors.allowance.Permit`, by a clock
that all processes of the machine share), and the simulator's journal of what it received when. Windows are half-open
and begin at every event. In the second round a sender that leases is killed (SIGKILL) half-way, in the third the one
that lends.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console

from actors.demo.children import Child
from bench.report import RESULTS, header, write
from config.show import toml_of
from dispatcher.client import Client

PROVIDER: Final = "bench"
WARM_S: Final = 2.0
#: Messages a second for each that the quota lets go.
PRESSURE: Final = 1.3
JITTER_S: Final = 0.05  # on the way to the provider
CODE_EVERY_S: Final = 0.2
TEMPLATES: Final[dict[str, dict[str, Any]]] = {
    "code": {"type": "verification", "channels": [{"channel": "sms", "text": "code {n}"}]},
    "sale": {"type": "marketing", "channels": [{"channel": "sms", "text": "sale {n}"}]},
}
#: What `actors.allowance.Permit` says.
WROTE: Final = re.compile(r"sender (.+):(\d+) wrote (\d+) by ([0-9.]+)$")
Event = tuple[float, int]  # when, how many


class Line(Struct, array_like=True):
    """The part of a simulator's journal line that matters here."""

    provider: str
    at_s: float
    message: dict[str, Any]


class Round(Struct, frozen=True):
    """What one round came to. `average` is of the rate; `code_ms`: from the posting of a code to its reception."""

    name: str
    messages: int
    average: float
    code_p50_ms: float
    code_max_ms: float
    back_s: float | None = None  # from the kill to the first write of the killed sender's successor


class Outcome(Struct, frozen=True):
    """`at_writers`: the most messages in any second by the senders' word; `at_provider`: in any 0.95 s, received."""

    rate: float
    senders: int
    at_writers: int
    at_provider: int
    rounds: list[Round]


def busiest(events: Iterable[Event], window_s: float) -> int:
    """The most messages in any half-open window."""
    found = sorted(events)
    most = inside = first = 0
    for at_s, n in found:
        inside += n
        while found[first][0] <= at_s - window_s:
            inside -= found[first][1]
            first += 1
        most = max(most, inside)
    return most


def said(log: Path, provider: str = PROVIDER) -> list[tuple[int, float, int]]:
    """(sender, when by the monotonic clock, how many) of every request of that provider in a log."""
    with log.open(errors="replace") as lines:
        found = [match for line in lines if "wrote" in line and (match := WROTE.search(line.rstrip()))]
    return [(int(match[2]), float(match[4]), int(match[3])) for match in found if match[1] == provider]


def received(journal: Path) -> list[tuple[float, str]]:
    """(epoch seconds, message id) of every reception."""
    lines = msgspec.json.Decoder(Line).decode_lines(journal.read_bytes())
    return [(line.at_s, line.message["id"]) for line in lines]


def settings(rate: float, senders: int, place: Path, simulator: str) -> dict[str, Any]:
    """A dispatcher with one provider, at noon so that marketing may go."""
    provider = {
        "kind": "webhook",
        "channel": "sms",
        "rate_per_s": rate,
        "senders": senders,
        "options": {"url": f"{simulator}/p/{PROVIDER}", "allow_private": True, "reports_by": "id"},
    }
    return {
        "data_dir": str(place / "data"),
        "timezone": f"Etc/GMT{datetime.now(UTC).hour - 12:+d}",
        "http": {"port": 0},
        "log": {"level": "debug"},
        "templates": TEMPLATES,
        "providers": {PROVIDER: provider},
    }


class Rig:
    """A running dispatcher and what is known of its writes."""

    def __init__(self, up: Child, place: Path, session: aiohttp.ClientSession, rate: float) -> None:
        self.up, self.place, self.rate = up, place, rate
        self._session = session
        self._number = 0

    async def round(self, name: str, seconds: float, victim: int | None) -> Round:
        """Stream for so long, then wait until everything has been received."""
        streaming = asyncio.create_task(self._stream(seconds + WARM_S))
        coding = asyncio.create_task(self._codes(seconds + WARM_S))
        killing = asyncio.create_task(self._kill(victim, WARM_S + seconds / 2)) if victim is not None else None
        begun_s = time.time()
        sent, codes = await streaming, await coding
        killed_s = await killing if killing is not None else None
        rows = await self._all_received(set(sent) | set(codes))
        ours = [at_s for at_s, id_ in rows if begun_s + WARM_S <= at_s < begun_s + WARM_S + seconds]
        times = {id_: at_s for at_s, id_ in reversed(rows)}
        waits = sorted(times[id_] - at_s for id_, at_s in codes.items() if id_ in times)
        back_s = None
        if killed_s is not None:
            after = [at_s - killed_s for who, at_s, _ in said(self.place / "up.log") if who == victim]
            back_s = round(min((later for later in after if later > 0.5), default=-1.0), 2)
        return Round(
            name, len(ours), round(len(ours) / seconds / self.rate, 4), round(waits[len(waits) // 2] * 1e3, 1),
            round(waits[-1] * 1e3, 1), back_s,
        )  # fmt: skip

    async def _stream(self, seconds: float) -> list[str]:
        async with Client(self.up.url) as client:
            return [m.message async for r in client.stream(self._sales(seconds)) for m in r.messages if m.message]

    async def _sales(self, seconds: float) -> AsyncIterator[dict[str, Any]]:
        start_s = time.monotonic()
        for n in range(int(seconds * self.rate * PRESSURE)):
            if n % 20 == 0:
                await asyncio.sleep(max(0.0, start_s + n / self.rate / PRESSURE - time.monotonic()))
            yield self._trigger("sale")

    async def _codes(self, seconds: float) -> dict[str, float]:
        """Message ids of codes with their times of posting."""
        found: dict[str, float] = {}
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            at_s = time.time()
            async with self._session.post(f"{self.up.url}/v1/triggers", json=self._trigger("code")) as response:
                answer = await response.json()
            found.update({m["message"]: at_s for m in answer.get("messages", []) if m.get("message")})
            await asyncio.sleep(CODE_EVERY_S)
        return found

    def _trigger(self, template: str) -> dict[str, Any]:
        self._number += 1
        number = self._number
        to = {"sms": f"+86139{number:08d}"}
        return {"id": f"q-{number}", "to": to, "template": template, "params": {"n": str(number)}}

    async def _kill(self, number: int, after_s: float) -> float:
        """When, by the monotonic clock, the sender of that number was killed."""
        await asyncio.sleep(after_s)
        async with self._session.get(f"{self.up.url}/v1/topology") as response:
            actors = (await response.json())["actors"]
        [pid] = [actor["pid"] for actor in actors if actor["name"] == f"sender:{PROVIDER}:{number}"]
        os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    async def _all_received(self, ids: set[str]) -> list[tuple[float, str]]:
        """Every reception, once all of these are among them or for a while none more of them came."""
        left, since_s = len(ids) + 1, time.monotonic()
        while True:
            rows = received(self.place / "received")
            missing = len(ids - {id_ for _, id_ in rows})
            if missing < left:
                left, since_s = missing, time.monotonic()
            if missing == 0 or time.monotonic() > since_s + 10:  # the killed sender's last ones may never come
                return rows
            await asyncio.sleep(0.5)


async def measure(rate: float, senders: int, seconds: float, place: Path) -> Outcome:
    """All rounds on one dispatcher."""
    async with contextlib.AsyncExitStack() as stack:
        arguments = ["simulate", "--port", "0", "--provider", PROVIDER, "--journal", str(place / "received")]
        simulator = await Child.start(arguments, place / "simulate.log")
        stack.push_async_callback(simulator.stop)
        config = place / "bench.toml"
        config.write_text(toml_of(settings(rate, senders, place, simulator.url)))
        up = await Child.start(["up", "--config", str(config)], place / "up.log")
        stack.push_async_callback(up.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        rig = Rig(up, place, session, rate)
        rounds = [
            await rig.round(name, seconds, victim)
            for name, victim in (("steady", None), ("a borrower killed", senders - 1), ("the lender killed", 0))
        ]
        writers = [(at_s, n) for _, at_s, n in said(place / "up.log")]
        provider = [(at_s, 1) for at_s, _ in received(place / "received")]
        return Outcome(rate, senders, busiest(writers, 1.0), busiest(provider, 1.0 - JITTER_S), rounds)


def main() -> int:
    """0 when the quota was never exceeded and at least 97 % of it used in the round in which nobody was killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.quota", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each round (default 60)")
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--senders", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "quota.json")
    args = parser.parse_args()
    about = header()
    with tempfile.TemporaryDirectory() as place, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(args.rate, args.senders, args.seconds, Path(place)))
    write(args.out, about | {"seconds": args.seconds, "outcome": found})
    console = Console(highlight=False)
    for r in found.rounds:
        back = f"; back after {r.back_s:.1f} s" if r.back_s is not None else ""
        console.print(
            f"{r.name}: {r.messages:,} messages, {r.average:.1%} of the rate; codes after {r.code_p50_ms:.0f} ms "
            f"(median), {r.code_max_ms:.0f} ms (longest){back}"
        )
    console.print(
        f"most in any second at the senders: {found.at_writers}; in any {1 - JITTER_S:g} s at the provider: "
        f"{found.at_provider}; agreed: {found.rate:g}; written to {args.out}"
    )
    held = found.at_writers <= found.rate and found.at_provider <= found.rate
    return 0 if held and found.rounds[0].average >= 0.97 else 1


if __name__ == "__main__":
    sys.exit(main())
