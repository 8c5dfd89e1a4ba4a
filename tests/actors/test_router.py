"""The router as a plain class: scripted senders, fake clock, no Ray."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, cast

import msgspec
import pytest

from actors.follower import Follower
from actors.pool import GONE_S, Pool, Seat
from actors.ports import PeerGone
from actors.router import TICK_S, Router
from actors.tally import Tally
from channels.adapter import NotWritten, Reply, Request, Written
from channels.transport import Watch
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
from dispatcher.vitals import Pulse, Vitals
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

    def __init__(self, provider: str, clock_s: Callable[[], float], number: int = 0) -> None:
        self.name = f"sender:{provider}:{number}"
        self.provider = provider
        self.complete = True
        self.answer: Answer = "accepted"
        self.room = 1_000
        self.reports = 1_000
        self.gone = False
        self.retry_after_s = 0.0
        self.unusable = False
        self.asked = 0  # calls without messages
        self.calls: list[list[str]] = []
        self.attempts: list[int] = []
        self.known: dict[str, Receipt] = {}
        self.took_s = 0.05
        self.clock_s = clock_s
        self.pulse = Pulse(clock_s())

    async def send(self, batch: bytes, /) -> bytes:
        await asyncio.sleep(0)
        if self.gone:
            raise PeerGone
        call = msgspec.msgpack.decode(batch, type=SendCall)
        ids = [msgspec.msgpack.decode(m)[0] for m in call.messages]
        if ids:
            self.calls.append(ids)
        else:
            self.asked += 1
        self.attempts += call.attempts
        receipts = [
            Receipt(id_, self.answer, self.provider) if i < self.room else Receipt(id_, "refused")
            for i, id_ in enumerate(ids)
        ]
        return msgspec.msgpack.encode(
            SendAnswer(
                receipts,
                Load(
                    self.provider, 1, 10, self.reports, 0.05, self.retry_after_s, False, self.unusable,
                    self._felt([r.answer for r in receipts if r.answer != "refused"]),
                ),
            )
        )  # fmt: skip

    def _felt(self, answers: list[Answer]) -> Vitals:
        now_s = self.clock_s()
        if answers:
            self.pulse.began(now_s - self.took_s)
            self.pulse.ended(self.took_s, answers, now_s)
        return self.pulse.vitals(now_s)

    async def recall(self, batch: bytes, /) -> bytes:
        if self.gone:
            raise PeerGone
        call = msgspec.msgpack.decode(batch, type=RecallCall)
        return msgspec.msgpack.encode(RecallAnswer([self.known.get(id_) for id_ in call.ids], self.complete))

    @property
    def got(self) -> list[str]:
        return [id_ for call in self.calls for id_ in call]


class World:
    def __init__(self, providers: dict[str, int], routes: list[Route] | None = None, max_batch: int = 100) -> None:
        self.now_s = 1000.0
        self.pools = {
            id_: [FakeSender(id_, lambda: self.now_s, number) for number in range(n)] for id_, n in providers.items()
        }
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
        return (await self.routed(*groups, lane=lane)).receipts

    async def routed(self, *groups: RouteGroup, lane: int = NORMAL) -> RouteAnswer:
        batch = await self.router.route(msgspec.msgpack.encode(RouteCall(lane, list(groups))))
        answer = msgspec.msgpack.decode(batch, type=RouteAnswer)
        assert [r.id for r in answer.receipts] == [msgspec.msgpack.decode(m)[0] for g in groups for m in g.messages]
        return answer

    async def routed_late(self, *groups: RouteGroup) -> RouteAnswer:
        """An answer in which some are late."""
        batch = await self.router.route(msgspec.msgpack.encode(RouteCall(NORMAL, list(groups))))
        return msgspec.msgpack.decode(batch, type=RouteAnswer)

    async def rest(self, token: int) -> RouteAnswer:
        return msgspec.msgpack.decode(await self.router.late(msgspec.msgpack.encode(token)), type=RouteAnswer)

    async def recall(self, ids: Sequence[str], sender: str = "") -> RecallAnswer:
        call = msgspec.msgpack.encode(RecallCall(list(ids), [1] * len(ids), sender))
        return msgspec.msgpack.decode(await self.router.recall(call), type=RecallAnswer)

    async def health(self) -> dict[str, ProviderHealth]:
        return msgspec.msgpack.decode(await self.router.health(b""), type=dict[str, ProviderHealth])


def group(
    ids: Sequence[str],
    channel: str = "sms",
    tried: Sequence[str] = (),
    attempt: int = 1025,
    type_: str = "notice",
    region: str | None = None,
) -> RouteGroup:
    return RouteGroup(channel, type_, "default", "t", region, attempt, list(tried), [raw(i) for i in ids])


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


def test_a_call_is_parted_by_what_senders_said_they_would_take() -> None:
    """What is refused comes back only with the receipts of the rest, so it is not even asked for."""
    world = World({"a": 3})
    rooms = [40, 0, 25]

    async def script() -> None:
        for sender, room in zip(world.pools["a"], rooms, strict=True):
            sender.reports = sender.room = room
        await asyncio.gather(*(world.route(group(["first"])) for _ in range(50)))
        world.now_s += 0.01
        for sender in world.pools["a"]:
            sender.calls.clear()
        receipts = await world.route(group(names(65)))
        assert answers(receipts) == {"accepted": 65}
        assert sorted(len(call) for sender in world.pools["a"] for call in sender.calls) == [25, 40]

    play(world, script)


def test_what_is_over_goes_to_the_sender_that_was_picked() -> None:
    pool = Pool()
    seats = [Seat(cast(Any, n)) for n in range(3)]
    for seat, room in zip(seats, (10.0, float("inf"), -3.0), strict=True):
        seat.gone, seat.room = False, [room] * 3
    pool.seats = seats[:1]
    assert pool.spread(50, seats[0], BULK, 0.0) == [(seats[0], 50)], "nobody else is there"
    pool.seats = seats
    assert pool.spread(10, seats[0], BULK, 0.0) == [(seats[0], 10)]
    assert pool.spread(50, seats[0], BULK, 0.0) == [(seats[0], 10), (seats[1], 40)]
    assert pool.spread(50, seats[0], BULK, 0.0, but=seats[1]) == [(seats[0], 50)]
    assert pool.spread(50, seats[2], BULK, 0.0) == [(seats[1], 50)]
    seats[1].room = [20.0] * 3
    assert pool.spread(50, seats[0], BULK, 0.0) == [(seats[0], 30), (seats[1], 20)]
    seats[1].tripped = True
    assert pool.spread(50, seats[0], BULK, 0.0) == [(seats[0], 50)]


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
        answer = await world.routed(group(["x", "y"]))
        assert [(r.answer, r.provider, r.code) for r in answer.receipts] == [("unknown", "a", "sender_gone")] * 2
        assert answer.doubtful == {"sender:a:0": [0, 1]}
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


def test_a_provider_that_cannot_be_used_is_out_before_any_message() -> None:
    world = World({"a": 1, "b": 1})
    sick = world.pools["a"][0]
    sick.unusable = True

    async def script() -> None:
        health = (await world.health())["a"]
        assert (health.breaker, health.reason, health.share) == ("open", "auth: configuration", 0.0)
        assert answers(await world.route(group(names(50)))) == {"accepted": 50}
        assert sick.got == []
        sick.unusable = False
        world.now_s += AUTH_PROBE_S
        assert answers(await world.route(group(names(50, "n")))) == {"accepted": 50}
        assert len(sick.got) == 1, "the probe"
        assert (await world.health())["a"].breaker == "closed"

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
        for k in range(100):  # its share returns step by step, within ten seconds
            await world.route(group(names(10, f"g{k}-")))
            world.now_s += 0.1
        assert len(sick.got) > lost + 200
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
        known = await world.recall(["x", "y", "z"])
        assert [r and (r.answer, r.provider) for r in known.receipts] == [("accepted", "b"), ("unknown", "a"), None]
        assert not known.complete, "one of them is gone"
        two.gone = False
        assert (await world.recall(["x", "y", "z"])).complete
        three.complete = False  # it cannot know what one before it sent
        assert not (await world.recall(["x"])).complete

    play(world, script)


def test_recall_of_one_sender_asks_it_alone() -> None:
    world = World({"a": 2, "b": 1})
    one, two, three = *world.pools["a"], *world.pools["b"]

    async def script() -> None:
        two.known = {"x": Receipt("x", "accepted", "a")}
        three.known = {"y": Receipt("y", "accepted", "b")}
        one.gone = three.gone = True
        known = await world.recall(["x", "y"], two.name)
        assert [r and r.provider for r in known.receipts] == ["a", None]
        assert known.complete
        for absent in (one.name, "sender:left:0"):
            answer = await world.recall(["x"], absent)
            assert (answer.receipts, answer.complete) == ([None], False)
        two.complete = False
        assert not (await world.recall(["x"], two.name)).complete

    play(world, script)


@pytest.mark.parametrize(("there", "doubtful"), [({"a": 1, "b": 1}, False), ({"a": 2}, False), ({"a": 1}, True)])
def test_a_code_is_not_in_doubt_where_somebody_else_can_take_it(there: dict[str, int], doubtful: bool) -> None:
    world = World(there, [Route([RouteProvider(id_) for id_ in there], mode="pinned")])

    async def script() -> None:
        for number, sender in enumerate(world.pools["a"]):
            sender.reports = 1_000 if number == 0 else 1  # the first is picked
        await world.route(group(["warm"]))
        await world.route(group(["warm"]))
        one = world.pools["a"][0]
        one.gone = True
        answer = await world.routed(
            group(["n0"]), group(["c0", "c1"], type_="verification"), group(["n1"]), lane=URGENT
        )
        while not answer.doubtful:  # of two senders, the other was picked
            answer = await world.routed(
                group(["n0"]), group(["c0", "c1"], type_="verification"), group(["n1"]), lane=URGENT
            )
        assert {(r.answer, r.code) for r in answer.receipts} == {("unknown", "sender_gone")}
        assert answer.doubtful == {one.name: [0, 1, 2, 3] if doubtful else [0, 3]}

    play(world, script)


def test_a_code_is_in_doubt_where_the_others_are_out() -> None:
    world = World({"a": 1, "b": 1}, [Route([RouteProvider("a"), RouteProvider("b")], mode="pinned")])

    async def script() -> None:
        world.pools["b"][0].answer = "auth"
        world.catalog.routes = [Route([RouteProvider("b")])]
        world.router._on_catalog("routes")
        assert answers(await world.route(group(["x"]))) == {"auth": 1}
        world.catalog.routes = [Route([RouteProvider("a"), RouteProvider("b")], mode="pinned")]
        world.router._on_catalog("routes")
        world.pools["a"][0].gone = True
        answer = await world.routed(group(["c"], type_="verification"), lane=URGENT)
        assert answer.doubtful == {"sender:a:0": [0]}

    play(world, script)


def test_the_answer_does_not_wait_for_a_dead_sender() -> None:
    """Nor do other providers' messages of the call: the shard asks after the dead one's."""
    world = World({"a": 1, "b": 1})
    world.pools["a"][0].gone = True

    async def script() -> None:
        world.router._pools["a"].seats[0].gone = False  # it died since it was last heard of
        answer = await world.routed(group(names(400)))
        assert answers(answer.receipts) == {"accepted": 200, "unknown": 200}
        [(sender, places)] = answer.doubtful.items()
        assert sender == "sender:a:0"
        assert [answer.receipts[place].answer for place in places] == ["unknown"] * 200

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

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
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
    late = FakeSender("b", lambda: world.now_s)
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


def test_a_sender_whose_requests_fail_alone_is_tried_with_single_messages() -> None:
    world = World({"a": 2})
    sick = world.pools["a"][0]

    async def script() -> None:
        sick.answer = "transient"
        for k in range(60):
            await world.route(group(names(10, f"k{k}-")))
        assert (await world.health())["a"].breaker == "closed", "the other one is well"
        lost = len(sick.got)
        world.now_s += PROBE_S
        receipts = [r for k in range(20) for r in await world.route(group(names(10, f"n{k}-")))]
        assert len(sick.got) == lost + 1
        assert answers(receipts) == {"accepted": 199, "transient": 1}
        sick.answer = "accepted"
        world.now_s += PROBE_S
        for k in range(60):
            await world.route(group(names(10, f"g{k}-")))
        assert len(sick.got) > lost + 100
        assert len(sick.calls[-1]) == 10

    play(world, script)


def test_a_new_router_takes_the_senders_word() -> None:
    world = World({"a": 1, "b": 1})
    sick, slow = world.pools["a"][0], world.pools["b"][0]

    async def script() -> None:
        for _ in range(30):
            slow._felt(["accepted"])
            sick._felt(["transient"])
            world.now_s += 0.1
        slow.took_s = 1.0
        for _ in range(30):
            slow._felt(["accepted"])
            world.now_s += 0.1
        before = (len(sick.calls), len(slow.calls))
        other = World({"a": 1, "b": 1})
        other.now_s = world.now_s
        other.pools = world.pools
        await other.router.start()
        await until(lambda: not other.router._pings, "every sender was asked")
        health = await other.health()
        assert (health["a"].breaker, health["a"].reason) == ("open", "errors")
        assert health["b"].score < 0.1
        assert health["b"].reason is not None
        assert health["b"].reason.startswith("latency ")
        assert (len(sick.calls), len(slow.calls)) == before, "no message was needed"
        await other.router.stop()

    play(world, script)


def test_senders_that_are_quiet_are_asked_while_there_is_traffic_and_no_longer() -> None:
    world = World({"a": 1, "b": 1}, [Route([RouteProvider("a")])])
    used, quiet = world.pools["a"][0], world.pools["b"][0]

    async def script() -> None:
        assert world.router._timer is None, "no traffic, no timer"
        begun = (used.asked, quiet.asked)
        for k in range(40):  # five seconds, a call and a look at every eighth of a second
            if k < 16:
                await world.route(group(names(1, f"k{k}-")))
            if world.router._timer is not None:
                world.router._timer.cancel()
                world.router._tick()
            await until(lambda: not world.router._pings, "asked")
            world.now_s += TICK_S
        assert quiet.asked - begun[1] == 19, "every quarter of a second, for two seconds and three more"
        assert used.asked - begun[0] <= 13, "its answers said it while there was traffic"
        assert world.router._timer is None

    play(world, script)


def test_what_a_sender_says_when_asked_is_believed() -> None:
    world = World({"a": 1, "b": 1}, [Route([RouteProvider("a")])])

    async def script() -> None:
        world.now_s += 1.0
        await world.route(group(["x"]))
        for _ in range(20):
            world.pools["b"][0]._felt(["transient"])
        world.router._tick()
        await until(lambda: not world.router._pings, "asked")
        assert (await world.health())["b"].breaker == "open"
        assert world.tally.value("dispatcher_provider_changes", ("b", "errors")) == 1
        world.pools["b"][0].gone = True
        world.now_s += 1.0
        world.router._tick()
        await until(lambda: not world.router._pings, "asked in vain")
        assert (await world.health())["b"].breaker == "closed", "what a dead sender said is forgotten"

    play(world, script)


def test_prices_count_by_region() -> None:
    world = World({"a": 1, "b": 1})
    world.catalog.providers = {
        "a": Provider("webhook", "sms", price={"CN": 0.03, "US": 0.02}),
        "b": Provider("webhook", "sms", price={"CN": 0.02, "US": 0.03}),
    }

    async def script() -> None:
        for callback in world.catalog.on_change:
            callback("providers")
        for k in range(100):
            groups = [group(names(10, f"{region}{k}-"), region=region) for region in ("CN", "US", "DE")]
            await world.route(*groups)
        got = Counter((id_[:2], sender.provider) for id_ in "ab" for sender in world.pools[id_] for id_ in sender.got)
        assert 0.9 < got["CN", "b"] / 1000 < 0.99
        assert 0.9 < got["US", "a"] / 1000 < 0.99
        assert 0.4 < got["DE", "a"] / 1000 < 0.6

    play(world, script)


def test_a_region_that_fails_at_one_provider_goes_to_the_other() -> None:
    world = World({"a": 1, "b": 1})
    sender = world.pools["a"][0]

    async def script() -> None:
        for k in range(100):
            now_s = world.now_s + k / 20
            sender.pulse.began(now_s)
            sender.pulse.ended(
                0.05, ["transient"] + ["accepted"] * 5, now_s, None, [("CN", "notice")] + [(None, "notice")] * 5
            )
        world.now_s += 5.0
        world.router._tick()
        await until(lambda: not world.router._pings, "asked")
        for k in range(50):
            await world.route(group(names(10, f"c{k}-"), region="CN"), group(names(10, f"d{k}-")))
        assert sum(id_.startswith("c") for id_ in sender.got) < 50
        assert 100 < sum(id_.startswith("d") for id_ in sender.got) < 300

    play(world, script)


def test_delivery_reports_count_towards_health_for_providers_there_are() -> None:
    async def main() -> None:
        world = World({"a": 1, "b": 1})
        await world.router.start()
        batch = msgspec.msgpack.encode([("a", 150, 200), ("b", 200, 200), ("gone", 0, 200)])
        assert await world.router.reported(batch) == b""
        health = await world.health()
        assert {id_: one.delivery_rate for id_, one in health.items()} == {"a": 0.75, "b": 1.0}
        await world.router.stop()

    run(main())


# -- late parts


def test_a_slow_provider_holds_up_nobody_else() -> None:
    world = World({"a": 1, "b": 1}, [Route([RouteProvider("a"), RouteProvider("b")], Match())], max_batch=1)

    async def script() -> None:
        slow = world.pools["a"][0]
        send, gate = slow.send, asyncio.Event()

        async def held(batch: bytes, /) -> bytes:
            await gate.wait()
            return await send(batch)

        slow.send = held  # type: ignore[method-assign]
        answer = await world.routed_late(group(names(40)))
        assert answer.late
        assert answer.token
        told = {n: receipt for n, receipt in enumerate(answer.receipts) if n not in answer.late}
        assert {(receipt.answer, receipt.provider) for receipt in told.values()} == {("accepted", "b")}
        gate.set()
        rest = await world.rest(answer.token)
        assert [receipt.id for receipt in rest.receipts] == [f"m{n}" for n in answer.late]
        assert {(receipt.answer, receipt.provider) for receipt in rest.receipts} == {("accepted", "a")}
        assert (await world.rest(answer.token)).receipts == [], "asked for once"

    play(world, script)


def test_a_slow_sender_that_dies_leaves_its_late_ones_in_doubt() -> None:
    world = World({"a": 1, "b": 1}, [Route([RouteProvider("a"), RouteProvider("b")], Match())], max_batch=1)

    async def script() -> None:
        gate = asyncio.Event()

        async def dies(batch: bytes, /) -> bytes:
            await gate.wait()
            raise PeerGone

        world.pools["a"][0].send = dies  # type: ignore[method-assign]
        answer = await world.routed_late(group(names(40)))
        assert answer.doubtful == {}
        gate.set()
        rest = await world.rest(answer.token)
        assert {receipt.answer for receipt in rest.receipts} == {"unknown"}
        assert rest.doubtful == {world.pools["a"][0].name: list(range(len(answer.late)))}

    play(world, script)
