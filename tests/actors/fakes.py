"""What an actor sees of the others, scripted: routers, shards, and a store that lives in memory and can be held up."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar, cast

import msgspec

from actors.ports import PeerGone
from actors.shard import Shard, ShardSettings, UserAnswer, UserCall
from actors.tally import Tally
from dispatcher.answers import STATUSES, Answers, SubmitCall
from dispatcher.calls import RecallAnswer, RecallCall, RouteAnswer, RouteCall
from dispatcher.catalog import Catalog
from dispatcher.deadletter import ReplayCall, Replayed
from dispatcher.entries import Entry, decode_entry
from dispatcher.ident import partition_of
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.store.append import Opened
from dispatcher.store.deadletters import Post
from dispatcher.store.errors import Away, Fenced
from dispatcher.trigger import Order
from tests.letters import MemoryLetters
from tests.support import run, until
from tests.worlds import ZONE, at, catalog_of

T = TypeVar("T")
PARTITIONS = 4
START_MS = at("2026-11-23T10:00:00")
_message_decoder = msgspec.msgpack.Decoder(Message)
_encode = msgspec.msgpack.encode


def play(scene: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
    """Run a scene; afterwards nothing it started may be left."""

    async def whole() -> T:
        before = asyncio.all_tasks()
        result = await scene
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"left behind: {left}"
        return result

    return run(whole(), timeout_s)


async def turns(n: int = 50) -> None:
    """Let everything that is ready run; nothing that waits for time or others gets further by it."""
    for _ in range(n):
        await asyncio.sleep(0)


class Clock:
    """Wall time that is moved by hand."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


# -- a router


class Routed:
    """One call of `route`, waiting for its script's answer."""

    def __init__(self, call: RouteCall) -> None:
        self.lane = call.lane
        self.groups = call.groups
        self.messages = [_message_decoder.decode(raw) for group in call.groups for raw in group.messages]
        self.attempts = [group.attempt for group in call.groups for _ in group.messages]
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    def answer(self, *answers: Answer, provider: str = "a", **more: Any) -> None:
        """One answer for each message; a single one is for all."""
        said = answers * len(self.messages) if len(answers) == 1 else answers
        self.say([
            Receipt(id_, word, "" if word == "refused" else provider, **more)
            for id_, word in zip(self.ids, said, strict=True)
        ])

    def say(self, receipts: Sequence[Receipt], doubtful: dict[str, list[int]] | None = None) -> None:
        self.answered.set_result(_encode(RouteAnswer(list(receipts), doubtful or {})))

    def died(self, **places: list[int]) -> None:
        """The senders of these names died with the messages at these places; the others were accepted."""
        doubtful = {place for some in places.values() for place in some}
        self.say(
            [
                Receipt(id_, "unknown", "a", code="sender_gone") if place in doubtful else Receipt(id_, "accepted", "a")
                for place, id_ in enumerate(self.ids)
            ],
            places,
        )

    def fail(self, error: Exception) -> None:
        self.answered.set_exception(error)


class ScriptedRouter:
    """A router peer: without `answers` every call waits for the test; otherwise the next of them is given at once."""

    name = "router:0"

    def __init__(self, answers: Answer | None = None) -> None:
        self.answers = answers
        self.calls: list[Routed] = []
        self.recalled: list[tuple[str, int]] = []
        self.known: dict[str, Receipt] = {}
        self.absent: set[str] = set()  # senders that do not answer a recall
        self.asked: list[str] = []  # the sender of each recall with messages; empty: everybody
        self.recall_failures: deque[Exception] = deque()
        self.deliveries: list[tuple[str, int, int]] = []
        self.late_calls: dict[int, asyncio.Future[bytes]] = {}  # token -> what is answered when it is asked for
        self.recalls = asyncio.Event()  # recalls are answered while it is set
        self.recalls.set()

    async def route(self, batch: bytes, /) -> bytes:
        call = Routed(msgspec.msgpack.decode(batch, type=RouteCall))
        self.calls.append(call)
        if self.answers is not None:
            call.answer(self.answers)
        return await call.answered

    async def late(self, batch: bytes, /) -> bytes:
        return await self.late_calls[msgspec.msgpack.decode(batch)]

    async def recall(self, batch: bytes, /) -> bytes:
        await self.recalls.wait()
        if self.recall_failures:
            raise self.recall_failures.popleft()
        call = msgspec.msgpack.decode(batch, type=RecallCall)
        self.recalled += zip(call.ids, call.attempts, strict=True)
        if call.ids:
            self.asked.append(call.sender)
        complete = call.sender not in self.absent if call.sender else not self.absent
        return _encode(RecallAnswer([self.known.get(id_) for id_ in call.ids], complete))

    async def reported(self, batch: bytes, /) -> bytes:
        self.deliveries += msgspec.msgpack.decode(batch, type=list[tuple[str, int, int]])
        return b""

    @property
    def messages(self) -> list[Message]:
        """Every message of every call, as often as it came."""
        return [message for call in self.calls for message in call.messages]

    async def call(self, number: int) -> Routed:
        """The call of this number, once it has come."""
        await until(lambda: len(self.calls) > number, f"call {number} of the router")
        return self.calls[number]


class Gone:
    """A peer that cannot be reached."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, batch: bytes, /) -> bytes:
        self.asked += 1
        raise PeerGone


# -- a store in memory


class MemoryStore:
    """What outlives a shard: logs, epochs, snapshots, profiles, dead letters."""

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[int, list[bytes]]]] = {}
        self.last: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.snapshots: dict[int, tuple[int, list[bytes]]] = {}
        self.profiles: dict[str, bytes] = {}
        self.letters = MemoryLetters()

    def entries(self) -> list[Entry]:
        """Everything in the logs."""
        return [decode_entry(entry) for rows in self.rows.values() for _, entries in rows for entry in entries]


class MemoryLog:
    """`dispatcher.store.log.Log` over a `MemoryStore`. While `held` nothing becomes durable; `release` makes it so."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._epochs: dict[int, int] = {}
        self._seqs: dict[int, int] = {}
        self._waiting: list[tuple[int, int, bytes, Post | None]] = []
        self._durable: asyncio.Future[None] | None = None
        self.held = False
        self.stalled_since: float | None = None
        self.stopped = False

    async def open(self, p: int) -> Opened:
        epoch = self._epochs[p] = self._store.epochs[p] = self._store.epochs.get(p, 0) + 1
        seq = self._seqs[p] = self._store.last.get(p, 0)
        return Opened(epoch, seq)

    def put(self, p: int, entry: bytes, letters: Post | None = None) -> None:
        self._seqs[p] += 1
        self._waiting.append((p, self._seqs[p], entry, letters))
        if not self.held:
            self.release()

    def durable(self) -> "asyncio.Future[None]":
        if self._waiting and self._durable is None:
            self._durable = asyncio.get_running_loop().create_future()
        if self._durable is not None:
            return asyncio.shield(self._durable)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def release(self) -> None:
        """What was put is durable now, or refused where there is a newer owner."""
        refused = set()
        for p, seq, entry, letters in self._waiting:
            if self._store.epochs[p] != self._epochs[p]:
                refused.add(p)
                continue
            self._store.rows.setdefault(p, []).append((seq, [entry]))
            self._store.last[p] = seq
            if letters is not None:
                self._store.letters.post(p, letters)
        self._waiting.clear()
        waiter, self._durable = self._durable, None
        if waiter is not None:
            if refused:
                waiter.set_exception(Fenced(sorted(refused)))
            else:
                waiter.set_result(None)

    async def flushed(self) -> None:
        await self.durable()

    def seal(self, p: int) -> int:
        return self._seqs[p]

    async def read(self, p: int, after: int, count: int) -> list[tuple[int, list[bytes]]]:
        return [row for row in self._store.rows.get(p, []) if row[0] > after][:count]

    async def stop(self) -> None:
        self.stopped = True
        await self.durable()


class MemorySnapshots:
    """`dispatcher.store.snapshots.Snapshots` over a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def write(self, p: int, epoch: int, seq: int, slices: AsyncIterator[bytes]) -> None:
        pieces = [piece async for piece in slices]
        if self._store.epochs[p] != epoch:
            raise Fenced([p])
        self._store.snapshots[p] = seq, pieces
        self._store.rows[p] = [row for row in self._store.rows.get(p, []) if row[0] > seq]

    async def load(self, p: int) -> tuple[int, AsyncIterator[bytes]] | None:
        found = self._store.snapshots.get(p)
        if found is None:
            return None

        async def pieces() -> AsyncIterator[bytes]:
            for piece in found[1]:
                yield piece

        return found[0], pieces()


class MemoryProfiles:
    """`dispatcher.store.profiles.ProfileStore` over a `MemoryStore`.

    Each call acts on the data when it comes, and answers when `gates` let it: a list of what the next calls wait for.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.away = False
        self.asked: list[list[str]] = []
        self.read_gates: deque[asyncio.Event] = deque()
        self.write_gates: deque[asyncio.Event] = deque()
        self.write_fails_after = False  # the write is done, its answer is lost

    async def get_many(self, users: Sequence[tuple[int, str]]) -> list[bytes | None]:
        self._check()
        self.asked.append([user for _, user in users])
        found = [self._store.profiles.get(user) for _, user in users]
        if self.read_gates:
            await self.read_gates.popleft().wait()
        return found

    async def put_many(self, users: Sequence[tuple[int, str, bytes]]) -> None:
        self._check()
        for p, user, data in users:
            assert p == partition_of(user, PARTITIONS)
            self._store.profiles[user] = data
        if self.write_fails_after:
            raise Away("the answer was lost")
        if self.write_gates:
            await self.write_gates.popleft().wait()

    async def delete(self, users: Sequence[tuple[int, str]]) -> None:
        self._check()
        for _, user in users:
            self._store.profiles.pop(user, None)

    def _check(self) -> None:
        if self.away:
            raise Away("away")


class MemoryFinds:
    """`dispatcher.store.finds.Finds` in a dictionary: provider -> key -> message. `batches`: keys of each write."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}
        self.batches: list[int] = []
        self.asked = 0
        self.away = False

    async def put(self, finds: Mapping[str, Mapping[str, str]], now_ms: int) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Away("away")
        for provider, by_key in finds.items():
            self.known.setdefault(provider, {}).update(by_key)
        self.batches.append(sum(len(by_key) for by_key in finds.values()))

    async def get(self, provider: str, wanted: Collection[str], now_ms: int) -> dict[str, str]:
        await asyncio.sleep(0)
        if self.away:
            raise Away("away")
        self.asked += 1
        known = self.known.get(provider, {})
        return {key: known[key] for key in wanted if key in known}


class FakeFollower:
    """A catalog that is always in step."""

    def __init__(self) -> None:
        self.waited_for: list[int] = []
        self.stopped = False

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    async def reached(self, version: int) -> None:
        self.waited_for.append(version)


# -- a shard among them


class House:
    """One shard on a store in memory, with one scripted router and a clock moved by hand."""

    def __init__(
        self,
        rules: Iterable[Any] = (),
        store: MemoryStore | None = None,
        answers: Answer | None = None,
        blacklist: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.store = store or MemoryStore()
        self.clock = Clock()
        self.router = ScriptedRouter(answers)
        self.log = MemoryLog(self.store)
        self.profiles = MemoryProfiles(self.store)
        self.finds = MemoryFinds()
        self.follower = FakeFollower()
        self.tally = Tally()
        self.catalog: Catalog = catalog_of(list(rules), blacklist=blacklist or {})
        everything: dict[str, Any] = {
            "number": 0, "shards": 1, "partitions": PARTITIONS, "timezone": ZONE, "region": "CN",
            "outbox_messages": 1_000, "parked_messages": 100, "windows": (100, 100, 100), "idempotency_s": 86_400.0,
            "idempotency_triggers": 100, "cache_users": 100, "snapshot_entries": 1_000_000, "snapshot_s": 1e9,
            "slice_users": 10,
        }  # fmt: skip
        self.shard = Shard(
            ShardSettings(**(everything | settings)),
            self.catalog,
            cast(Any, self.follower),
            cast(Any, self.log),
            cast(Any, MemorySnapshots(self.store)),
            cast(Any, self.profiles),
            [cast(Any, self.router)],
            self.clock,
            Random(7),
            self.tally,
            cast(Any, self.store.letters),
            cast(Any, self.finds),
        )
        self._number = 0

    def order(self, template: str = "notice", user: str = "u1", line: str = "wallet", **more: Any) -> Order:
        """An order to a phone of the user's own, with an id and an amount of its own."""
        self._number += 1
        n = str(self._number)
        more.setdefault("id", f"t{n}")
        more.setdefault("params", {"order": n, "amount": "1", "n": n, "code": n, "what": n})
        more.setdefault("to", {"sms": phone_of(user)})
        return Order(identity=user, user=user, line=line, template=template, **more)

    async def submit(self, *orders: Order, want: int = 0, resend: bool = False) -> "Told":
        """One group of orders in, what was said of them out."""
        batch = _encode(SubmitCall([list(orders)], want, resend))
        [answers] = msgspec.msgpack.decode(await self.shard.submit(batch), type=list[Answers])
        return Told(answers)

    async def replay(self, *ids: str, ttl_ms: int | None = None) -> Replayed:
        """Send the dead letters of these messages again."""
        batch = _encode(ReplayCall(list(ids), ttl_ms))
        return msgspec.msgpack.decode(await self.shard.replay(batch), type=Replayed)

    async def ask(self, op: str, *users: tuple[str, bytes | None]) -> UserAnswer:
        return msgspec.msgpack.decode(
            await self.shard.users(_encode(UserCall(op, list(users)))), type=UserAnswer
        )

    def ends(self) -> list[tuple[str, str, bool, str | None]]:
        """`(message, outcome, refund, code)` of everything the logs say has ended."""
        return [
            (end.message, end.outcome, end.refund, end.code)
            for entry in self.store.entries()
            for end in getattr(entry, "ends", ())
        ]

    async def ended(self, n: int) -> list[tuple[str, str, bool, str | None]]:
        """The ends, once there are so many."""
        await until(lambda: len(self.ends()) >= n, f"{n} ends, not {self.ends()}")
        return self.ends()

    async def close(self) -> None:
        await self.shard.drain(b"")

    def die(self) -> None:
        """As a SIGKILL would: its tasks are gone, nothing else is told."""
        for task in [*self.shard.tenancy._tasks, *self.shard.pump._tasks, *self.shard._failed]:
            task.cancel()
        self.shard.pump.stopped = True
        for handle in (self.shard.pump._alarm, *self.shard.pump._timers):
            if handle is not None:
                handle.cancel()


class Told:
    """A shard's answer to one group."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.statuses = [STATUSES[number] for number in answers.statuses]
        self.bodies: list[Any] = [
            None if body is None else msgspec.json.decode(b"{" + body + b"}") for body in answers.bodies
        ]

    @property
    def messages(self) -> list[str]:
        """The ids of the messages that were accepted."""
        return [
            m["message"] for body in self.bodies if body for m in body["messages"] if m["status"] == "accepted"
        ]


def phone_of(user: str) -> str:
    """A phone number of this user's own."""
    return f"+86138{int.from_bytes(user.encode(), 'big') % 100_000_000:08d}"


def scene(
    *rules: Any, **how: Any
) -> Callable[[Callable[[House], Awaitable[None]]], None]:
    """Play a scene in a house of these rules and settings, opened before and drained afterwards."""

    def played(script: Callable[[House], Awaitable[None]]) -> None:
        async def whole() -> None:
            house = House(rules, **how)
            await house.shard.start()
            await script(house)
            house.log.held = False
            house.log.release()
            await house.close()

        play(whole())

    return played
