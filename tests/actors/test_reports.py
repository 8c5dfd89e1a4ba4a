"""Delivery reports on their way: heard from a vendor, found, logged by the shard, told to the routers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.deliveries import Deliveries
from actors.ports import PeerGone
from actors.reports import LOOKS_S, ReportDesk
from actors.sender import Sender
from actors.tally import Tally
from actors.vendors import VendorDesk
from channels.standard_webhooks import sign, signing_key
from dispatcher.catalog import Catalog
from dispatcher.documents import Provider
from dispatcher.entries import Delivery, End, Reported, Settle
from dispatcher.http.ports import Unavailable, Untrue, VendorCall
from dispatcher.ident import message_id, place_of, time_prefix
from dispatcher.report import Report, ReportStatus, Uplink
from dispatcher.store.catalog import Versioned
from dispatcher.store.errors import Away
from tests.actors.fakes import (
    PARTITIONS,
    START_MS,
    FakeFollower,
    House,
    MemoryFinds,
    ScriptedRouter,
    play,
    scene,
    turns,
)
from tests.support import until

SECRET = "whsec_c2hhbGxub3RiZXNlZW4="


def id_of(partition: int, n: int = 0) -> str:
    return message_id(time_prefix(START_MS), f"{n:013d}", partition, "sms")


# -- at the shard


def acted(**how: Any) -> Callable[[Callable[[House], Awaitable[None]]], Callable[[], None]]:
    """The test that plays this scene."""
    return lambda script: lambda: scene(**how)(script)


async def said(house: House, *reports: Report) -> str | None:
    """What the shard answers."""
    answer = await house.shard.reported(msgspec.msgpack.encode(list(reports)))
    return msgspec.msgpack.decode(answer, type=str | None)


def logged(house: House) -> list[Delivery]:
    return [d for entry in house.store.entries() if isinstance(entry, Reported) for d in entry.reports]


def counted(house: House, status: str, provider: str = "a") -> float:
    return house.tally.value("dispatcher_reports", (provider, status))


@acted(answers="accepted")
async def test_a_report_is_in_the_log_when_it_is_answered(house: House) -> None:
    told = await house.submit(house.order())
    [message] = told.messages
    await house.ended(1)
    house.log.held = True
    answer = asyncio.create_task(said(house, Report("a", "delivered", message, code="DELIVRD", at_ms=7, segments=2)))
    await turns()
    assert not answer.done()
    house.log.release()
    assert await answer is None
    assert logged(house) == [Delivery(message, "delivered", "a", "DELIVRD", 7, 2)]
    assert counted(house, "delivered") == 1
    assert house.tally.value("dispatcher_reported_segments", ("a",)) == 2


@acted(answers="accepted")
async def test_the_first_final_report_counts_and_the_rest_is_repeated(house: House) -> None:
    message, other = id_of(1), id_of(2)
    said_: list[ReportStatus] = ["sent", "delivered", "sent", "undelivered", "delivered"]
    for status in said_:
        assert await said(house, Report("a", status, message)) is None
    assert await said(house, Report("a", "undelivered", other), Report("a", "undelivered", other)) is None
    assert [(d.message, d.status) for d in logged(house)] == [
        (message, "sent"), (message, "delivered"), (other, "undelivered"),
    ]  # fmt: skip
    counts = [counted(house, status) for status in ("sent", "delivered", "undelivered", "repeated")]
    assert counts == [1, 1, 1, 4]


@acted()
async def test_what_was_unknown_is_told_by_its_report(house: House) -> None:
    told = await house.submit(house.order())
    [message] = told.messages
    (await house.router.call(0)).answer("unknown")
    assert [outcome for _, outcome, _, _ in await house.ended(1)] == ["unknown"]
    await said(house, Report("a", "delivered", message))
    entries = [entry for entry in house.store.entries() if isinstance(entry, Settle | Reported)]
    assert [type(entry) for entry in entries] == [Settle, Reported]
    assert logged(house) == [Delivery(message, "delivered", "a")]


@acted(answers="accepted")
async def test_routers_are_told_together_and_at_the_end(house: House) -> None:
    reports = [Report("a", "delivered", id_of(n % 4, n)) for n in range(5)]
    reports += [Report("b", "undelivered", id_of(0, 9)), Report("a", "undelivered", id_of(0, 10))]
    for report in reports:
        await said(house, report)
    assert house.router.deliveries == []
    await house.shard.deliveries.stop()
    assert sorted(house.router.deliveries) == [("a", 5, 6), ("b", 0, 1)]


@acted(answers="accepted")
async def test_a_shard_that_cannot_take_it_says_why(house: House) -> None:
    assert await said(house, Report("a", "delivered", id_of(PARTITIONS))) == "moving"
    house.shard.draining = True
    assert await said(house, Report("a", "delivered", id_of(0))) == "draining"
    house.shard.draining = False
    house.store.epochs[0] += 1  # another owner
    house.log.held = True
    answer = asyncio.create_task(said(house, Report("a", "delivered", id_of(0))))
    await turns()
    house.log.release()
    assert await answer == "moving"
    assert logged(house) == []
    house.store.epochs[0] -= 1


@acted()
async def test_keys_of_receipts_are_written_together_and_wait_for_the_store(house: House) -> None:
    house.finds.away = True
    told = await house.submit(*[house.order(user=f"u{n}") for n in range(3)])
    call = await house.router.call(0)
    call.answer("accepted", find="k0")
    await house.ended(3)
    await turns()
    assert house.finds.known == {}
    house.finds.away = False
    await until(lambda: bool(house.finds.known), "the key")
    assert house.finds.known == {"a": {"k0": call.ids[-1]}}
    assert set(call.ids) == set(told.messages)


@acted(answers="accepted")
async def test_a_dead_address_is_marked_by_its_report(house: House) -> None:
    await house.ask("put", ("u1", b'{"addresses": {"sms": ["13800000001", "13800000002"]}}'))
    told = await house.submit(house.order(to=None))
    [message] = told.messages
    await house.ended(1)
    assert house.router.messages[0].to == "+8613800000001"
    await said(house, Report("a", "undelivered", message, code="MK:0001", dead=True))
    await until(lambda: b"dead" in house.store.profiles["u1"], "the mark")
    await house.submit(house.order(to=None))
    await house.ended(2)
    assert house.router.messages[1].to == "+8613800000002"


PUSH_FIRST = b'{"addresses": {"sms": ["13800000001"], "push": [{"token": "t1"}, {"token": "t2"}, {"token": "t3"}]}}'


@acted()
async def test_devices_end_one_by_one_and_the_next_channel_waits_for_the_last(house: House) -> None:
    await house.ask("put", ("u1", PUSH_FIRST))
    for refused in (["t1"], ["t1", "t2", "t3"]):
        calls = len(house.router.calls)
        await house.submit(house.order("either", to=None))
        call = await house.router.call(calls)
        assert [m.to for m in call.messages] == ["t1", "t2", "t3"]
        call.answer(*["rejected" if m.to in refused else "accepted" for m in call.messages])
        await house.ended(3 if refused == ["t1"] else 6)
        await turns()
        if refused == ["t1"]:
            assert len(house.router.calls) == 1
            assert house.store.letters.all() == []
    fallen = await house.router.call(2)
    assert [(m.channel, m.to) for m in fallen.messages] == [("sms", "+8613800000001")]
    fallen.answer("accepted")
    await house.ended(7)
    await turns()
    assert house.store.letters.all() == []  # another channel took over


@acted()
async def test_only_the_dead_token_is_marked_and_the_last_failure_leaves_the_letter(house: House) -> None:
    await house.ask("put", ("u1", PUSH_FIRST))
    await house.submit(house.order("both", to=None, channels=["push"]))
    call = await house.router.call(0)
    call.answer("accepted", "invalid_recipient", "accepted")
    await until(lambda: b"dead" in house.store.profiles["u1"], "the mark")
    assert msgspec.json.decode(house.store.profiles["u1"])["dead"] == ["t2"]
    assert house.store.letters.all() == []
    await house.submit(house.order("both", to=None, channels=["push"]))
    again = await house.router.call(1)
    assert [m.to for m in again.messages] == ["t1", "t3"]
    again.answer("rejected")
    await house.ended(5)
    assert [letter.message.id for letter in house.store.letters.all()] == [again.ids[1]]
    told = await house.replay(again.ids[1])
    assert told.replayed == 1
    alone = await house.router.call(2)
    assert [m.to for m in alone.messages] == ["t3"]
    alone.answer("accepted")
    await house.ended(6)


def test_keys_beyond_the_bound_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.deliveries.MOST_KEYS", 2)

    async def main() -> None:
        finds = MemoryFinds()
        finds.away = True
        deliveries = Deliveries(cast(Any, finds), [], lambda p, e: None, lambda u, t: None, lambda: 0, Tally())
        for key in ("k1", "k1", "k2", "k3", "k4"):
            deliveries._keep("a", key, "m")
        await turns()
        finds.away = False
        await deliveries.stop()
        assert finds.known == {"a": {"k1": "m", "k2": "m"}}
        deliveries._keep("a", "k5", "m")  # there is room again
        await deliveries.stop()
        assert finds.known["a"].keys() == {"k1", "k2", "k5"}

    play(main())


def test_a_router_that_is_gone_holds_up_nobody() -> None:
    class GoneRouter(ScriptedRouter):
        async def reported(self, batch: bytes, /) -> bytes:
            raise PeerGone("router:1")

    async def main() -> None:
        routers = [GoneRouter(), ScriptedRouter()]
        deliveries = Deliveries(
            cast(Any, MemoryFinds()), cast(Any, routers), lambda p, e: None, lambda u, t: None, lambda: 0, Tally()
        )
        deliveries.take({0: [Report("a", "delivered", id_of(0))]})
        await deliveries.stop()
        assert routers[1].deliveries == [("a", 1, 1)]

    play(main())


# -- on the way there


class ReportedShard:
    """A shard that notes what it is told; `answers` are what it says next, an exception is raised."""

    def __init__(self) -> None:
        self.told: list[Report] = []
        self.answers: list[str | Exception | None] = []

    async def reported(self, batch: bytes, /) -> bytes:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        self.told += msgspec.msgpack.decode(batch, type=list[Report])
        return msgspec.msgpack.encode(answer)


class KeptUplinks:
    def __init__(self) -> None:
        self.kept: list[Uplink] = []
        self.away = False

    async def heard(self, uplinks: Sequence[Uplink]) -> None:
        if self.away:
            raise Unavailable("store_unavailable")
        self.kept += uplinks


class World:
    """A desk over two shards that share eight partitions."""

    def __init__(self) -> None:
        self.shards = [ReportedShard(), ReportedShard()]
        self.finds = MemoryFinds()
        self.tally = Tally()
        self.uplinks = KeptUplinks()
        self.slept: list[float] = []
        self.awake = asyncio.Event()
        self.awake.set()
        self.while_asleep: list[Any] = []
        self.desk = ReportDesk(
            cast(Any, self.finds), cast(Any, self.shards), 8, self.tally, lambda: START_MS,
            self.uplinks, self.sleep,
        )  # fmt: skip

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.awake.wait()
        if self.while_asleep:
            self.while_asleep.pop(0)()

    def unmatched(self, provider: str = "a") -> float:
        return self.tally.value("dispatcher_reports", (provider, "unmatched"))


def test_each_shard_hears_of_its_own_and_the_rest_is_counted() -> None:
    async def main() -> None:
        world = World()
        world.finds.known["a"] = {"k5": id_of(5)}
        reports = [Report("a", "delivered", id_of(n)) for n in range(4)]
        strange = [Report("a", "delivered", id_of(9)), Report("a", "sent"), Report("a", "sent", "x")]
        await world.desk.heard([*reports, *strange, Report("a", "delivered", find="k5")])
        assert [[place_of(r.id or "") for r in shard.told] for shard in world.shards] == [
            [(0, "sms"), (2, "sms")], [(1, "sms"), (3, "sms"), (5, "sms")],
        ]  # fmt: skip
        assert world.unmatched() == 3
        assert world.slept == []

    play(main())


def test_a_report_that_came_first_waits_for_its_key() -> None:
    async def main() -> None:
        world = World()
        world.while_asleep = [lambda: None, lambda: world.finds.known.update(a={"k": id_of(2)})]
        await world.desk.heard([Report("a", "delivered", find="k"), Report("b", "delivered", find="k")])
        assert [r.id for r in world.shards[0].told] == [id_of(2)]
        assert (world.unmatched("a"), world.unmatched("b")) == (0, 1)
        assert world.slept == list(LOOKS_S[1:])
        assert 1 < sum(LOOKS_S) < 10

    play(main())


def test_a_vendor_is_to_repeat_what_could_not_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        for answer, reason in ((PeerGone("shard:0"), "shard_unavailable"), ("store_unavailable", "store_unavailable")):
            world.shards[0].answers = [answer]
            with pytest.raises(Unavailable, match=reason):
                await world.desk.heard([Report("a", "delivered", id_of(0))])
        world.finds.away = True
        with pytest.raises(Unavailable, match="store_unavailable"):
            await world.desk.heard([Report("a", "delivered", find="k")])
        world.uplinks.away = True
        with pytest.raises(Unavailable, match="store_unavailable"):
            await world.desk.heard([Uplink("a", "sms", "+86", "TD")])
        world.uplinks.away = False
        await world.desk.heard([Uplink("a", "sms", "+86", "TD")])
        assert world.uplinks.kept == [Uplink("a", "sms", "+86", "TD")]
        world.finds.away = False
        monkeypatch.setattr("actors.reports.MOST_WAITING", 1)
        world.awake.clear()
        waiting = asyncio.create_task(world.desk.heard([Report("a", "delivered", find="k")]))
        await until(lambda: bool(world.slept), "the first look")
        with pytest.raises(Unavailable, match="overloaded"):
            await world.desk.heard([Report("a", "delivered", find="k2")])
        world.awake.set()
        await waiting
        await world.desk.heard([Report("a", "delivered", find="k2")])
        assert world.unmatched() == 2

    play(main())


# -- whose call it is


class Documents:
    """Providers as the store has them."""

    def __init__(self, **options: Any) -> None:
        self.version = 0
        self.rows: dict[str, Versioned] = {}
        self.away = False
        self.put("p", **options)

    def put(self, id_: str, channel: str = "sms", **options: Any) -> None:
        self.version += 1
        given_ = {"url": "https://x", "callback_secret": "s3", **options}
        doc = msgspec.json.encode({"kind": "webhook", "channel": channel, "options": given_})
        self.rows[id_] = Versioned(self.version, 0, "me", doc)

    async def get(self, kind: str, id_: str) -> Versioned | None:
        assert kind == "providers"
        if self.away:
            raise Away("away")
        return self.rows.get(id_)


def vendors(documents: Documents, world: World, **environ: str) -> VendorDesk:
    return VendorDesk(cast(Any, documents), world.desk, cast(Any, None), environ, lambda: 1_800_000_000_000)


def call_of(body: Any, what: Any = "reports", **headers: str) -> VendorCall:
    return VendorCall(what, "POST", "https://me/v1", {}, headers, msgspec.json.encode(body))


def test_a_call_goes_from_the_vendor_to_the_shard_by_the_document_as_it_is() -> None:
    async def main() -> None:
        world, documents = World(), Documents()
        desk = vendors(documents, world, S="s4")
        assert await desk.find("q", "s3", "1.2.3.4") is None
        assert await desk.find("p", "s4", "1.2.3.4") is None
        vendor = await desk.find("p", "s3", "1.2.3.4")
        assert vendor is not None
        answer = await vendor.heard(call_of([{"id": id_of(1), "status": "delivered"}]))
        assert (answer.status, answer.body) == (200, b'{"taken":1,"passed_over":0}')
        assert world.shards[1].told == [Report("p", "delivered", id_of(1))]
        assert (await vendor.heard(call_of({}))).status == 400
        await vendor.heard(call_of([{"from": "+86", "text": "TD"}], "uplinks"))
        assert world.uplinks.kept == [Uplink("p", "sms", "+86", "TD")]
        documents.put("p", callback_secret="env:S", callback_allow=["10.0.0.0/8"])
        assert await desk.find("p", "s3", "10.0.0.1") is None
        assert await desk.find("p", "s4", "1.2.3.4") is None
        assert await desk.find("p", "s4", "10.0.0.1") is not None
        documents.put("p", callback_secret="env:NOTHING")
        assert await desk.find("p", "env:NOTHING", "10.0.0.1") is None
        documents.away = True
        with pytest.raises(Unavailable):
            await desk.find("p", "s3", None)

    play(main())


def test_a_wrong_signature_is_not_true() -> None:
    async def main() -> None:
        world = World()
        desk = vendors(Documents(secret="env:KEY"), world, KEY=SECRET)
        vendor = await desk.find("p", "s3", None)
        assert vendor is not None
        call = call_of([{"id": id_of(0), "status": "delivered"}])
        with pytest.raises(Untrue):
            await vendor.heard(call)
        headers = sign(signing_key(SECRET), "m", 1_800_000_000, call.body)
        assert (await vendor.heard(msgspec.structs.replace(call, headers=headers))).status == 200
        assert len(world.shards[0].told) == 1

    play(main())


@given(st.binary(max_size=200), st.sampled_from(["reports", "uplinks"]))
def test_no_body_breaks_it(body: bytes, what: Any) -> None:
    async def main() -> None:
        vendor = await vendors(Documents(), World()).find("p", "s3", None)
        assert vendor is not None
        assert (await vendor.heard(VendorCall(what, "POST", "https://me", {}, {}, body))).status in (200, 400)

    play(main())


def test_ends_that_were_not_sent_leave_nothing() -> None:
    async def main() -> None:
        deliveries = Deliveries(
            cast(Any, MemoryFinds()), [], lambda p, e: None, lambda u, t: None, lambda: 0, Tally()
        )
        house_message: Any = type("M", (), {"id": "m", "user": "u", "to": "+86"})()
        for outcome in ("failed", "expired", "filtered"):
            deliveries.sent(house_message, End("m", outcome, True), None, 0)
        assert len(deliveries._lately) == 0
        deliveries.sent(house_message, End("m", "unknown", False), None, 0)
        assert len(deliveries._lately) == 1

    play(main())


# -- a courier's own connections


class HearingCourier:
    """A courier that hears of deliveries on its own connection."""

    def __init__(self) -> None:
        self.inbox: Any = None
        self.listened = 0

    async def send(self, messages: Sequence[Any], timeout_s: float, watch: Any = None) -> list[Any]:
        return []

    def listen(self, inbox: Any) -> None:
        self.inbox = inbox
        self.listened += 1

    async def close(self) -> None: ...


def test_what_a_courier_hears_goes_to_the_shards_before_it_is_acknowledged() -> None:
    async def main() -> None:
        world, courier, catalog = World(), HearingCourier(), Catalog()
        catalog.providers = {"p": Provider("smpp", "sms")}
        sender = Sender(
            "p", 0, catalog, cast(Any, FakeFollower()), lambda id_, provider: cast(Any, courier), lambda: START_MS,
            lambda: 0.0, world.tally, inbox=world.desk.heard,
        )  # fmt: skip
        await sender.start()
        assert courier.listened == 1
        uplink = Uplink("p", "sms", "+86", "TD")
        await courier.inbox([Report("p", "delivered", id_of(3)), uplink])
        assert [r.id for r in world.shards[1].told] == [id_of(3)]
        assert world.uplinks.kept == [uplink]
        world.shards[1].answers = ["store_unavailable"]
        with pytest.raises(Unavailable):
            await courier.inbox([Report("p", "delivered", id_of(3))])
        await sender.drain()

    play(main())
