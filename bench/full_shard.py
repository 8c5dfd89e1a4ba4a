"""A shard's state filled with users, in a process of its own: what a user costs in memory, how long a snapshot pauses.

`python -m bench.full_shard URL OUT USERS PARTITIONS`, started by `bench.state`. The process is set up as an actor's is.
The state is filled by `Partition.reserve` and `settle`, as a shard fills it; snapshots are the shard's own, written
through `Tenancy` to the store at URL; and the last figure is a recovery, `Tenancy.open` in the same process.
"""

import asyncio
import gc
import os
import sys
import time
from array import array
from pathlib import Path
from random import Random
from typing import Final

import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress

from actors.host import spare_the_collector, wall_ms
from actors.pump import Pump
from actors.shard import ShardSettings
from actors.tally import Tally
from actors.tenancy import Tenancy
from bench.crowd import DAY_MS
from config.load import load
from dispatcher.catalog import decode_document
from dispatcher.entries import End
from dispatcher.ident import message_id, partition_of, time_prefix, trigger_key
from dispatcher.message import Message
from dispatcher.outbox import Outbox
from dispatcher.partition import Partition, Shape, kind_of
from dispatcher.rulebook import Rulebook
from dispatcher.store.connection import connect
from dispatcher.store.log import Log
from dispatcher.store.snapshots import Snapshots

SENDS: Final = 3
#: (template, type, level, channel): what is sent. The first `LASTING` matter for a week, the others for a day.
SENT: Final = (
    ("sale", "marketing", 5, "sms"),
    ("news", "notice_marketing", 4, "email"),
    ("club", "marketing", 5, "wechat"),
    ("paid", "notice", 3, "sms"),
    ("due", "repayment", 2, "sms"),
    ("code", "verification", 1, "sms"),
    ("balance", "notice", 2, "push"),
)
LASTING: Final = 3
HOUR_MS: Final = 3_600_000
SPAN_MS: Final = 6 * DAY_MS
LINES: Final = ("wallet", "loan", "shop")
TICK_S: Final = 0.001


class Pause(Struct, frozen=True):
    """The longest time the loop did nothing else, milliseconds: wall, and how much of it this thread was computing."""

    wall_ms: float
    cpu_ms: float


class Filled(Struct, frozen=True):
    """What one process measured. `idle`: the longest pause of the loop while it had nothing to do, for comparison."""

    users: int
    partitions: int
    sends: int
    fill_s: float
    rss_before_bytes: int
    rss_after_bytes: int
    idle: Pause
    pause: Pause
    snapshot_s: float
    snapshot_bytes: int
    recovery_s: float

    @property
    def bytes_a_user(self) -> float:
        return (self.rss_after_bytes - self.rss_before_bytes) / self.users


class Ticker:
    """A task that wants to run every millisecond and notes when it could not."""

    def __init__(self) -> None:
        self._gaps: list[tuple[float, float]] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        at, cpu = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(TICK_S)
            now, now_cpu = time.perf_counter(), time.thread_time()
            if now - at > 5 * TICK_S:
                self._gaps.append((now - at, now_cpu - cpu))
            at, cpu = now, now_cpu

    async def longest(self) -> Pause:
        """Stop; returns the longest pause."""
        await asyncio.sleep(3 * TICK_S)  # the one that lasts until now, too
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        wall_s, cpu_s = max(self._gaps, default=(0.0, 0.0))
        return Pause(wall_s * 1e3, cpu_s * 1e3)


def rss_bytes() -> int:
    """This process's resident memory, as the kernel counts it."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settings_of(partitions: int) -> ShardSettings:
    """One shard with all partitions and shipped defaults."""
    config = load(None, {})
    return ShardSettings(
        number=0, shards=1, partitions=partitions, timezone=config.timezone, region=config.region,
        outbox_messages=config.outbox.max_messages, parked_messages=config.outbox.max_parked,
        windows=(config.window.urgent, config.window.normal, config.window.bulk),
        idempotency_s=config.idempotency.window_s, idempotency_triggers=config.idempotency.max_triggers,
        cache_users=config.profiles.cache_users, snapshot_entries=config.snapshot.entries,
        snapshot_s=config.snapshot.every_s, slice_users=config.snapshot.slice_users,
    )  # fmt: skip


def tenancy_of(url: str, partitions: int) -> Tenancy:
    """The shard's own keeper of partitions, on a real store, with nobody to send to."""
    redis = connect(url)
    tally = Tally()
    settings = settings_of(partitions)

    async def due(message: Message, number: int) -> None:
        raise AssertionError("nothing is parked here")

    pump = Pump(
        Outbox(settings.outbox_messages), [], settings.windows, lambda ticket, now_ms: None,
        lambda ended, now_ms: None, wall_ms, Random(0), tally,
    )  # fmt: skip
    return Tenancy(settings, Log(redis), Snapshots(redis), pump, due, wall_ms, tally)


def book() -> Rulebook:
    """The shipped rules."""
    return Rulebook(decode_document("rules", msgspec.json.encode(load(None, {}).rules)))


Shapes = dict[tuple[int, int, str], Shape]


def send(partitions: dict[int, Partition], shapes: Shapes, n: int, number_of: int, at_ms: int, what: int) -> None:
    """One send to user `n`, reserved and settled. `number_of`: the send's own number; `what` indexes `SENT`."""
    user = f"user-{n:07d}"
    number = partition_of(user, len(partitions))
    partition = partitions[number]
    line = LINES[number_of % len(LINES)]
    template, type_, level, channel = SENT[what]
    key, salt = trigger_key(line, f"t-{number_of}", user)
    message = Message(
        message_id(time_prefix(at_ms), salt, number, channel), f"t-{number_of}", user, channel, "+8613812345678", type_,
        level, 1, line, template, {"text": "x"}, {}, at_ms, at_ms, at_ms + DAY_MS, user=user,
        content=number_of * 2_654_435_761 & ((1 << 40) - 1), key=key,
    )  # fmt: skip
    shape = shapes.get((number, what, line))
    if shape is None:
        shape = shapes[number, what, line] = partition.shape(kind_of(message))
    partition.reserve(message, at_ms, shape)
    partition.settle(End(message.id, "sent", refund=False))


def fill(partitions: dict[int, Partition], users: int, now_ms: int, progress: Progress) -> None:
    """Everybody gets `SENDS` sends over the last six days, all in a random order: how a user grows among others decides
    how full the allocator's pages are. What is older than 23 hours is marketing, which rules look back at for a week.
    """
    total = users * SENDS
    order = array("I", range(total))
    Random(7).shuffle(order)
    shapes: Shapes = {}
    task = progress.add_task(f"{users:,} users, {len(partitions)} partitions", total=total)
    for done, place in enumerate(order):
        at_ms = now_ms - SPAN_MS + SPAN_MS * done // total
        what = done % (LASTING if at_ms < now_ms - 23 * HOUR_MS else len(SENT))
        send(partitions, shapes, place % users, done, at_ms, what)
        if not done % 20_000:
            progress.update(task, completed=done)
    progress.update(task, completed=total)


async def measure(url: str, users: int, partitions: int, progress: Progress) -> Filled:
    """Fill, weigh, write down, recover."""
    tenancy = tenancy_of(url, partitions)
    rules = book()
    await tenancy.open(rules)
    spare_the_collector()
    before = rss_bytes()
    began = time.perf_counter()
    fill(tenancy.partitions, users, wall_ms(), progress)
    fill_s = time.perf_counter() - began
    after = rss_bytes()
    if tenancy.users != users or any(p.in_flight or p.parked for p in tenancy.partitions.values()):
        raise RuntimeError("the state is not what was filled in")
    ticker = Ticker()
    await asyncio.sleep(1.0)
    idle = await ticker.longest()
    ticker = Ticker()
    began = time.perf_counter()
    for number in progress.track(tenancy.partitions, description="snapshots"):
        await tenancy.snapshot(number)
    snapshot_s = time.perf_counter() - began
    pause = await ticker.longest()
    await tenancy.close()
    recovered = tenancy_of(url, partitions)
    began = time.perf_counter()
    await recovered.open(rules)
    recovery_s = time.perf_counter() - began
    if recovered.users != users:
        raise RuntimeError(f"{recovered.users} users were recovered, not {users}")
    await recovered.close()
    return Filled(
        users, partitions, SENDS, fill_s, before, after, idle, pause, snapshot_s, await _stored_bytes(url, partitions),
        recovery_s,
    )  # fmt: skip


async def _stored_bytes(url: str, partitions: int) -> int:
    snapshots, total = Snapshots(connect(url)), 0
    for number in range(partitions):
        found = await snapshots.load(number)
        if found is not None:
            total += sum([len(piece) async for piece in found[1]])
    return total


def main() -> int:
    """Write what was measured as JSON."""
    url, out, users, partitions = sys.argv[1:]
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        filled = runner.run(measure(url, int(users), int(partitions), progress))
    Path(out).write_bytes(msgspec.json.encode(filled))
    return 0


if __name__ == "__main__":
    sys.exit(main())
