"""The router as a plain class: scripted senders, fake clock, no Ray."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, cast

import msgspec
import pytest

from actors.follower import Follower
from actors.pool import GONE_S
from actors.ports import PeerGone
from actors.router import Router
from actors.tally import Tally
from channels.adapter import NotWritten, Reply, Request, Written
from dispatcher.calls import (
    Load,
    RecallAnswer,
    RecallCall,
    RouteAnswer,
    RouteCall,
    RouteGroup,
    SendAnswer,
    SendCall,
)
from dispatcher.catalog import Catalog
from dispatcher.documents import Match, Provider, Route, RouteProvider
from dispatcher.health import AUTH_PROBE_S, PROBE_S, ProviderHealth
from dispatcher.kinds import BULK, NORMAL, URGENT
from dispatcher.receipt import Answer, Receipt
from tests.actors import test_sender
from tests.support import run, until

#: The second element of these "messages" could not be decoded as one: a router that opened them would fail.
CLOSED = 7


def raw(id_: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode([id_, CLOSED]))


class FakeFollower:
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def reached(self, version: int) -> None: ...


class FakeSender:
    """Answers as scripted: takes `room` messages a call and says `answer` for them."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.answer: Answer = "accepted"
        self.room = 1_000
        self.reports = 1_000
        self.gone = False
        self.retry_after_s = 0.0
        self.calls: list[list[str]] = []
        self.attempts: list[int] = []
        self.known: dict[str, Receipt] = {}

    async def send(self, batch: bytes, /) -> bytes:
        await asyncio.sleep(0)
        if self.gone:
            raise PeerGone
        call = msgspec.msgpack.decode(batch, type=SendCall)
        ids = [msgspec.msgpack.decode(m)[0] for m in call.messages]
        if ids:
            self.calls.append(ids)
        self.attempts += call.attempts
        receipts = [
            Receipt(id_, self.answer, self.provider) if i < self.room else Receipt(id_, "refused")
            for i, id_ in enumerate(ids)
        ]
        return msgspec.msgpack.encode(
            SendAnswer(receipts, Load(self.provider, 1, 10, self.reports, 0.05, self.retry_after_s))
        )

    async def recall(self, batch: bytes, /) -> bytes:
        if self.gone:
            raise PeerGone
        call = msgspec.msgpack.decode(batch, type=RecallCall)
        return msgspec.msgpack.encode(RecallAnswer([self.known.get(id_) for id_ in call.ids]))

    @property
    def got(self) -> list[str]:
        return [id_ for call in self.calls for id_ in call]


class World:
    def __init__(self, providers: dict[str, int], routes: list[Route] | None = None, max_batch: int = 100) -> None:
        self.now_s = 1000.0
        self.pools = {id_: [FakeSender(id_) for _ in range(n)] for id_, n in providers.items()}
        self.catalog = Catalog()
        self.catalog.providers = {id_: Provider("webhook", "sms", max_batch=max_batch) for id_ in providers}
        self.catalog.routes = routes or []
        self.tally = Tally()
        self.router = Router(
            self.catalog,
            cast(Follower, FakeFollower()),
            lambda id_: cast(Any, self.pools.get(id_, [])),
            lambda: self.now_s,
            Random(5),
            self.tally,
        )

    async def route(self, *groups: RouteGroup, lane: int = NORMAL) -> list[Receipt]:
        answer = await self.router.route(msgspec.msgpack.encode(RouteCall(lane, list(groups))))
        receipts = msgspec.msgpack.decode(answer, type=RouteAnswer).receipts
        assert [r.id for r in receipts] == [msgspec.msgpack.decode(m)[0] for g in groups for m in g.messages]
        return receipts

    async def health(self) -> dict[str, ProviderHealth]:
        return msgspec.msgpack.decode(await self.router.health(b""), type=dict[str, ProviderHealth])


def group(ids: Sequence[str], channel: str = "sms", tried: Sequence[str] = (), attempt: int = 1025) -> RouteGroup:
    return RouteGroup(channel, "notice", "default", "t", None, attempt, list(tried), [raw(i) for i in ids])


def names(n: int, prefix: str = "m") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def answers(receipts: Sequence[Receipt]) -> Counter[str]:
    return Counter(r.answer for r in receipts)


def play(world: World, script: Callable[[], Awaitable[None]]) -> None:
    async def scene() -> None:
        before = asyncio.all_tasks()
        await world.router.start()
        await until(lambda: not world.router._pings, "every sender was asked")
        await script()
        await world.router.stop()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before

    run(scene())


def test_groups_of_one_route_travel_together() -> None:
    world = World({"a": 1})

    async def script() -> None:
        receipts = await world.route(group(["x", "y"]), group(["z"], attempt=2049))
        assert answers(receipts) == {"accepted": 3}
        assert world.pools["a"][0].calls == [["x", "y", "z"]]
        assert world.pools["a"][0].attempts == [1025, 1025, 2049]

    play(world, script)


def test_a_large_batch_is_divided_by_weight_in_full_requests() -> None:
    weighted = Route([RouteProvider("a", 3), RouteProvider("b", 1)], Match())
    world = World({"a": 1, "b": 1}, [weighted])

    async def script() -> None:
        await world.route(group(names(400)))
        assert (len(world.pools["a"][0].got), len(world.pools["b"][0].got)) == (300, 100)
        for _ in range(200):
            await world.route(group(names(10)))
        assert {len(call) for call in world.pools["b"][0].calls[1:]} == {10}
        assert 0.6 < len(world.pools["a"][0].got) / 2400 < 0.9
        shares = await world.health()
        assert (shares["a"].share, shares["b"].share) == (0.75, 0.25)
        gauge = next(f for f in world.tally.collect() if f.name == "dispatcher_provider_share")
        assert {s.labels["provider"]: s.value for s in gauge.samples} == {"a": 0.75, "b": 0.25}

    play(world, script)


def test_nobody_for_the_channel() -> None:
    world = World({"a": 1})

    async def script() -> None:
        receipts = await world.route(group(["x"], "email"), group(["y"]))
        assert [(r.answer, r.provider, r.code) for r in receipts] == [
            ("transient", "", "no_provider"),
            ("accepted", "a", None),
        ]

    play(world, script)


def test_tried_providers_come_last() -> None:
    world = World({"a": 1, "b": 1})

    async def script() -> None:
        for _ in range(20):
            assert (await world.route(group(["x"], tried=["a"])))[0].provider == "b"
        assert answers(await world.route(group(["x"], tried=["a", "b"]))) == {"accepted": 1}

    play(world, script)


def test_a_refused_part_goes_to_the_other_sender_then_comes_back() -> None:
    world = World({"a": 2})
    one, other = world.pools["a"]

    async def script() -> None:
        one.room = other.room = 30
        receipts = await world.route(group(names(100)))
        assert answers(receipts) == {"accepted": 60, "refused": 40}
        assert len(set(one.got) & set(other.got)) == 70
        assert [(r.provider, r.code) for r in receipts if r.answer == "refused"] == [("", "full")] * 40
        # Both said they were full: nobody is asked until a moment has passed.
        calls = len(one.calls) + len(other.calls)
        assert answers(await world.route(group(["n"]))) == {"refused": 1}
        assert len(one.calls) + len(other.calls) == calls
        world.now_s += 0.003
        assert answers(await world.route(group(["n"]))) == {"accepted": 1}

    play(world, script)


def test_a_refused_part_goes_to_another_provider() -> None:
    pinned = Route([RouteProvider("a"), RouteProvider("b")], Match(), "pinned")
    world = World({"a": 1, "b": 1}, [pinned])
    world.pools["a"][0].room = 0

    async def script() -> None:
        receipts = await world.route(group(names(5)))
        assert {r.provider for r in receipts} == {"b"}

    play(world, script)


def test_a_full_bulk_lane_leaves_urgent_alone() -> None:
    world = World({"a": 1})
    sender = world.pools["a"][0]

    async def script() -> None:
        sender.room, sender.retry_after_s = 0, 0.5
        assert answers(await world.route(group(["b"]), lane=BULK)) == {"refused": 1}
        sender.room = 10
        assert answers(await world.route(group(["u"]), lane=URGENT)) == {"accepted": 1}
        assert answers(await world.route(group(["b"]), lane=BULK)) == {"refused": 1}
        world.now_s += 0.5
        assert answers(await world.route(group(["b"]), lane=BULK)) == {"accepted": 1}

    play(world, script)


def test_a_sender_that_is_gone_makes_unknown_once_and_is_asked_first() -> None:
    world = World({"a": 1})
    sender = world.pools["a"][0]

    async def script() -> None:
        sender.gone = True
        receipts = await world.route(group(["x", "y"]))
        assert [(r.answer, r.provider, r.code) for r in receipts] == [("unknown", "a", "sender_gone")] * 2
        assert [(r.answer, r.code) for r in await world.route(group(["z"]))] == [("transient", "provider_out")]
        world.now_s += GONE_S
        assert answers(await world.route(group(["z"]))) == {"transient": 1}
        await until(lambda: not world.router._pings, "asked in vain")
        sender.gone = False
        world.now_s += GONE_S
        assert answers(await world.route(group(["z"]))) == {"transient": 1}
        await until(lambda: not world.router._pings, "asked and answered")
        assert answers(await world.route(group(["z"]))) == {"accepted": 1}
        assert sender.calls == [["z"]]

    play(world, script)


def test_a_sender_that_breaks_the_contract_makes_unknown() -> None:
    world = World({"a": 1})

    async def nonsense(_: bytes, /) -> bytes:
        return msgspec.msgpack.encode(SendAnswer([], Load("a", 0, 1, 1)))

    world.pools["a"][0].send = nonsense  # type: ignore[method-assign]

    async def script() -> None:
        assert [(r.answer, r.code) for r in await world.route(group(["x"]))] == [("unknown", "router_error")]

    play(world, script)


@pytest.mark.parametrize("answer", ["transient", "unknown"])
def test_a_bad_provider_is_left_probed_and_comes_back(answer: Answer) -> None:
    world = World({"a": 1, "b": 1})
    sick = world.pools["a"][0]

    async def script() -> None:
        sick.answer = answer
        for k in range(40):
            await world.route(group(names(10, f"k{k}-")))
        lost = len(sick.got)
        assert lost <= 40
        assert (await world.health())["a"].breaker == "open"
        assert (await world.health())["a"].share == 0.0
        world.now_s += PROBE_S
        for k in range(20):
            await world.route(group(names(10, f"n{k}-")))
        assert len(sick.got) == lost + 1
        sick.answer = "accepted"
        world.now_s += PROBE_S
        for k in range(60):
            await world.route(group(names(10, f"g{k}-")))
        assert len(sick.got) > lost + 100
        assert (await world.health())["a"].breaker == "closed"

    play(world, script)


def test_auth_takes_a_provider_out_and_messages_wait() -> None:
    world = World({"a": 1})
    sender = world.pools["a"][0]

    async def script() -> None:
        sender.answer = "auth"
        assert answers(await world.route(group(["x"]))) == {"auth": 1}
        receipts = await world.route(group(["x", "y"]))
        assert {(r.answer, r.code) for r in receipts} == {("transient", "provider_out")}
        assert (await world.health())["a"].reason == "auth"
        world.now_s += AUTH_PROBE_S
        sender.answer = "accepted"
        receipts = await world.route(group(["x", "y"]))
        assert [(r.answer, r.code) for r in receipts] == [("accepted", None), ("transient", "provider_out")]
        assert answers(await world.route(group(["y"]))) == {"accepted": 1}

    play(world, script)


def test_roomier_senders_get_more() -> None:
    world = World({"a": 2})
    roomy, tight = world.pools["a"]
    roomy.reports, tight.reports = 1_000, 10

    async def script() -> None:
        for k in range(20):
            await world.route(group(names(5, f"k{k}-")))
        assert len(roomy.calls) >= 18

    play(world, script)


def test_recall_asks_everyone_and_keeps_what_says_most() -> None:
    world = World({"a": 2, "b": 1})
    one, two, three = *world.pools["a"], *world.pools["b"]

    async def script() -> None:
        one.known = {"x": Receipt("x", "transient", "a"), "y": Receipt("y", "unknown", "a")}
        two.gone = True
        three.known = {"x": Receipt("x", "accepted", "b"), "y": Receipt("y", "transient", "b")}
        call = msgspec.msgpack.encode(RecallCall(["x", "y", "z"], [1, 1, 1]))
        known = msgspec.msgpack.decode(await world.router.recall(call), type=RecallAnswer).receipts
        assert [r and (r.answer, r.provider) for r in known] == [("accepted", "b"), ("unknown", "a"), None]

    play(world, script)


def test_a_catalog_change_moves_the_routes() -> None:
    world = World({"a": 1, "b": 1}, [Route([RouteProvider("a")])])

    async def script() -> None:
        assert (await world.route(group(["x"])))[0].provider == "a"
        world.catalog.routes = [Route([RouteProvider("b")])]
        for callback in world.catalog.on_change:
            callback("routes")
        assert (await world.route(group(["x"])))[0].provider == "b"
        assert await world.router.await_catalog(msgspec.msgpack.encode(3)) == b""

    play(world, script)


class Flaky(test_sender.Peer):
    """A provider that refuses, breaks, throttles and takes its time by a seeded coin."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.rng = rng

    async def send(self, request: Request, timeout_s: float) -> Reply:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        fate = self.rng.random()
        if fate < 0.1:
            raise NotWritten("scripted")
        if fate < 0.2:
            raise Written("scripted")
        self.says = test_sender.throttle if fate < 0.25 else test_sender.accept
        return Reply(200, {}, b"")


@pytest.mark.parametrize("seed", range(5))
def test_with_real_senders_every_message_gets_one_receipt_and_no_attempt_is_sent_twice(seed: int) -> None:
    rng = Random(seed)
    world = World({"a": 2, "b": 1}, max_batch=7)

    async def script() -> None:
        senders: dict[str, list[test_sender.World]] = {}
        for id_, n in {"a": 2, "b": 1}.items():
            senders[id_] = [test_sender.World(max_batch=7, concurrency=3) for _ in range(n)]
            for member in senders[id_]:
                member.peer = Flaky(rng)
                await member.sender.start()
            world.pools[id_] = cast(Any, [member.sender for member in senders[id_]])
        world.router._look_for_senders()

        async def push(k: int) -> None:
            waiting = [msgspec.Raw(msgspec.msgpack.encode(test_sender.message(f"k{k}-{i}"))) for i in range(30)]
            while waiting:
                part = RouteGroup("sms", "notice", "default", "t", None, 1025, [], waiting)
                receipts = await world.route(part, lane=k % 3)
                waiting = [m for m, r in zip(waiting, receipts, strict=True) if r.answer == "refused"]
                world.now_s += 0.5
                for member in (*senders["a"], *senders["b"]):
                    member.clock.s += 0.5
                await asyncio.sleep(0)

        await asyncio.gather(*(push(k) for k in range(12)))
        sent = Counter(id_ for members in senders.values() for member in members for id_ in member.peer.sent)
        assert sent
        assert max(sent.values()) == 1
        for member in (*senders["a"], *senders["b"]):
            await member.sender.drain()
            assert member.sender._stock.in_hand == member.sender._stock.waiting == 0

    play(world, script)


def test_a_new_sender_is_handed_nothing_before_it_answers() -> None:
    world = World({"a": 1})
    late = FakeSender("b")
    late.gone = True

    async def script() -> None:
        world.pools["b"] = [late]
        world.catalog.providers = {"b": Provider("webhook", "sms")}
        for callback in world.catalog.on_change:
            callback("providers")
        assert [(r.answer, r.code) for r in await world.route(group(["x"]))] == [("refused", "full")]
        await until(lambda: not world.router._pings, "asked in vain")
        assert answers(await world.route(group(["x"]))) == {"transient": 1}
        late.gone = False
        world.now_s += GONE_S
        await world.route(group(["x"]))
        await until(lambda: not world.router._pings, "asked and answered")
        assert answers(await world.route(group(["x"]))) == {"accepted": 1}

    play(world, script)
