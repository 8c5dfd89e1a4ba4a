"""`make bench-rules`: what one decision costs, with all shipped rules, against the same rules in a Redis Lua script.

Ours is what an admission does with one drafted message: `Admission._objection`, then `Moment.reserve`. Each is timed by
itself, clock included, in a process set up as an actor's is (the collector frozen and slowed). The rivals decide the
same messages for the same users, pipelined 256 deep, on an embedded Valkey of the same machine; a rival's time is the
whole run's wall time a message. Rounds take turns. Not in ours: the log, which a shard writes batch by batch; so one
of the rivals keeps nothing either.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from actors.embedded import EmbeddedValkey
from actors.host import spare_the_collector
from bench.cpu import cpu_s
from bench.crowd import LINES, NOW_MS, Crowd, Wanted, batches, params_of
from bench.lua import PASSED, Bare, Call, RedisPy, arguments_of, keys_of, script_of, state_of
from bench.report import RESULTS, header, write
from dispatcher.admission import Moment
from dispatcher.message import Message
from dispatcher.store.connection import Connection, connect

BATCH: Final = 256
SENDS: Final = 10
STRANGERS: Final = 10_000
GOAL_US: Final = 6.0
GOAL_RATIO: Final = 4.0


class Case(Struct, frozen=True):
    """One message that everybody gets, and passes every rule with."""

    name: str
    template: str
    task: str | None = None


CASES: Final = (
    Case("notice, level 3", "paid"),
    Case("notice, level 4", "tip"),
    Case("marketing with a task", "sale", "spring-sale"),
)


class Ours(Struct, frozen=True):
    """One round: microseconds of one decision and reservation."""

    median_us: float
    p99_us: float
    mean_us: float


class Theirs(Struct, frozen=True):
    """One round: microseconds a message, wall, and CPU of client and server."""

    wall_us: float
    client_us: float
    server_us: float


class Server:
    """A Valkey with one client, and the users as the script keeps them."""

    def __init__(self, name: str, valkey: EmbeddedValkey, connection: Connection, client: RedisPy | Bare) -> None:
        self.name = name
        self._valkey = valkey
        self._connection = connection
        self._client = client

    async def refill(self, script: str, states: dict[str, bytes]) -> str:
        """Everybody as at the start; returns the script's name."""
        await self._connection.flushall()
        users = list(states)
        for at in range(0, len(users), 1_000):
            await self._connection.mset({f"u:{user}": states[user] for user in users[at : at + 1_000]})
        return str(await self._connection.script_load(script))

    async def measure(self, sha: str, drafts: Sequence[Message], crowd: Crowd) -> Theirs:
        """Decide all messages; every one passes."""
        calendar = crowd.calendar

        def calls(messages: Sequence[Message]) -> list[Call]:
            return [(keys_of(m), arguments_of(m, NOW_MS, calendar)) for m in messages]

        parts = (calls(drafts[at : at + BATCH]) for at in range(0, len(drafts), BATCH))
        server, client, wall = cpu_s(self._valkey.pid or 0), time.process_time(), time.perf_counter()
        replies = await self._client.calls(sha, parts)
        wall, client = time.perf_counter() - wall, time.process_time() - client
        server = cpu_s(self._valkey.pid or 0) - server
        if set(replies) != {PASSED} or len(replies) != len(drafts):
            raise RuntimeError(f"{self.name}: rules {set(replies) - {PASSED}} objected to messages that pass")
        return Theirs(*(seconds / len(drafts) * 1e6 for seconds in (wall, client, server)))


@contextlib.asynccontextmanager
async def servers(place: Path) -> AsyncIterator[list[Server]]:
    """The rivals: on a store that keeps what it is told as ours does, with two clients, and one that keeps nothing."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for directory in ("kept", "lost"):
            valkey = EmbeddedValkey(place / directory)
            connection = connect(await valkey.start())
            stack.push_async_callback(valkey.stop)
            stack.push_async_callback(connection.aclose)
            bare = await Bare.open(str(valkey.socket))
            stack.push_async_callback(bare.close)
            if directory == "kept":
                found.append(Server("redis-py", valkey, connection, RedisPy(connection)))
                found.append(Server("bare socket", valkey, connection, bare))
            else:
                await connection.config_set("appendonly", "no")
                found.append(Server("bare socket, nothing kept", valkey, connection, bare))
        yield found


def everybody(case: Case, users: Sequence[str], rng: Random) -> list[Wanted]:
    """The case's message for every user, in an order of its own."""
    order = rng.sample(users, len(users))
    return [Wanted(user, case.template, LINES[0], case.task, params_of(rng)) for user in order]


def measure_ours(crowd: Crowd, wanted: Sequence[Wanted], batch: int = BATCH) -> Ours:
    """Decide all messages, drafted batch by batch."""
    clock, decide, times = time.perf_counter_ns, crowd.decide, []
    for some in batches(wanted, batch):
        moments: dict[int, Moment] = {}
        drafts = []
        for one in some:
            at = crowd.moment(one.user, NOW_MS)
            at = moments.setdefault(at.partition.id, at)
            drafts.append((at, crowd.draft(at, one)))
        for at, draft in drafts:
            start = clock()
            objection = decide(at, draft)
            times.append(clock() - start)
            if objection is not None:
                raise RuntimeError(f"{objection.rule} objected to a message that passes")
    times.sort()
    return Ours(times[len(times) // 2] / 1e3, times[len(times) * 99 // 100] / 1e3, statistics.fmean(times) / 1e3)


class Round(Struct, frozen=True):
    """One case, everybody once. `alternating`: ours with each message drafted just before it is decided, so that
    every decision finds the processor's caches full of something else, as in an admission."""

    ours: Ours
    alternating: Ours
    theirs: dict[str, Theirs]


async def measure(users: int, rounds: int, place: Path, progress: Progress) -> dict[str, list[Round]]:
    """All rounds of all cases, in turns."""
    rng = Random(7)
    crowd = Crowd()
    crowd.list_strangers(STRANGERS)
    names = [f"user-{n:07d}" for n in range(users)]
    states = {
        name: state_of(crowd.past(name, SENDS, rng)) for name in progress.track(names, description="users with a past")
    }
    known = crowd.users()
    spare_the_collector()
    script = script_of(crowd.catalog.rules)
    found: dict[str, list[Round]] = {case.name: [] for case in CASES}
    async with servers(place) as rivals:
        task = progress.add_task("rounds", total=rounds * len(CASES) * (1 + len(rivals)))
        for _ in range(rounds):
            for case in CASES:
                wanted = everybody(case, names, rng)
                crowd.forget(known)
                ours = measure_ours(crowd, wanted)
                crowd.forget(known)
                alternating = measure_ours(crowd, wanted, batch=1)
                progress.advance(task)
                crowd.forget(known)
                drafts = [crowd.draft(crowd.moment(one.user, NOW_MS), one).message for one in wanted]
                theirs = {}
                for rival in rivals:
                    sha = await rival.refill(script, states)
                    theirs[rival.name] = await rival.measure(sha, drafts, crowd)
                    progress.advance(task)
                found[case.name].append(Round(ours, alternating, theirs))
    return found


class Summary(Struct, frozen=True):
    """One case: ours in the best round with the span of all rounds' medians, the rivals' medians of rounds, and how
    many times longer each rival takes (means against means, medians of rounds)."""

    best: Ours
    best_alternating: Ours
    medians_us: tuple[float, float]
    rivals: dict[str, Theirs]
    ratios: dict[str, float]


def summary(rounds: Sequence[Round]) -> Summary:
    """Of one case's rounds."""
    best, alternating = (
        min((getattr(r, way) for r in rounds), key=lambda ours: ours.median_us) for way in ("ours", "alternating")
    )
    medians = [r.ours.median_us for r in rounds]
    mean_us = statistics.median(r.ours.mean_us for r in rounds)
    rivals = {
        name: Theirs(
            *(statistics.median(getattr(r.theirs[name], field) for r in rounds) for field in Theirs.__struct_fields__)
        )
        for name in rounds[0].theirs
    }
    ratios = {name: theirs.wall_us / mean_us for name, theirs in rivals.items()}
    return Summary(best, alternating, (min(medians), max(medians)), rivals, ratios)


def show(console: Console, summaries: dict[str, Summary]) -> None:
    """One row for us and each rival, for each case."""
    table = Table(
        title="one decision with all shipped rules, us a message",
        caption="ours: best round (medians of all rounds); CPU: client + server; times: the rival's wall over our mean",
    )
    for heading in ("case", "who", "median", "p99", "mean or wall", "CPU", "times"):
        table.add_column(heading, justify="left" if heading in ("case", "who") else "right")
    for case, s in summaries.items():
        low, high = s.medians_us
        table.add_row(case)
        for who, ours in ((f"ours ({low:.2f} to {high:.2f})", s.best), ("ours, drafting between", s.best_alternating)):
            table.add_row("", who, f"{ours.median_us:.2f}", f"{ours.p99_us:.2f}", f"{ours.mean_us:.2f}", "", "")
        for name, t in s.rivals.items():
            cpu = f"{t.client_us:.1f} + {t.server_us:.1f}"
            table.add_row("", name, "", "", f"{t.wall_us:.1f}", cpu, f"{s.ratios[name]:.1f}")
    console.print(table)
    met = all(s.best.median_us <= GOAL_US and min(s.ratios.values()) >= GOAL_RATIO for s in summaries.values())
    console.print(f"goal: median <= {GOAL_US:g} us, ratio >= {GOAL_RATIO:g}: {'met' if met else 'NOT met'}")


def main() -> int:
    """0 when the numbers were taken, whatever they are."""
    parser = argparse.ArgumentParser(prog="python -m bench.rules", description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "rules.json")
    args = parser.parse_args()
    console = Console()
    about = header()
    with (
        tempfile.TemporaryDirectory() as place,
        Progress(console=console, transient=True) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rounds = runner.run(measure(args.users, args.rounds, Path(place), progress))
    summaries = {case: summary(found) for case, found in rounds.items()}
    show(console, summaries)
    write(args.out, about | {"users": args.users, "sends": SENDS, "summaries": summaries, "rounds": rounds})
    console.print(f"written to {args.out}; load average {about['load_average']} at the start")
    return 0


if __name__ == "__main__":
    sys.exit(main())
