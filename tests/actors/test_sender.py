"""The sender as a plain class: scripted provider, fake clock, no Ray."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from actors.attempts import Attempts
from actors.follower import Follower
from actors.journal import Journal, begin, go_on
from actors.sender import Sender
from actors.stock import Stock
from actors.tally import Tally
from channels import OptionsError
from channels.adapter import NotWritten, Reply, Request, Unsendable, Written
from channels.transport import Watch
from dispatcher.calls import RecallAnswer, RecallCall, SendAnswer, SendCall
from dispatcher.catalog import Catalog
from dispatcher.documents import Provider
from dispatcher.ident import time_prefix
from dispatcher.kinds import BULK, NORMAL, URGENT
from dispatcher.lease import TTL_S, outlived_s
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from tests.support import run, until

NOW_MS = 1_800_000_000_000
EPOCH = 1 << 20


def message(id_: str, expires_ms: int = NOW_MS + 60_000) -> Message:
    fields = {"text": "x"}
    return Message(
        id_, "t", "u", "sms", "+86", "notice", 3, NORMAL, "default", "pay", fields, {}, NOW_MS, NOW_MS, expires_ms
    )


class Clock:
    def __init__(self) -> None:
        self.s = 100.0
        self.ms = NOW_MS

    def now_s(self) -> float:
        return self.s

    def now_ms(self) -> int:
        return self.ms


class FakeFollower:
    """A follower whose catalog is set by hand."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def reached(self, version: int) -> None: ...


class Peer:
    """Adapter and transport in one: every request waits for `open`, then answers as scripted."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.connected = asyncio.Event()
        self.connected.set()
        self.says: Callable[[Sequence[Message]], list[Receipt]] = accept
        self.breaks: Exception | None = None
        self.closed = 0

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        if isinstance(self.breaks, KeyError):
            raise self.breaks
        self.requests.append([m.id for m in messages])
        return Request("POST", "http://x", {}, b"")

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        return self.says(messages)

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        await self.connected.wait()
        if watch is not None:
            watch.begin()
            watch.written()
        await self.open.wait()
        if self.breaks is not None:
            raise self.breaks
        return Reply(200, {}, b"")

    async def close(self) -> None:
        self.closed += 1

    @property
    def sent(self) -> list[str]:
        return [id_ for request in self.requests for id_ in request]


def accept(messages: Sequence[Message]) -> list[Receipt]:
    return [Receipt(m.id, "accepted", "p", ref=f"r-{m.id}") for m in messages]


def throttle(messages: Sequence[Message]) -> list[Receipt]:
    return [Receipt(m.id, "throttled", "p", retry_after_s=2.0) for m in messages]


class World:
    """One sender with everything around it."""

    def __init__(self, **fields: Any) -> None:
        self.clock = Clock()
        self.peer = Peer()
        self.catalog = Catalog()
        self.tally = Tally()
        self.built: list[Provider] = []
        fields = {"kind": "webhook", "channel": "sms", "max_batch": 10, "concurrency": 2, **fields}
        self.catalog.providers = {"p": Provider(**fields)}
        self.sender = Sender(
            "p",
            0,
            self.catalog,
            cast(Follower, FakeFollower()),
            self.build,
            self.clock.now_ms,
            self.clock.now_s,
            self.tally,
        )

    def build(self, _: str, provider: Provider) -> tuple[Any, Any]:
        if provider.kind == "broken":
            raise ValueError("options.url: required")
        if provider.kind == "unresolved":
            raise OptionsError([("options.secret", "the environment variable X is not set")])
        self.built.append(provider)
        return self.peer, self.peer

    def change(self, provider: Provider | None) -> None:
        self.catalog.providers = {} if provider is None else {"p": provider}
        for callback in self.catalog.on_change:
            callback("providers")

    async def send(
        self, ids: Sequence[str], attempt: int = EPOCH + 1, lane: int = NORMAL, expires_ms: int = NOW_MS + 60_000
    ) -> SendAnswer:
        raws = [msgspec.Raw(msgspec.msgpack.encode(message(id_, expires_ms))) for id_ in ids]
        call = SendCall(lane, [attempt] * len(raws), raws)
        answer = msgspec.msgpack.decode(await self.sender.send(msgspec.msgpack.encode(call)), type=SendAnswer)
        assert [r.id for r in answer.receipts] == list(ids)
        return answer

    async def recall(self, ids: Sequence[str], attempt: int = EPOCH + 1) -> list[Receipt | None]:
        return (await self.recalled(ids, attempt)).receipts

    async def recalled(self, ids: Sequence[str], attempt: int = EPOCH + 1) -> RecallAnswer:
        call = RecallCall(list(ids), [attempt] * len(ids))
        return msgspec.msgpack.decode(await self.sender.recall(msgspec.msgpack.encode(call)), type=RecallAnswer)


def answers(answer: SendAnswer) -> list[str]:
    return [r.answer for r in answer.receipts]


def ids(n: int, prefix: str = "m") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


@contextmanager
def no_leaks() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() <= before


def play(script: Callable[[World], Awaitable[None]], **fields: Any) -> World:
    """Run a script against a sender, drain it, and see that nothing is left behind."""

    async def scene() -> World:
        with no_leaks():
            world = World(**fields)
            await world.sender.start()
            await script(world)
            world.peer.open.set()
            await world.sender.drain()
            assert world.sender._stock.in_hand == world.sender._stock.waiting == world.sender._gate.in_flight == 0
            await asyncio.sleep(0)
        return world

    return run(scene())


def test_calls_of_one_turn_share_requests() -> None:
    async def script(world: World) -> None:
        one, other = await asyncio.gather(world.send(ids(4, "a")), world.send(ids(4, "b")))
        assert answers(one) == answers(other) == ["accepted"] * 4
        assert one.receipts[0].ref == "r-a0"
        assert world.peer.requests == [[*ids(4, "a"), *ids(4, "b")]]
        buckets = next(f for f in world.tally.collect() if f.name == "dispatcher_send_seconds").samples
        assert next(s.value for s in buckets if s.name.endswith("_count")) == 1

    world = play(script)
    assert world.peer.closed == 1


def test_batches_and_room() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        first = asyncio.ensure_future(world.send(ids(30), lane=URGENT))
        await until(lambda: len(world.peer.requests) == 2, "two requests")
        assert [len(r) for r in world.peer.requests] == [10, 10]
        again = await world.send(["x"], lane=URGENT)
        assert answers(again) == ["refused"]
        assert (again.load.room, again.load.in_flight, again.load.limit) == (0, 2, 2)
        world.peer.open.set()
        answer = await first
        assert answers(answer) == ["accepted"] * 20 + ["refused"] * 10
        assert answer.load.room >= 20  # more, where requests end sooner than the next call can come
        assert answers(await world.send(["x"])) == ["accepted"]

    play(script)


def test_bulk_leaves_room_for_urgent() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        bulk = asyncio.ensure_future(world.send(ids(200, "b"), lane=BULK))
        await until(lambda: len(world.peer.requests) == 8, "eight of ten connections")
        urgent = asyncio.ensure_future(world.send(ids(15, "u"), lane=URGENT))
        await until(lambda: len(world.peer.requests) == 10, "the last two")
        world.peer.open.set()
        assert answers(await bulk).count("accepted") == 80
        assert answers(await urgent) == ["accepted"] * 15

    play(script, concurrency=10)


def test_urgent_goes_first() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        calls = [asyncio.ensure_future(world.send([i], lane=BULK)) for i in ("b0",)]
        await until(lambda: world.peer.sent == ["b0"], "b0 in the air")
        calls.append(asyncio.ensure_future(world.send(["b1"], lane=BULK)))
        await asyncio.sleep(0)
        calls.append(asyncio.ensure_future(world.send(["u0"], lane=URGENT)))
        await asyncio.sleep(0)
        world.peer.open.set()
        await asyncio.gather(*calls)
        assert world.peer.sent == ["b0", "u0", "b1"]

    play(script, concurrency=1, max_batch=10)


def test_a_repeated_attempt_gets_its_receipt_and_is_not_sent() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        one = asyncio.ensure_future(world.send(["a", "b"]))
        await until(lambda: len(world.peer.requests) == 1, "in the air")
        two = asyncio.ensure_future(world.send(["b", "a", "b"]))
        await asyncio.sleep(0)
        world.peer.open.set()
        assert answers(await one) == ["accepted"] * 2
        assert [r.ref for r in (await two).receipts] == ["r-b", "r-a", "r-b"]
        assert answers(await world.send(["a"])) == ["accepted"]
        assert answers(await world.send(["a"], attempt=EPOCH)) == ["refused"]
        assert world.peer.sent == ["a", "b"]
        assert answers(await world.send(["a"], attempt=EPOCH + 2)) == ["accepted"]
        assert world.peer.sent == ["a", "b", "a"]

    play(script)


def test_a_cancelled_call_loses_nothing() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        one = asyncio.ensure_future(world.send(["a"]))
        await until(lambda: len(world.peer.requests) == 1, "in the air")
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        world.peer.open.set()
        assert answers(await world.send(["a"])) == ["accepted"]
        assert world.peer.sent == ["a"]

    play(script)


def test_recall_waits_answers_and_fences() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        one = asyncio.ensure_future(world.send(["a"]))
        await until(lambda: len(world.peer.requests) == 1, "in the air")
        recall = asyncio.ensure_future(world.recall(["a", "never"]))
        await asyncio.sleep(0)
        world.peer.open.set()
        known = await recall
        assert known[0] is not None
        assert known[0].answer == "accepted"
        assert known[1] is None
        await one
        assert answers(await world.send(["never"])) == ["refused"]
        assert await world.recall(["never"]) == [None]
        assert answers(await world.send(["never"], attempt=EPOCH + 2)) == ["accepted"]
        # A later attempt of the same epoch says nothing about an older one; a new owner wants to know of any.
        assert await world.recall(["a"], attempt=EPOCH + 2) == [None]
        assert answers(await world.send(["a"], attempt=EPOCH + 2)) == ["refused"]
        assert (await world.recall(["a"], attempt=2 * EPOCH + 1))[0] is not None

    play(script)


def test_recall_of_a_hanging_request_is_unknown() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        one = asyncio.ensure_future(world.send(["a"]))
        await until(lambda: len(world.peer.requests) == 1, "in the air")
        [receipt] = await world.recall(["a"])
        assert receipt is not None
        assert (receipt.answer, receipt.code) == ("unknown", "in_flight")
        world.peer.open.set()
        await one

    play(script, timeout_s=0.01)


def test_expired_messages_are_not_sent() -> None:
    async def script(world: World) -> None:
        answer = await world.send(["a"], expires_ms=NOW_MS)
        assert [(r.answer, r.code, r.provider) for r in answer.receipts] == [("transient", "expired", "")]
        assert world.peer.requests == []

    play(script)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (NotWritten("refused"), "transient"),
        (Written("timeout"), "unknown"),
        (RuntimeError("bug"), "unknown"),
        (KeyError("bug in request()"), "transient"),
    ],
)
def test_what_a_failed_request_comes_to(error: Exception, answer: str) -> None:
    async def script(world: World) -> None:
        world.peer.breaks = error
        got = await world.send(["a", "b"])
        assert answers(got) == [answer] * 2
        assert {r.provider for r in got.receipts} == {"p"}

    play(script)


def test_an_adapter_that_miscounts_is_a_bug() -> None:
    async def script(world: World) -> None:
        world.peer.says = lambda _: []
        assert answers(await world.send(["a"])) == ["unknown"]

    play(script)


def test_quota_refuses_what_it_cannot_let_go() -> None:
    async def script(world: World) -> None:
        answer = await world.send(ids(3))
        assert answers(answer) == ["refused"] * 3, "a predecessor may have written a moment ago"
        assert answer.load.retry_after_s == pytest.approx(1.0)
        world.clock.s += 1.0
        answer = await world.send(ids(12), lane=URGENT)
        assert answers(answer) == ["accepted"] * 10 + ["refused"] * 2
        assert 1.0 < answer.load.retry_after_s <= 1.003
        world.clock.s += 1.003
        assert answers(await world.send(ids(12, "n"), lane=URGENT)).count("accepted") == 10

    play(script, rate_per_s=10)


def test_a_request_counts_from_when_it_is_written_or_not_at_all() -> None:
    async def script(world: World) -> None:
        world.clock.s += 1.0
        world.peer.connected.clear()
        sending = asyncio.ensure_future(world.send(ids(10), lane=URGENT))
        await until(lambda: len(world.peer.requests) == 1, "a request that is not written yet")
        world.clock.s += 5.0
        assert answers(await world.send(["x"], lane=URGENT)) == ["refused"]
        world.peer.connected.set()
        assert answers(await sending) == ["accepted"] * 10
        quota = world.sender._allowance.quota
        assert quota is not None
        assert quota.left(world.clock.s + 0.99) == 0
        world.clock.s += 1.003
        world.peer.breaks = KeyError("bug in request()")
        assert answers(await world.send(ids(10, "k"), lane=URGENT)) == ["transient"] * 10
        world.peer.breaks = None
        assert answers(await world.send(ids(10, "y"), lane=URGENT)) == ["accepted"] * 10, "those were never written"

    play(script, rate_per_s=10)


def test_what_is_not_urgent_is_taken_ahead_and_let_go_evenly() -> None:
    async def script(world: World) -> None:
        world.clock.s += 1.0
        bulk = asyncio.ensure_future(world.send(ids(60, "b"), lane=BULK))
        await until(lambda: len(world.peer.sent) == 3, "what may be ahead")
        assert world.sender._stock.waiting == 33, "a quarter of a second's, of one call"
        assert answers(await world.send(ids(4, "u"), lane=URGENT)) == ["accepted"] * 4, "urgent ones go before"
        quota = world.sender._allowance.quota
        assert quota is not None
        for sent in range(8, 41):
            while quota.left(world.clock.s, BULK) == 0:
                world.clock.s += 0.001
            await until(lambda n=sent: len(world.peer.sent) == n, f"{sent} in all")  # type: ignore[misc]
        assert 101.0 + 32 / 130 - 0.02 < world.clock.s < 101.0 + 34 / 130 + 0.02
        assert answers(await bulk) == ["accepted"] * 36 + ["refused"] * 24
        assert world.peer.sent[3:7] == ids(4, "u")

    play(script, rate_per_s=130, max_batch=100)


def test_without_a_share_everything_goes_back() -> None:
    async def script(world: World) -> None:
        world.clock.s += outlived_s(1.0)  # nobody can hold anything of a predecessor's any more
        await until(lambda: world.sender._allowance.quota.share == 10, "half: the other has yet to ask")  # type: ignore[union-attr]
        world.peer.connected.clear()
        sending = asyncio.ensure_future(world.send(ids(4), lane=URGENT))
        await until(lambda: len(world.peer.requests) == 1, "a request that is not written yet")
        bulk = asyncio.ensure_future(world.send(ids(2, "b"), lane=BULK))
        await until(lambda: world.sender._stock.waiting == 1, "one that waits for its turn")
        await world.sender._allowance.stop()
        world.clock.s += TTL_S
        await until(lambda: world.sender._stock.waiting == 0, "it was given back")
        world.peer.connected.set()
        assert answers(await bulk) == ["transient", "refused"]
        assert [r.code for r in (await sending).receipts] == ["not_written: its share of the rate quota ran out"] * 4
        assert answers(await world.send(["x"], lane=URGENT)) == ["refused"]

    play(script, rate_per_s=20, senders=2, concurrency=4)


def test_a_throttled_provider_is_left_alone() -> None:
    async def script(world: World) -> None:
        world.peer.says = throttle
        assert answers(await world.send(["a"])) == ["throttled"]
        world.peer.says = accept
        answer = await world.send(["b"])
        assert answers(answer) == ["refused"]
        assert answer.load.retry_after_s == pytest.approx(2.0)
        world.clock.s += 2.0
        assert answers(await world.send(["b"])) == ["accepted"]

    play(script)


def test_limits_of_the_messages_own_leave_the_provider_to_others() -> None:
    async def script(world: World) -> None:
        world.peer.says = lambda messages: [msgspec.structs.replace(one, narrow=True) for one in throttle(messages)]
        assert answers(await world.send(["a"])) == ["throttled"]
        world.peer.says = accept
        assert answers(await world.send(["b"])) == ["accepted"]

    play(script)


def test_what_cannot_be_put_into_a_request_is_answered_as_its_adapter_says() -> None:
    def request(messages: Sequence[Message], now_s: float) -> Request:
        raise Unsendable("rejected", "no_template")

    async def script(world: World) -> None:
        world.peer.request = request  # type: ignore[method-assign]
        answer = await world.send(["a"])
        assert [(r.answer, r.code) for r in answer.receipts if r is not None] == [("rejected", "no_template")]

    play(script)


def test_a_change_keeps_what_is_in_the_air() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        one = asyncio.ensure_future(world.send(["a"]))
        await until(lambda: len(world.peer.requests) == 1, "in the air")
        old, world.peer = world.peer, Peer()
        world.change(Provider("webhook", "sms", max_batch=1, concurrency=3))
        answer = await world.send(["b"])
        assert (answers(answer), answer.load.limit) == (["accepted"], 3)
        assert old.closed == 0
        old.open.set()
        assert answers(await one) == ["accepted"]
        await until(lambda: old.closed == 1, "the old way closed")
        world.change(Provider("broken", "sms"))
        assert answers(await world.send(["c"])) == ["accepted"]
        world.change(None)
        assert answers(await world.send(["d"])) == ["refused"]
        assert len(world.built) == 2

    play(script)


def test_a_provider_that_cannot_be_built_is_out() -> None:
    async def script(world: World) -> None:
        answer = await world.send(["a"])
        assert [(r.answer, r.provider, r.code) for r in answer.receipts] == [("auth", "p", "configuration")]
        assert answer.load.limit == 0
        assert (await world.send([])).load.unusable, "and says so before any message"
        world.change(Provider("webhook", "sms"))
        answer = await world.send(["b"])
        assert (answers(answer), answer.load.unusable) == (["accepted"], False)

    play(script, kind="broken")


def test_its_load_tells_how_the_provider_fares_and_a_new_document_gets_a_new_chance() -> None:
    async def script(world: World) -> None:
        await world.send(["a"])
        vitals = (await world.send([])).load.vitals
        assert (vitals.seen, vitals.streak, vitals.error_rate, vitals.tripped) == (1, 1, 0.0, "")
        world.peer.says = lambda messages: [Receipt(m.id, "auth", "p", code="E401") for m in messages]
        await world.send(["b"])
        assert (await world.send([])).load.vitals.tripped == "auth: E401"
        world.change(Provider("webhook", "sms", options={"key": "other"}))
        assert (await world.send([])).load.vitals.tripped == ""
        world.peer.breaks = NotWritten("refused")
        for k in range(10):
            await world.send([f"c{k}"])
        vitals = (await world.send([])).load.vitals
        assert (vitals.seen, vitals.streak, vitals.tripped) == (10, -10, "errors")

    play(script, max_batch=1)


def test_why_a_provider_cannot_be_used_is_said_once_and_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def script(world: World) -> None:
        for senders in (2, 3):
            world.change(Provider("unresolved", "sms", senders=senders))
        assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
            ("ERROR", "sender p: the provider cannot be used: options.secret: the environment variable X is not set")
        ]
        assert not caplog.records[0].exc_info
        world.change(Provider("webhook", "sms"))
        world.change(Provider("unresolved", "sms"))
        assert len(caplog.records) == 2, "once more after it could be used"
        world.change(Provider("broken", "sms"))
        assert caplog.records[2].exc_info, "a bug is told with its traceback"

    play(script, kind="unresolved")


def test_drain_gives_back_what_waits_and_ends_what_flies() -> None:
    async def script(world: World) -> None:
        world.peer.open.clear()
        one = asyncio.ensure_future(world.send(["a"]))
        await until(lambda: len(world.peer.requests) == 1, "in the air")
        two = asyncio.ensure_future(world.send(["b"]))
        await asyncio.sleep(0)
        drain = asyncio.ensure_future(world.sender.drain())
        assert answers(await two) == ["refused"]
        world.peer.open.set()
        assert answers(await one) == ["accepted"]
        await drain
        assert answers(await world.send(["c"])) == ["refused"]

    play(script, concurrency=1, max_batch=2)


def test_memory_is_bounded() -> None:
    async def script(world: World) -> None:
        world.sender._attempts = Attempts(remembered=100)
        world.sender._stock = Stock(world.sender._attempts)
        for k in range(60):
            await world.send(ids(100, f"k{k}-"))
        assert len(world.sender._attempts) <= 100 + 4096 + 100
        assert answers(await world.send(["k59-99"])) == ["accepted"]
        assert world.peer.sent.count("k59-99") == 1

    play(script, concurrency=100, max_batch=100)


def successor_of(journal: Journal, path: Path, **fields: Any) -> World:
    """The sender that starts on what a SIGKILL would leave now."""
    copy = path.with_suffix(".killed" + path.suffix)
    copy.write_bytes(path.read_bytes())
    world = World(**fields)
    world.sender.use(*go_on(copy, "boot", journal.ring))
    return world


def test_a_successor_knows_what_its_predecessor_wrote(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    journal = begin(path, "boot", NOW_MS)

    async def script(world: World) -> None:
        world.sender.use(journal, [])
        assert answers(await world.send(["a", "b"], lane=URGENT)) == ["accepted"] * 2
        world.peer.breaks = NotWritten("refused")
        assert answers(await world.send(["t"])) == ["transient"]
        world.peer.breaks = None
        world.peer.open.clear()
        first = asyncio.ensure_future(world.send(["air"]))
        await until(lambda: len(world.peer.requests) == 3, "in the air")
        second = asyncio.ensure_future(world.send(["waits"], lane=URGENT))
        await asyncio.sleep(0)
        after = successor_of(journal, path, concurrency=1, max_batch=4)
        await after.sender.start()
        told = await after.recalled(["a", "b", "t", "air", "waits", "never"])
        assert [r and (r.answer, r.provider, r.code) for r in told.receipts] == [
            ("accepted", "p", None),
            ("accepted", "p", None),
            ("transient", "p", None),
            ("unknown", "p", "sender_gone"),
            None,
            None,
        ]
        assert told.complete
        # What it knows it does not send, what was recalled neither; under a new attempt it does.
        assert answers(await after.send(["a", "air"])) == ["accepted", "unknown"]
        assert answers(await after.send(["waits", "never"])) == ["refused"] * 2
        assert after.peer.sent == []
        assert answers(await after.send(["waits", "never"], attempt=EPOCH + 2)) == ["accepted"] * 2
        third = successor_of(after.sender._journal, path.with_suffix(".killed"))
        await third.sender.start()
        told = await third.recalled(["a", "air", "waits"], attempt=EPOCH + 2)
        assert [r and r.answer for r in told.receipts] == [None, None, "accepted"], "older attempts are over"
        told = await third.recalled(["a", "air", "waits"], attempt=2 * EPOCH + 1)
        assert [r and r.answer for r in told.receipts] == ["accepted", "unknown", "accepted"]
        for one in (after, third):
            await one.sender.drain()
        world.peer.open.set()
        await asyncio.gather(first, second)

    play(script, concurrency=1, max_batch=4)


def test_without_a_predecessors_journal_a_recall_is_not_complete() -> None:
    old, new = (time_prefix(NOW_MS + shift_ms) + "0" * 16 for shift_ms in (-1, 0))

    async def script(world: World) -> None:
        assert (await world.recalled([new])).complete
        assert (await world.recalled([])).complete
        told = await world.recalled([new, old])
        assert (told.receipts, told.complete) == ([None, None], False)

    play(script)


def test_a_message_is_in_the_journal_before_its_request_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    journal = begin(path, "boot", NOW_MS)
    seen: list[dict[str, str | None]] = []

    async def script(world: World) -> None:
        world.sender.use(journal, [])
        before = world.peer.send

        async def send(*how: Any) -> Reply:
            seen.append({entry.id: entry.answer for entry in journal.entries()})
            return await before(*how)

        world.peer.send = send  # type: ignore[method-assign]
        await world.send(ids(3))
        await world.send(ids(2, "n"))

    play(script)
    assert seen == [dict.fromkeys(ids(3)), dict.fromkeys(ids(3), "accepted") | dict.fromkeys(ids(2, "n"))]
