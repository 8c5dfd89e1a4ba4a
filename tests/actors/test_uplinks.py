"""What becomes of uplinks: the desk that hears them, and the forwarder that tells lines' webhooks."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from actors.forwarder import BEGIN_MS, GIVE_UP_MS, LEASE_MS, Forwarder
from actors.tally import Tally
from actors.uplinks import UplinkDesk
from channels.adapter import NotWritten, Reply, Request, Written
from dispatcher.http.ports import Unavailable
from dispatcher.report import Uplink
from dispatcher.store.errors import Away
from dispatcher.store.forwards import Added, Round
from dispatcher.uplink import Forward
from tests.actors.fakes import START_MS, Clock, play
from tests.http.memory import MemoryBlacklist, MemoryCatalog, MemoryIntake

NUMBER = "+8613800000000"
SECRET = "whsec_c2hhbGxub3RiZXNlZW4="
WAY = {"keywords": ["CX"], "url": "https://wallet.example.com", "secret": "env:S"}


class MemoryForwards:
    """One line's queue, with the store's rules."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.waiting: list[Forward] = []
        self.failures = 0
        self.due_ms = 0
        self.away = False
        self.full = False

    async def seen(self, identity: str) -> bool:
        return identity in self.known

    async def note(self, identity: str) -> None:
        self.known.add(identity)

    async def add(self, forward: Forward, identity: str | None) -> Added:
        if self.away:
            raise Away("away")
        if identity in self.known:
            return "repeated"
        if self.full:
            return "full"
        self.known |= {identity} if identity else set()
        self.waiting.append(forward)
        return "queued"

    async def take(self, now_ms: int, until_ms: int) -> Round | None:
        if not self.waiting or now_ms < self.due_ms:
            return None
        return Round("wallet", until_ms, self.failures, list(self.waiting))

    async def drop(self, forward: Forward) -> None:
        self.waiting.remove(forward)

    async def postpone(self, forward: Forward) -> None:
        self.waiting.remove(forward)
        self.waiting.append(forward)

    async def settle(self, taken: Round, due_ms: int, failures: int) -> None:
        assert taken.line == "wallet"
        self.due_ms, self.failures = due_ms, failures


class Kept:
    def __init__(self) -> None:
        self.kept: list[Uplink] = []

    async def add(self, uplinks: Sequence[Uplink]) -> None:
        self.kept += uplinks


class World:
    """A desk over memory. The line `wallet` owns CX; the provider `own` has a word of its own."""

    def __init__(self) -> None:
        self.store = Kept()
        self.forwards = MemoryForwards()
        self.catalog = MemoryCatalog()
        self.blacklist = MemoryBlacklist()
        self.intake = MemoryIntake()
        self.tally = Tally()
        self.desk = UplinkDesk(
            cast(Any, self.store), cast(Any, self.forwards), self.catalog, self.blacklist, self.intake,
            "CN", {"WORDS": "0000"}, self.tally, lambda: START_MS,
        )  # fmt: skip

    async def fill(self) -> None:
        await self.put("lines", "wallet", {"uplinks": WAY})
        await self.put("lines", "loan", {})
        await self.put("lines", "broken", [])
        provider = {"kind": "webhook", "channel": "sms", "options": {"unsubscribe_words": "env:WORDS"}}
        await self.put("providers", "own", provider)

    async def put(self, kind: str, id_: str, document: Any) -> None:
        await self.catalog.put(kind, id_, msgspec.json.encode(document), "me", None)

    def counted(self, outcome: str, provider: str = "p") -> float:
        return self.tally.value("dispatcher_uplinks", (provider, outcome))

    def answered(self, status: str) -> float:
        return self.tally.value("dispatcher_uplink_answers", ("p", status))


def test_who_unsubscribes_is_on_the_blacklist_when_the_vendor_is_answered() -> None:
    async def main() -> None:
        world = World()
        await world.fill()
        leaving = Uplink("p", "sms", "13800000000", "td", key="k1")
        await world.desk.heard([leaving, Uplink("own", "sms", NUMBER, "TD"), Uplink("own", "sms", NUMBER, "0000")])
        assert len(world.store.kept) == 3
        entries = [msgspec.json.decode(doc) for doc in world.blacklist.docs.values()]
        assert sorted((entry["type"], entry["address"], entry["channel"]) for entry in entries) == [
            ("marketing", NUMBER, "sms"), ("notice_marketing", NUMBER, "sms"),
        ]  # fmt: skip
        assert (world.counted("unsubscribed"), world.counted("unsubscribed", "own")) == (1, 1)
        assert world.counted("kept", "own") == 1
        assert world.forwards.waiting == []
        world.blacklist.docs.clear()  # taken off again
        await world.desk.heard([leaving])
        assert world.blacklist.docs == {}
        assert world.counted("repeated") == 1
        await world.desk.heard([msgspec.structs.replace(leaving, key="k2")])
        assert len(world.blacklist.docs) == 2

    play(main())


def test_what_was_not_done_is_not_taken_for_done() -> None:
    async def main() -> None:
        world = World()
        await world.fill()
        leaving = Uplink("p", "sms", NUMBER, "TD", key="k1")
        world.blacklist.failure = Unavailable("catalog_spreading")
        with pytest.raises(Unavailable):
            await world.desk.heard([leaving])
        assert world.blacklist.docs == {}
        world.blacklist.failure = None
        await world.desk.heard([leaving])
        assert len(world.blacklist.docs) == 2
        world.forwards.away = True
        with pytest.raises(Unavailable, match="store_unavailable"):
            await world.desk.heard([Uplink("p", "sms", NUMBER, "CX")])

    play(main())


ANSWERING = {"kind": "webhook", "channel": "sms", "unsubscribe_answer": {"template": "bye", "line": "wallet"}}


def test_who_unsubscribes_is_answered_as_the_provider_says() -> None:
    async def main() -> None:
        world = World()
        await world.fill()
        await world.put("providers", "p", ANSWERING)
        leaving = Uplink("p", "sms", "13800000000", "td", key="k1")
        await world.desk.heard([leaving, Uplink("p", "sms", NUMBER, "CX"), Uplink("own", "sms", NUMBER, "0000")])
        [order] = world.intake.orders
        assert (order.template, order.line, order.to, order.channels) == ("bye", "wallet", {"sms": NUMBER}, ["sms"])
        await world.desk.heard([leaving])
        assert len(world.intake.orders) == 1
        again = [msgspec.structs.replace(leaving, key="k2"), Uplink("p", "sms", NUMBER, "TD")]
        world.intake.judge = lambda order: ("duplicate", None)  # as a shard says of an id that it knows
        await world.desk.heard(again)
        assert {order.id for order in world.intake.orders} == {order.id}
        assert (world.answered("accepted"), world.answered("duplicate")) == (1, 2)

    play(main())


def test_an_answer_that_no_shard_takes_is_tried_again_with_the_uplink() -> None:
    async def main() -> None:
        world = World()
        await world.fill()
        await world.put("providers", "p", ANSWERING)
        leaving = Uplink("p", "sms", NUMBER, "TD", key="k1")
        world.intake.judge = lambda order: ("overloaded", "outbox_full")
        with pytest.raises(Unavailable, match="outbox_full"):
            await world.desk.heard([leaving])
        assert len(world.blacklist.docs) == 2  # which does not wait for the answer
        assert world.forwards.known == set()
        world.intake.judge = lambda order: ("rejected", "template_not_active")  # nothing will ever take it
        await world.desk.heard([leaving])
        assert (world.answered("overloaded"), world.answered("rejected")) == (1, 1)
        assert world.counted("unsubscribed") == 1

    play(main())


def test_a_keyword_is_queued_for_its_owner_once() -> None:
    async def main() -> None:
        world = World()
        await world.fill()
        asked = Uplink("p", "sms", NUMBER, "cx 5", key="k1")
        await world.desk.heard([asked, asked, Uplink("p", "sms", NUMBER, "hello")])
        await world.desk.heard([asked])
        [forward] = world.forwards.waiting
        assert (forward.line, forward.keyword, forward.taken_ms, forward.uplink) == ("wallet", "CX", START_MS, asked)
        assert [world.counted(outcome) for outcome in ("queued", "repeated", "kept")] == [1, 2, 1]
        bare = Uplink("p", "sms", NUMBER, "CX")  # nothing tells one from the other
        await world.desk.heard([bare, bare])
        assert len({forward.id for forward in world.forwards.waiting}) == 3
        world.forwards.full = True
        await world.desk.heard([bare])
        assert world.counted("full") == 1
        assert len(world.forwards.waiting) == 3

    play(main())


# -- telling the webhook


class Wire:
    """Answers with what it is told to: a status, or an exception to raise."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answers: list[int | Exception] = []
        self.clock: Clock | None = None
        self.takes_ms = 0

    async def send(self, request: Request, timeout_s: float, watch: Any = None) -> Reply:
        self.asked.append(request)
        if self.clock is not None:
            self.clock.ms += self.takes_ms
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer, {}, b"")

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.asked]


class Post:
    """A forwarder over memory, with so many uplinks in its queue."""

    def __init__(self, count: int) -> None:
        self.forwards = MemoryForwards()
        self.catalog = MemoryCatalog()
        self.wire, self.private = Wire(), Wire()
        self.tally = Tally()
        self.clock = Clock()
        self.environ = {"S": SECRET}
        self.forwarder = Forwarder(
            cast(Any, self.forwards), cast(Any, self.catalog), cast(Any, self.wire), cast(Any, self.private),
            self.environ, self.tally, self.clock,
        )  # fmt: skip
        self.forwards.waiting = [
            Forward(f"u{n}", "wallet", "CX", START_MS, Uplink("p", "sms", NUMBER, f"CX {n}")) for n in range(count)
        ]

    async def line(self, way: Any) -> None:
        await self.catalog.put("lines", "wallet", msgspec.json.encode({"uplinks": way}), "me", None)

    def counted(self, outcome: str) -> float:
        return self.tally.value("dispatcher_forwards", ("wallet", outcome))


def test_what_fails_comes_again_last_and_later() -> None:
    async def main() -> None:
        post = Post(3)
        await post.line(WAY)
        post.wire.answers = [200, 503]
        assert await post.forwarder.turn()
        assert post.wire.ids() == ["u0", "u1"]
        assert not await post.forwarder.turn()
        post.clock.ms += 1_000
        post.wire.answers = [NotWritten("refused")]
        assert await post.forwarder.turn()
        assert post.wire.ids() == ["u0", "u1", "u2"]
        post.clock.ms += 1_999
        assert not await post.forwarder.turn()
        post.clock.ms += 1
        post.wire.answers = [204, Written("reset")]
        assert await post.forwarder.turn()
        assert post.wire.ids() == ["u0", "u1", "u2", "u1", "u2"]
        post.clock.ms += 1_000  # one was taken, so its failures begin anew
        assert await post.forwarder.turn()
        assert not await post.forwarder.turn()
        assert [post.counted(outcome) for outcome in ("delivered", "failed")] == [3, 3]
        assert post.private.asked == []

    play(main())


def test_nothing_is_tried_for_ever() -> None:
    async def main() -> None:
        post = Post(1)
        await post.line({**WAY, "allow_private": True})
        post.environ.clear()  # its secret is gone
        assert await post.forwarder.turn()
        assert post.counted("failed") == 1
        post.clock.ms += GIVE_UP_MS + 1
        assert await post.forwarder.turn()
        assert post.counted("given_up") == 1
        assert post.wire.asked == post.private.asked == []
        post.forwards.waiting = [Forward("u", "wallet", "CX", START_MS, Uplink("p", "sms", NUMBER, "CX"))]
        post.environ["S"] = SECRET
        post.clock.ms += 10_000
        assert await post.forwarder.turn()
        assert post.private.ids() == ["u"]

    play(main())


@pytest.mark.parametrize("way", [None, "no line"])
def test_a_line_that_wants_no_uplinks_any_more_gets_none(way: str | None) -> None:
    async def main() -> None:
        post = Post(2)
        if way is None:
            await post.line(None)
        assert await post.forwarder.turn()
        assert post.wire.asked == []
        assert (post.forwards.waiting, post.counted("unclaimed")) == ([], 2)

    play(main())


def test_no_request_begins_when_another_may_soon_have_the_line() -> None:
    async def main() -> None:
        post = Post(9)
        await post.line(WAY)
        post.wire.clock, post.wire.takes_ms = post.clock, 9_000
        assert await post.forwarder.turn()
        assert len(post.wire.asked) == BEGIN_MS // 9_000 + 1
        assert post.clock.ms - START_MS < LEASE_MS
        assert await post.forwarder.turn()  # at once, nothing has failed
        assert post.wire.ids() == [f"u{n}" for n in range(8)]

    play(main())
