"""Asking for delivery states: when, how many at a time, over which link, and that what was told arrives."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import pytest

from actors.allowance import Allowance
from actors.attempts import Attempts, Waiting
from actors.follower import Follower
from actors.link import Link
from actors.polling import PAUSE_S, Polling
from actors.sender import Sender
from actors.stock import Stock
from actors.tally import Tally
from channels import build
from channels.adapter import NotWritten, Reply, Request, Written
from channels.poll import AT_ONCE, STEPS_S, State
from channels.transport import Watch
from dispatcher.calls import SendAnswer, SendCall
from dispatcher.catalog import Catalog
from dispatcher.documents import Provider
from dispatcher.http.ports import Unavailable
from dispatcher.kinds import NORMAL
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink
from tests.actors.fakes import FakeFollower
from tests.channels.messages import message
from tests.channels.vendor import Heard, Vendor, vendor
from tests.support import run, until

NOW_MS = 1_800_000_000_000


class Clock:
    """Both clocks at once; nothing but `go` moves them."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> float:
        return (self.ms - NOW_MS) / 1000

    def go(self, to_s: float) -> None:
        """To so many seconds after the start."""
        self.ms = NOW_MS + round(to_s * 1000)


class Peer:
    """Adapter and transport in one, whose vendor is asked. `tells` scripts a question's answer, or raises."""

    def __init__(self, clock: Clock, account: str = "app") -> None:
        self.account = account
        self.clock = clock
        self.asked: list[tuple[float, str, list[str]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.tells: Callable[[str], Mapping[str, State] | int] = lambda ref: {}
        self.closed = 0

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        raise NotImplementedError

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        raise NotImplementedError

    def status_request(self, ref: str, addresses: Sequence[str], sent_s: float) -> Request:
        return Request("POST", "http://x", {}, json.dumps([ref, list(addresses)]).encode())

    def states(self, addresses: Sequence[str], reply: Reply) -> Mapping[str, State]:
        told = self.tells(reply.body.decode())
        assert not isinstance(told, int)
        return {address: state for address, state in told.items() if address in addresses}

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        ref, addresses = json.loads(request.body)
        self.asked.append((self.clock.now_s(), ref, addresses))
        if watch is not None:
            watch.begin()
        await self.open.wait()
        if watch is not None:
            watch.written()
        told = self.tells(ref)
        return Reply(told if isinstance(told, int) else 200, {}, ref.encode())

    async def close(self) -> None:
        self.closed += 1


class Deaf:
    """An adapter whose vendor is not asked."""

    request, receipts, send, close = Peer.request, Peer.receipts, Peer.send, Peer.close
    closed = 0


class House:
    """A `Polling` whose sleeps last no time, with everything around it. `refusals` are what its inbox raises next."""

    def __init__(self, rate_per_s: float | None = None) -> None:
        self.clock = Clock()
        self.stock = Stock(Attempts())
        self.allowance = Allowance("test", 0, None, self.clock.now_s)
        self.allowance.configure(rate_per_s, 1)
        self.peer = Peer(self.clock)
        self.link = self.to(self.peer)
        self.naps = 0
        self.heard: list[list[Report | Uplink]] = []
        self.refusals: list[Exception] = []
        self.polling = Polling(
            "p", self.inbox, self.stock, self.allowance, self.clock.now_ms, self.clock.now_s, self.nap
        )
        self.polling.use(self.link)

    def to(self, peer: Any) -> Link:
        return Link("p", (peer, peer), 5.0)

    async def nap(self, _: float) -> None:
        self.naps += 1
        await asyncio.sleep(0.001)

    async def inbox(self, items: Sequence[Report | Uplink]) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.heard.append(list(items))

    def sent(self, ref: str, *addresses: str, over: Link | None = None) -> None:
        batch = [message(f"{ref}-{to}", "push", to=to) for to in addresses]
        receipts = [Receipt(m.id, "accepted", "p", ref) for m in batch]
        self.polling.sent(over or self.link, batch, receipts)

    @property
    def asked(self) -> list[tuple[float, str, list[str]]]:
        return self.peer.asked

    async def looked(self) -> None:
        """Until every worker has looked whether something is due, and has found nothing to do."""
        naps = self.naps
        await until(lambda: self.naps > naps + 2 * AT_ONCE, "looks")


@contextmanager
def no_leaks() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() <= before


def play(script: Callable[[House], Awaitable[None]], rate_per_s: float | None = None) -> House:
    """Run a script, stop, and see that nothing is left behind."""

    async def scene() -> House:
        with no_leaks():
            house = House(rate_per_s)
            await script(house)
            await house.polling.stop()
            await house.link.retire()
        assert house.peer.closed == 1
        return house

    return run(scene())


def test_it_asks_at_every_step_until_each_address_has_a_final_state() -> None:
    steps: list[Mapping[str, State]] = [
        {"a": State("delivered"), "b": State("sent", "1"), "c": State("sent", "1")},
        {"b": State("undelivered", "2", dead=True)},
        {"c": State("delivered")},
    ]

    async def script(house: House) -> None:
        house.peer.tells = lambda ref: steps[len(house.asked) - 1]
        house.sent("r", "a", "b", "c")
        house.clock.go(STEPS_S[0] - 0.001)
        await house.looked()
        assert (house.asked, house.polling.waiting) == ([], 3)
        for n, step_s in enumerate(STEPS_S[:3], 1):
            house.clock.go(step_s)
            await until(lambda n=n: len(house.heard) == n, f"the reports of step {n}")  # type: ignore[misc]
        house.clock.go(STEPS_S[-1])
        await house.looked()

    house = play(script)
    assert house.asked == [(15.0, "r", ["a", "b", "c"]), (60.0, "r", ["b", "c"]), (300.0, "r", ["c"])]
    assert house.heard == [
        [Report("p", "delivered", id="r-a", to="a")],
        [Report("p", "undelivered", id="r-b", to="b", code="2", dead=True)],
        [Report("p", "delivered", id="r-c", to="c")],
    ]
    assert house.polling.waiting == 0


@pytest.mark.parametrize("failure", [NotWritten("away"), Written("timeout"), KeyError("a bug"), 429, 503])
def test_a_question_that_fails_is_asked_again_and_others_wait_a_while(failure: Exception | int) -> None:
    def tells(ref: str) -> Mapping[str, State] | int:
        if broken:
            if isinstance(failure, Exception):
                raise failure
            return failure
        return {"a": State("delivered")}

    broken = [True]

    async def script(house: House) -> None:
        house.peer.tells = tells
        house.sent("r", "a")
        house.clock.go(STEPS_S[0])
        await until(lambda: len(house.asked) == 1, "the first question")
        house.sent("s", "a")
        house.clock.go(STEPS_S[0] + STEPS_S[0])
        await until(lambda: len(house.asked) == 2, "another's")
        await house.looked()
        house.sent("t", "a")
        house.clock.go(STEPS_S[0] * 3)
        await until(lambda: len(house.asked) == 3, "after a pause")
        await house.looked()
        broken.clear()
        house.clock.go(STEPS_S[1] - 0.001)
        await house.looked()
        assert len(house.asked) == 3, "not before its next step"
        house.clock.go(STEPS_S[1])
        await until(lambda: len(house.heard) == 1, "what it asked again")

    house = play(script)
    assert [(at_s, ref) for at_s, ref, _ in house.asked] == [(15.0, "r"), (30.0, "s"), (45.0, "t"), (60.0, "r")]
    assert house.heard == [[Report("p", "delivered", id="r-a", to="a")]]


def test_nothing_is_asked_in_the_pause() -> None:
    async def script(house: House) -> None:
        house.peer.tells = lambda ref: 503
        house.sent("r", "a")
        house.clock.go(1)
        house.sent("s", "a")
        house.clock.go(STEPS_S[0])
        await until(lambda: len(house.asked) == 1, "one that fails")
        await house.looked()
        house.clock.go(STEPS_S[0] + PAUSE_S - 0.001)
        await house.looked()
        assert len(house.asked) == 1
        house.clock.go(STEPS_S[0] + PAUSE_S)
        await until(lambda: len(house.asked) == 2, "the other")

    play(script)


def test_reports_are_handed_over_until_they_are_kept() -> None:
    async def script(house: House) -> None:
        house.peer.tells = lambda ref: {"a": State("delivered")}
        house.refusals = [Unavailable("shard_unavailable"), Unavailable("recovering")]
        house.sent("r", "a")
        house.clock.go(STEPS_S[0])
        await until(lambda: len(house.heard) == 1, "the reports")
        house.refusals = [KeyError("a bug")]
        house.sent("s", "a")
        house.sent("t", "a")
        house.clock.go(STEPS_S[0] * 2)
        await until(lambda: len(house.heard) == 2, "what follows a bug")

    house = play(script)
    assert [ref for _, ref, _ in house.asked] == ["r", "s", "t"], "what was told is not asked for again"
    assert house.heard[0] == [Report("p", "delivered", id="r-a", to="a")]


def test_few_are_in_the_air_and_stopping_leaves_none() -> None:
    async def script(house: House) -> None:
        house.peer.open.clear()
        for n in range(AT_ONCE + 3):
            house.sent(f"r{n}", "a")
        house.clock.go(STEPS_S[0])
        await until(lambda: len(house.asked) == AT_ONCE, "questions in the air")
        await asyncio.sleep(0.02)
        assert len(house.asked) == AT_ONCE
        await house.link.retire()
        assert house.peer.closed == 0, "not while it is asked"
        await house.polling.stop()
        assert house.peer.closed == 1
        house.sent("late", "a")
        assert house.polling.waiting == AT_ONCE + 3, "nothing is taken any more"
        house.link = house.to(house.peer)
        house.peer.closed = 0

    play(script)


def test_a_stop_while_nobody_keeps_reports() -> None:
    async def script(house: House) -> None:
        house.refusals = [Unavailable("shard_unavailable")] * 1_000_000
        house.peer.tells = lambda ref: {"a": State("delivered")}
        house.sent("r", "a")
        house.clock.go(STEPS_S[0])
        await until(lambda: len(house.refusals) < 999_990, "many times")

    assert play(script).heard == []


def test_what_is_waited_for_survives_a_new_document_but_not_another_account() -> None:
    async def script(house: House) -> None:
        house.peer.tells = lambda ref: {"a": State("delivered")}
        house.sent("r", "a")
        old, house.link = house.link, house.to(house.peer)
        house.polling.use(house.link)
        house.sent("s", "a", over=old)  # was in the air meanwhile
        house.clock.go(STEPS_S[0])
        await until(lambda: len(house.heard) == 2, "both")

        house.sent("t", "a")
        house.polling.use(None)  # switched off
        house.clock.go(100)
        await house.looked()
        assert len(house.asked) == 2
        house.polling.use(house.link)
        await until(lambda: len(house.heard) == 3, "what was waited for all the time")

        house.sent("u", "a")
        other = Peer(house.clock, "another")
        house.polling.use(house.to(other))
        house.sent("v", "a")  # over the old link
        assert house.polling.waiting == 0
        house.polling.use(house.to(Deaf()))
        house.sent("w", "a")
        house.clock.go(1000)
        await house.looked()
        assert (other.asked, len(house.asked), house.polling.waiting) == ([], 3, 0)

    play(script)


def test_where_there_is_a_quota_a_question_counts_and_goes_after_all_messages() -> None:
    async def script(house: House) -> None:
        quota = house.allowance.quota
        assert quota is not None
        house.peer.tells = lambda ref: {"a": State("delivered")}
        for n in range(12):
            house.sent(f"r{n}", "a")
        waiting = Waiting(1, asyncio.get_running_loop().create_future())
        house.stock.put(NORMAL, message("m"), 1, waiting, 0)
        house.clock.go(STEPS_S[0])
        await house.looked()
        assert house.asked == [], "a message waits"
        slots = house.stock.pick(NORMAL, 1, 0)
        await until(lambda: len(house.asked) > 0, "now nothing does")
        house.stock.end(slots, [Receipt("m", "accepted")], 0.0)
        n = 0
        while len(house.heard) < 12:
            n += 1
            house.clock.go(STEPS_S[0] + n / 100)
            await house.looked()
        assert quota.pending == 0
        times = [at_s for at_s, _, _ in house.asked]
        for at_s in times:
            assert len([other for other in times if at_s <= other < at_s + 1]) <= 10
        assert times[-1] - times[0] == pytest.approx(1.1, abs=0.1)

    play(script, rate_per_s=10)


def test_nobody_is_asked_where_nobody_would_hear_of_it() -> None:
    async def script(house: House) -> None:
        polling = Polling("p", None, house.stock, house.allowance, house.clock.now_ms, house.clock.now_s)
        polling.use(house.link)
        polling.sent(house.link, [message()], [Receipt("m1", "accepted", "p", "r")])
        assert polling.waiting == 0
        house.polling.use(house.to(Deaf()))
        house.sent("r", "a")
        assert house.polling.waiting == 0
        assert len(asyncio.all_tasks()) == 1

    play(script)


# -- a sender, a vendor on a socket

ID = "1507bfd3a7c568d4761"


class Company:
    """A sender of kind `jpush` and its inbox."""

    def __init__(self, url: str, **fields: Any) -> None:
        self.clock = Clock()
        self.tally = Tally()
        self.heard: list[Report | Uplink] = []
        self.refusals = [Unavailable("shard_unavailable")]
        self.catalog = Catalog()
        options = {"app_key": "key", "master_secret": "env:S", "url": url}
        self.provider = Provider(kind="jpush", channel="push", options=options, **{"max_batch": 10, **fields})
        self.catalog.providers = {"p": self.provider}
        self.sender = Sender(
            "p", 0, self.catalog, cast(Follower, FakeFollower()), lambda id_, doc: build(id_, doc, {"S": "secret"}),
            self.clock.now_ms, self.clock.now_s, self.tally, inbox=self.inbox,
        )  # fmt: skip

    async def inbox(self, items: Sequence[Report | Uplink]) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.heard += items

    def change(self, **fields: Any) -> None:
        self.provider = msgspec.structs.replace(self.provider, **fields)
        self.catalog.providers = {"p": self.provider}
        for callback in self.catalog.on_change:
            callback("providers")

    async def send(self, *messages: Message) -> list[Receipt]:
        call = SendCall(NORMAL, [1] * len(messages), [msgspec.Raw(msgspec.msgpack.encode(m)) for m in messages])
        answer = await self.sender.send(msgspec.msgpack.encode(call))
        return list(msgspec.msgpack.decode(answer, type=SendAnswer).receipts)

    def waiting(self) -> float:
        family = next(f for f in self.tally.collect() if f.name == "dispatcher_polled_addresses")
        [sample] = family.samples
        assert sample.labels == {"provider": "p"}
        return sample.value


def push(id_: str, to: str) -> Message:
    return message(id_, "push", to=to, expires_ms=NOW_MS + 7 * 86_400_000)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and hand-overs follow at once."""
    monkeypatch.setattr("actors.polling.LOOK_S", 0.01)
    monkeypatch.setattr("actors.polling.AGAIN_S", 0.01)


@pytest.mark.usefixtures("hasty")
def test_a_sender_asks_jpush_and_hands_over_what_it_says() -> None:
    answers = iter([{ID: {"status": 1}, ID + "2": {"status": 1}}, {ID: {"status": 0}, ID + "2": {"status": 2}}])

    def aurora(heard: Heard) -> tuple[int, Any]:
        assert heard.headers["authorization"] == "Basic a2V5OnNlY3JldA=="
        if heard.path == "/v3/push":
            return 200, {"sendno": "18", "msg_id": "1828256757"}
        return 200, next(answers)

    async def scenario() -> None:
        async with vendor(aurora) as there:
            with no_leaks():
                company = Company(there.url)
                await company.sender.start()
                receipts = await company.send(push("m0", ID), push("m1", ID + "2"))
                assert [(r.answer, r.ref) for r in receipts] == [("accepted", "1828256757")] * 2
                assert company.waiting() == 2

                company.clock.go(STEPS_S[0])
                await until(lambda: len(there.to("/v3/status/message")) == 1, "the first question")
                company.change(max_batch=7)  # a new document, a new link
                company.clock.go(STEPS_S[1])
                await until(lambda: len(company.heard) == 2, "the reports")
                assert company.refusals == [], "they were refused at first"
                assert company.heard == [
                    Report("p", "delivered", id="m0", to=ID),
                    Report("p", "undelivered", id="m1", to=ID + "2", code="2", dead=True),
                ]
                [first, second] = there.to("/v3/status/message")
                assert first.json == second.json
                assert first.json == {"msg_id": 1828256757, "registration_ids": [ID, ID + "2"], "date": "2027-01-15"}
                assert company.waiting() == 0
                company.clock.go(STEPS_S[-1])
                assert [r.answer for r in await company.send(push("m2", ID))] == ["accepted"]
                await company.sender.drain()
                assert company.waiting() == 1, "died with the sender"

    run(scenario())


class Slow(Vendor):
    """It answers no question for states until it is `open`."""

    def __init__(self, script: Callable[[Heard], tuple[int, Any]]) -> None:
        super().__init__(script)
        self.open = asyncio.Event()

    async def _exchange(self, reader: asyncio.StreamReader) -> bytes:
        answer = await super()._exchange(reader)
        if self.requests[-1].path.endswith("/status/message"):
            await self.open.wait()
        return answer


@pytest.mark.usefixtures("hasty")
def test_no_message_waits_for_a_question() -> None:
    async def scenario() -> None:
        refs = iter(range(1000))
        there = Slow(lambda heard: (200, {"msg_id": str(next(refs))} if heard.path == "/v3/push" else {}))
        server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
        company = Company(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", concurrency=1)
        await company.sender.start()
        for n in range(AT_ONCE + 1):
            await company.send(push(f"m{n}", f"{ID}{n}"))
        company.clock.go(STEPS_S[0])
        await until(lambda: len(there.to("/v3/status/message")) == AT_ONCE, "as many questions as may be")
        receipts = await company.send(push("x", ID))
        assert [r.answer for r in receipts] == ["accepted"]
        assert len(there.to("/v3/status/message")) == AT_ONCE, "none was answered meanwhile"
        await company.sender.drain()
        there.open.set()
        server.close()

    run(scenario())
