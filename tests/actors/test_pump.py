"""The pump as a plain class: scripted routers, a clock moved by hand, no Ray."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, cast

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

import actors.inquiry
import actors.pump
from actors.ports import PeerGone
from actors.pump import Pump
from actors.tally import Tally
from dispatcher.calls import RouteAnswer
from dispatcher.entries import End
from dispatcher.kinds import BULK, LANES, NORMAL, URGENT
from dispatcher.message import Message
from dispatcher.outbox import EPOCH_SHIFT, Outbox, Ticket
from dispatcher.receipt import Receipt
from dispatcher.retry import NOBODY_MS
from tests.actors.fakes import START_MS, Clock, Gone, ScriptedRouter, play, turns
from tests.support import until

EPOCH = 3 << EPOCH_SHIFT


def ticket(
    id_: str, lane: int = NORMAL, channel: str = "sms", type_: str = "notice", ttl_ms: int = 60_000,
    line: str = "wallet",
) -> Ticket:  # fmt: skip
    message = Message(
        id_, f"t-{id_}", "u", channel, "+8613800000000", type_, 3, lane, line, "notice", {"text": id_}, {},
        START_MS, START_MS, START_MS + ttl_ms,
    )  # fmt: skip
    return Ticket(message, 0, msgspec.msgpack.encode(message), EPOCH | 1)


def tickets(n: int, lane: int = NORMAL, prefix: str = "m", **how: Any) -> list[Ticket]:
    return [ticket(f"{prefix}{i}", lane, **how) for i in range(n)]


class Station:
    """A pump with its outbox, its router and a note of everything that ended."""

    def __init__(self, windows: Sequence[int] = (100, 100, 100), routers: Sequence[Any] = ()) -> None:
        self.clock = Clock()
        self.router = ScriptedRouter()
        self.outbox = Outbox(1_000_000)
        self.ended: list[tuple[Ticket, End]] = []
        self.vetoed: dict[str, tuple[str, str]] = {}
        self.tally = Tally()
        self.settle_fails = 0
        self.pump = Pump(
            self.outbox, cast(Any, list(routers) or [self.router]), windows, self._veto, self._settle, self.clock,
            Random(3), self.tally,
        )  # fmt: skip

    def _veto(self, ticket: Ticket, now_ms: int) -> tuple[str, str] | None:
        if ticket.message.expires_ms <= now_ms:
            return "expired", "ttl"
        return self.vetoed.get(ticket.message.id)

    def _settle(self, ended: Sequence[tuple[Ticket, End, Receipt | None]], now_ms: int) -> None:
        for one, end, _ in ended:
            self.outbox.done([one])
            self.ended.append((one, end))

    def put(self, *some: Ticket) -> None:
        for one in some:
            self.outbox.add(one)
        self.pump.kick({one.queue for one in some})

    @property
    def outcomes(self) -> dict[str, str]:
        assert len({t.message.id for t, _ in self.ended}) == len(self.ended), "something ended twice"
        return {t.message.id: end.outcome for t, end in self.ended}

    async def all_ended(self, n: int) -> dict[str, str]:
        await until(lambda: len(self.ended) >= n, f"{n} ends, {len(self.ended)} came")
        return self.outcomes


def playing(station: Station, script: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await script()
        await station.pump.stop()
        assert station.pump._in_hand == [0] * len(station.pump._in_hand)
        assert station.pump._calls == [0] * len(station.pump._calls)

    play(whole())


def test_what_is_accepted_has_ended() -> None:
    station = Station()

    async def script() -> None:
        station.put(*tickets(3))
        call = await station.router.call(0)
        assert (call.lane, call.ids, call.attempts) == (NORMAL, ["m0", "m1", "m2"], [EPOCH | 1] * 3)
        call.answer("accepted", ref="r7")
        await station.all_ended(3)
        assert {(e.outcome, e.refund, e.provider, e.ref, e.attempts) for _, e in station.ended} == {
            ("sent", False, "a", "r7", 1)
        }
        assert station.outbox.counts == [0, 0, 0]
        assert station.tally.value("dispatcher_answers", ("a", "accepted")) == 3

    playing(station, script)


@given(
    windows=st.tuples(*[st.integers(1, 12)] * 3),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 2), st.integers(1, 15)),
            st.tuples(st.just("answer"), st.integers(0, 20), st.sampled_from(["accepted", "refused", "rejected"])),
        ),
        max_size=30,
    ),
)
@settings(max_examples=40)
def test_windows_are_never_exceeded_and_nothing_is_lost(
    windows: tuple[int, int, int], steps: list[tuple[str, int, Any]]
) -> None:
    station = Station(windows)
    n = 0

    def check() -> None:
        for lane in range(len(LANES)):
            out = sum(len(c.messages) for c in station.router.calls if c.lane == lane and not c.answered.done())
            assert out <= windows[lane]

    async def script() -> None:
        nonlocal n
        for name, first, second in steps:
            if name == "put":
                station.put(*tickets(second, first, f"p{n}-"))
                n += second
            else:
                open_ = [call for call in station.router.calls if not call.answered.done()]
                if open_:
                    open_[first % len(open_)].answer(second)
            await turns(5)
            check()
        while len(station.ended) < n:
            for call in [call for call in station.router.calls if not call.answered.done()]:
                call.answer("accepted")
            await asyncio.sleep(0.001)
            check()
        assert len(station.outcomes) == n
        assert station.outbox.counts == [0, 0, 0]

    playing(station, script)


def test_a_stuck_bulk_queue_leaves_urgent_and_other_channels_alone() -> None:
    station = Station((10, 10, 10))

    async def script() -> None:
        station.put(*tickets(500, BULK, "b"))
        stuck = await station.router.call(0)
        await turns()
        assert [len(call.messages) for call in station.router.calls] == [10]
        for i in range(20):
            station.put(ticket(f"u{i}", URGENT), ticket(f"p{i}", BULK, "push"))
            await until(lambda i=i: len(station.router.calls) == 3 + 2 * i, "both came")  # type: ignore[misc]
            for call in station.router.calls[-2:]:
                call.answer("accepted")
            await station.all_ended(2 * i + 2)
        assert not stuck.answered.done()
        assert station.outbox.counts == [0, 0, 500]
        station.pump.stopped = True
        stuck.answer("accepted")

    playing(station, script)


def test_what_is_refused_goes_back_in_order_and_is_tried_again() -> None:
    station = Station((6, 6, 6))

    async def script() -> None:
        station.put(*tickets(9))
        first = await station.router.call(0)
        assert first.ids == [f"m{i}" for i in range(6)]
        first.answer("accepted", "refused", "refused", "accepted", "refused", "refused")
        second = await station.router.call(1)
        assert second.ids == ["m1", "m2", "m4", "m5", "m6", "m7"]
        assert second.attempts == [EPOCH | 1] * 6  # nobody has seen them
        second.answer("accepted")
        (await station.router.call(2)).answer("accepted")
        assert set((await station.all_ended(9)).values()) == {"sent"}

    playing(station, script)


def test_a_refusal_pauses_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.pump, "REFUSED_PAUSE_S", (60.0, 60.0, 60.0))
    station = Station()

    async def script() -> None:
        station.put(ticket("a"))
        (await station.router.call(0)).answer("refused")
        await turns()
        station.put(ticket("b"))
        station.put(ticket("c", channel="push"))
        other = await station.router.call(1)
        await turns()
        assert other.ids == ["c"]
        assert len(station.router.calls) == 2
        other.answer("accepted")
        assert [t.message.id for t in station.outbox.queues[ticket("a").queue]] == ["a", "b"]

    playing(station, script)


@pytest.mark.parametrize("known", ["accepted", "rejected", "transient", None])
def test_when_the_router_dies_senders_are_asked_what_they_know(known: Any) -> None:
    station = Station()

    async def script() -> None:
        station.put(ticket("a"))
        call = await station.router.call(0)
        if known is not None:
            station.router.known["a"] = Receipt("a", known, "p")
        call.fail(PeerGone())
        if known in ("accepted", "rejected"):
            assert await station.all_ended(1) == {"a": {"accepted": "sent", "rejected": "failed"}[known]}
            assert station.tally.value("dispatcher_redispatched", ("recalled",)) == 0
        else:
            again = await station.router.call(1)
            assert again.attempts == [EPOCH | 2]
            assert again.groups[0].tried == ([] if known is None else ["p"])
            assert station.tally.value("dispatcher_redispatched", ("recalled",)) == (known is None)
            again.answer("accepted")
            assert await station.all_ended(1) == {"a": "sent"}
        assert station.router.recalled == [("a", EPOCH | 1)]

    playing(station, script)


def test_recall_settles_some_and_sends_others_again() -> None:
    station = Station()

    async def script() -> None:
        station.put(*tickets(4))
        call = await station.router.call(0)
        station.router.known = {f"m{i}": Receipt(f"m{i}", "accepted", "p") for i in (1, 3)}
        station.router.recall_failures.extend([PeerGone(), PeerGone()])
        call.fail(PeerGone())
        again = await station.router.call(1)
        assert again.ids == ["m0", "m2"]
        assert set(again.attempts) == {EPOCH | 2}
        again.answer("accepted")
        assert len(await station.all_ended(4)) == 4

    playing(station, script)


def test_another_router_is_asked_when_one_is_gone() -> None:
    there = ScriptedRouter()
    gone = ScriptedRouter()
    gone.route = gone.recall = Gone()  # type: ignore[method-assign]
    station = Station(routers=[gone, there])

    async def script() -> None:
        station.put(*tickets(2))
        for _ in range(2):
            await until(lambda: any(not c.answered.done() for c in there.calls) or len(station.ended) == 2, "a call")
            for call in there.calls:
                if not call.answered.done():
                    call.answer("accepted")
        await station.all_ended(2)

    playing(station, script)


def test_when_no_router_answers_for_long_they_go_out_again_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.inquiry, "ROUTER_S", 0.0)
    monkeypatch.setattr(actors.inquiry, "BACK_S", 0.0)
    station = Station()
    gone = Gone()
    station.router.recall = gone  # type: ignore[method-assign]

    async def script() -> None:
        some = tickets(2)
        station.put(*some)
        (await station.router.call(0)).fail(PeerGone())
        again = await station.router.call(1)
        assert again.attempts == [EPOCH | 2] * 2
        assert [t.maybe_sent for t in some] == [True] * 2
        assert gone.asked >= 1
        again.answer("rejected")
        assert set((await station.all_ended(2)).values()) == {"unknown"}

    playing(station, script)


# -- a sender dies


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask after the dead without a pause."""
    monkeypatch.setattr(actors.inquiry, "ASK_EVERY_S", 0.001)


@pytest.mark.usefixtures("quick")
def test_what_a_dead_sender_had_is_asked_of_the_one_after_it_and_holds_up_nobody() -> None:
    station = Station((4, 4, 4))
    station.router.absent = {"s"}

    async def script() -> None:
        dead = tickets(4)
        station.put(*dead, *tickets(20, prefix="other"))
        (await station.router.call(0)).died(s=[0, 1, 3])
        for number in range(1, 6):  # the window is as free as it was
            call = await station.router.call(number)
            assert len(call.ids) == 4
            call.answer("accepted")
        await station.all_ended(21)
        assert station.outcomes.keys() == {"m2", *(f"other{i}" for i in range(20))}
        assert station.router.recalled == []
        assert not station.pump.idle
        assert station.outbox.counts == [0, 3, 0], "they take their room as before"
        station.router.known = {"m0": Receipt("m0", "accepted", "a"), "m1": Receipt("m1", "unknown", "a")}
        station.router.absent.clear()
        again = await station.router.call(6)
        assert (again.ids, again.attempts) == (["m3"], [EPOCH | 2])
        assert (station.router.asked, station.router.recalled) == (["s"], [(f"m{i}", EPOCH | 1) for i in (0, 1, 3)])
        again.answer("accepted")
        await station.all_ended(24)
        assert [station.outcomes[f"m{i}"] for i in (0, 1, 2, 3)] == ["sent", "unknown", "sent", "sent"]
        told = {t.message.id: e for t, e in station.ended}
        assert [told[id_].attempts for id_ in ("m0", "m1", "m3")] == [1, 1, 1]
        assert not dead[3].maybe_sent, "it surely was not sent before"
        assert station.tally.value("dispatcher_redispatched", ("recalled",)) == 1

    playing(station, script)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("known", [True, False])
def test_a_sender_that_does_not_come_back_leaves_unknowns(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    monkeypatch.setattr(actors.inquiry, "BACK_S", 0.02)
    station = Station()
    station.router.absent = {"s"}

    async def script() -> None:
        station.put(*tickets(2))
        if known:  # as when it is back without its predecessor's journal: it knows what it has sent itself
            station.router.known = {"m1": Receipt("m1", "accepted", "a")}
        (await station.router.call(0)).died(s=[0, 1])
        assert await station.all_ended(2) == {"m0": "unknown", "m1": "sent" if known else "unknown"}
        assert station.ended[0][1].code == "sender_gone"
        assert not any(end.refund for _, end in station.ended)
        assert len(station.router.calls) == 1

    playing(station, script)


@pytest.mark.usefixtures("quick")
def test_two_senders_that_died_are_waited_for_apart() -> None:
    station = Station()
    station.router.absent = {"s", "t"}

    async def script() -> None:
        station.put(*tickets(3))
        (await station.router.call(0)).died(s=[0], t=[1, 2])
        station.put(*tickets(2, prefix="n"))
        (await station.router.call(1)).died(s=[0, 1])
        station.router.known = {id_: Receipt(id_, "accepted", "a") for id_ in ("m0", "m1", "m2", "n0", "n1")}
        station.router.absent = {"s"}
        assert (await station.all_ended(2)).keys() == {"m1", "m2"}
        station.router.absent = set()
        assert (await station.all_ended(5)).keys() == {"m0", "m1", "m2", "n0", "n1"}
        assert station.router.asked == ["t", "s"], "one question each"

    playing(station, script)


@pytest.mark.usefixtures("quick")
def test_after_a_routers_death_all_senders_are_waited_for_but_not_with_codes() -> None:
    station = Station()
    station.router.absent = {"s"}

    async def script() -> None:
        code = ticket("c", URGENT, type_="verification")
        station.put(code)
        station.put(ticket("u", URGENT))
        for number in range(2):
            (await station.router.call(number)).fail(PeerGone())
        again = await station.router.call(2)
        assert (again.ids, again.attempts, code.maybe_sent) == (["c"], [EPOCH | 2], True)
        again.answer("accepted")
        await station.all_ended(1)
        station.router.absent.clear()
        last = await station.router.call(3)
        assert last.ids == ["u"]
        last.answer("accepted")
        await station.all_ended(2)

    playing(station, script)


@pytest.mark.usefixtures("quick")
def test_stop_waits_for_what_is_in_doubt() -> None:
    station = Station()
    station.router.absent = {"s"}

    async def script() -> None:
        station.put(*tickets(2))
        (await station.router.call(0)).died(s=[0, 1])
        await turns()
        stopping = asyncio.create_task(station.pump.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        station.router.known = {"m0": Receipt("m0", "accepted", "a")}
        station.router.absent.clear()
        await stopping
        assert station.outcomes == {"m0": "sent"}
        assert [t.message.id for t in station.outbox.queues[ticket("m1").queue]] == ["m1"], "for the next start"

    playing(station, script)


@pytest.mark.usefixtures("quick")
def test_a_place_that_is_none_loses_nothing() -> None:
    station = Station()

    async def script() -> None:
        station.put(*tickets(2))
        call = await station.router.call(0)
        station.router.known = {"m0": Receipt("m0", "accepted", "a")}
        call.say([Receipt(id_, "unknown", "a") for id_ in call.ids], {"s": [0, 7]})
        again = await station.router.call(1)
        assert again.ids == ["m1"]
        again.answer("accepted")
        assert set((await station.all_ended(2)).values()) == {"sent"}

    playing(station, script)


def test_where_nobody_was_there_to_try_the_wait_does_not_grow() -> None:
    station = Station()

    async def script() -> None:
        station.put(ticket("a"))
        for number in range(30):
            call = await station.router.call(number)
            assert call.attempts == [EPOCH | 1], "nobody has seen it"
            call.say([Receipt("a", "transient", "", code="provider_out")])
            await until(lambda: station.outbox.next_ms is not None, "it waits")
            wait_ms = cast(int, station.outbox.next_ms) - station.clock.ms
            assert 0 < wait_ms <= NOBODY_MS
            station.clock.ms += wait_ms
            station.pump.set_alarm()
        (await station.router.call(30)).answer("transient", provider="p1")
        second = await station.router.call(31)
        assert second.attempts == [EPOCH | 2], "its first failure, so it goes elsewhere at once"
        second.answer("accepted")
        await station.all_ended(1)
        assert station.ended[0][1].attempts == 2

    playing(station, script)


def _too_few(ids: list[str]) -> list[Receipt]:
    return [Receipt(ids[0], "accepted", "a")]


def _too_many(ids: list[str]) -> list[Receipt]:
    return [Receipt(id_, "accepted", "a") for id_ in [*ids, "strange"]]


@pytest.mark.parametrize("broken", [_too_few, _too_many, "bytes", "raises"])
def test_a_bug_in_a_routers_answer_loses_nothing(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    station = Station()
    real = station.pump._pause
    monkeypatch.setattr(station.pump, "_pause", lambda queue, seconds: real(queue, min(seconds, 0.01)))

    async def script() -> None:
        station.put(*tickets(3))
        call = await station.router.call(0)
        if broken == "bytes":
            call.answered.set_result(b"\x93nonsense")
        elif broken == "raises":
            call.fail(ZeroDivisionError("a bug there"))
        else:
            call.say(broken(call.ids))
        again = await station.router.call(1)
        assert again.ids == ["m0", "m1", "m2"]
        assert again.attempts == [EPOCH | 2] * 3  # no sender knew them, and none will send the attempt before
        again.answer("accepted")
        assert len(await station.all_ended(3)) == 3
        assert station.outbox.counts == [0, 0, 0]

    playing(station, script)


def test_receipts_belong_to_messages_whatever_groups_they_travelled_in() -> None:
    station = Station()

    async def script() -> None:
        mixed = [ticket(f"{type_}{i}", NORMAL, type_=type_) for i in range(3) for type_ in ("notice", "repayment")]
        station.put(*mixed)
        call = await station.router.call(0)
        assert [len(group.messages) for group in call.groups] == [3, 3]
        call.say([
            Receipt(id_, "accepted" if id_.startswith("notice") else "rejected", "a") for id_ in call.ids
        ])
        assert await station.all_ended(6) == {
            t.message.id: "sent" if t.message.type == "notice" else "failed" for t in mixed
        }

    playing(station, script)


def test_a_failure_goes_elsewhere_at_once_and_waits_from_the_second_on() -> None:
    station = Station()

    async def script() -> None:
        station.put(ticket("a"))
        (await station.router.call(0)).answer("transient", provider="p1")
        second = await station.router.call(1)
        assert (second.attempts, second.groups[0].tried) == ([EPOCH | 2], ["p1"])
        station.clock.ms += 1_000
        second.answer("transient", provider="p2")
        await until(lambda: station.outbox.next_ms is not None, "it waits")
        wait_ms = cast(int, station.outbox.next_ms) - station.clock.ms
        assert 0 < wait_ms <= 250
        assert len(station.router.calls) == 2
        station.clock.ms += wait_ms  # the alarm wakes it
        third = await station.router.call(2)
        assert (third.attempts, third.groups[0].tried) == ([EPOCH | 3], ["p1", "p2"])
        third.answer("accepted")
        await station.all_ended(1)
        assert station.ended[0][1].attempts == 3

    playing(station, script)


def test_an_unknown_verification_goes_elsewhere_once_and_is_never_refunded() -> None:
    station = Station()

    async def script() -> None:
        station.put(ticket("v", URGENT, type_="verification"), ticket("n", URGENT))
        (await station.router.call(0)).answer("unknown", provider="p1")
        again = await station.router.call(1)
        assert (again.ids, again.groups[0].tried) == (["v"], ["p1"])
        again.answer("rejected", provider="p2")
        assert await station.all_ended(2) == {"v": "unknown", "n": "unknown"}
        assert [end.refund for _, end in station.ended] == [False, False]

    playing(station, script)


def test_what_may_not_be_sent_any_more_ends_before_the_call() -> None:
    station = Station()

    async def script() -> None:
        station.vetoed["m1"] = "filtered", "blacklist"
        maybe = ticket("maybe", ttl_ms=0)
        maybe.maybe_sent = True
        station.put(*tickets(3), ticket("late", ttl_ms=0), maybe)
        call = await station.router.call(0)
        assert call.ids == ["m0", "m2"]
        call.answer("accepted")
        await station.all_ended(5)
        told = {t.message.id: (e.outcome, e.refund, e.code, e.attempts) for t, e in station.ended}
        assert told["m1"] == ("filtered", True, "blacklist", 0)
        assert told["late"] == ("expired", True, "ttl", 0)
        assert told["maybe"] == ("unknown", False, "ttl", 0)

    playing(station, script)


def test_batches_form_while_a_call_is_out() -> None:
    station = Station((2_000, 2_000, 2_000))

    async def script() -> None:
        for i in range(100):
            station.put(ticket(f"m{i}"))
        assert len(station.router.calls) == 0  # its task has not run yet
        second = await station.router.call(1)
        assert [len(c.messages) for c in station.router.calls] == [1, 99]
        station.router.calls[0].answer("accepted")
        second.answer("accepted")
        await station.all_ended(100)

    playing(station, script)


def test_stop_waits_for_the_calls_that_are_out_and_hands_out_nothing_more() -> None:
    station = Station((2, 2, 2))

    async def script() -> None:
        station.put(*tickets(5))
        call = await station.router.call(0)
        stopping = asyncio.create_task(station.pump.stop())
        await turns()
        assert not stopping.done()
        assert not station.pump.idle
        call.answer("transient", "accepted")
        await stopping
        assert station.pump.idle
        assert station.outcomes == {"m1": "sent"}
        await asyncio.sleep(0.02)  # no timer and no alarm starts anything
        assert len(station.router.calls) == 1
        assert len(station.outbox.queues[ticket("m0").queue]) == 3
        assert station.outbox.next_ms is not None

    playing(station, script)


def test_resume_settles_what_senders_know_and_sends_the_rest() -> None:
    station = Station()

    async def script() -> None:
        old = tickets(4)
        station.outbox.expect(old)
        station.router.known = {"m2": Receipt("m2", "accepted", "p"), "m3": Receipt("m3", "transient", "p")}
        await station.pump.resume(old)
        await until(lambda: sum(len(c.ids) for c in station.router.calls) == 3, "the rest goes out")
        assert sorted(m.id for m in station.router.messages) == ["m0", "m1", "m3"]
        for call in station.router.calls:
            assert set(call.attempts) == {EPOCH | 2}
            call.answer("accepted")
        assert set((await station.all_ended(4)).values()) == {"sent"}
        assert station.tally.value("dispatcher_redispatched", ("recovered",)) == 4
        assert station.outbox.counts == [0, 0, 0]

    playing(station, script)


def test_one_full_provider_does_not_hold_up_the_others_of_its_queue() -> None:
    station = Station(windows=(4_000, 32, 4_000))
    stuck = tickets(100)
    free = [ticket(f"free{i}", NORMAL) for i in range(5)]

    async def script() -> None:
        station.put(*stuck, *free)
        seen: set[str] = set()
        for number in range(12):
            call = await station.router.call(number)
            seen |= {id_ for id_ in call.ids if id_.startswith("free")}
            if len(seen) == len(free):
                break
            call.answer("refused")
        assert len(seen) == len(free)
        station.pump.stopped = True
        call.answer("refused")

    playing(station, script)


# -- lines, and the retry budget


def test_a_line_that_sends_one_a_second_is_not_delayed_by_one_that_sends_ten_thousand() -> None:
    """Three seconds in steps of 100 ms: 10,000 a second come and 8,000 are taken, so the flood's own wait grows."""
    station = Station((1_600, 1_600, 1_600))
    queue = station.outbox.queues[ticket("x", BULK).queue]
    calls_between, flood_ahead = [], []

    async def script() -> None:
        station.put(*tickets(2_000, BULK, "f", line="flood"))
        await station.router.call(1)  # the window is full
        for step in range(30):
            station.put(*tickets(1_000, BULK, f"f{step}-", line="flood"))
            if step % 10 == 5:
                flood_ahead.append(len(queue))
                station.put(ticket(f"q{step}", BULK, line="quiet"))
            station.router.calls[step].answer("accepted")
            call = await station.router.call(step + 2)
            assert len(call.ids) == 800
            if step % 10 == 5:
                calls_between.append(0 if f"q{step}" in call.ids else 1)
        station.pump.stopped = True
        for call in station.router.calls[30:]:
            call.answer("accepted")
        await until(lambda: station.pump.idle, "the last calls have ended")
        assert station.outcomes.keys() >= {"q5", "q15", "q25"}

    playing(station, script)
    assert flood_ahead == [2_400, 4_401, 6_402], "three to eight batches that a plain queue would have sent before"
    assert calls_between == [0, 0, 0], "each was in the very next call"


@pytest.mark.parametrize(("lane", "reserve"), [(URGENT, 500), (NORMAL, 100)])
def test_when_a_provider_dies_what_was_in_the_air_goes_elsewhere_as_far_as_the_budget_pays(
    lane: int, reserve: int
) -> None:
    station = Station((4_000, 4_000, 4_000))
    type_ = "verification" if lane == URGENT else "notice"
    before, in_air, paid = 1_000, 2_000, reserve + 600  # a fifth of 3,000 first attempts

    async def script() -> None:
        station.put(*tickets(before, lane, "ok", type_=type_))
        for number in range(2):
            (await station.router.call(number)).answer("accepted", provider="p1")
        await station.all_ended(before)
        station.put(*tickets(in_air, lane, "air", type_=type_))
        for number in range(2, 5):
            call = await station.router.call(number)
            assert set(call.attempts) == {EPOCH | 1}
            call.answer("transient", provider="p1")

        def again() -> list[str]:
            return [id_ for call in station.router.calls[5:] for id_ in call.ids]

        await until(lambda: len(again()) >= paid, "they go elsewhere, with no time passing")
        await turns()
        assert len(set(again())) == len(again()) == paid
        assert all(call.groups[0].tried == ["p1"] for call in station.router.calls[5:])
        for call in station.router.calls[5:]:
            call.answer("accepted", provider="p2")
        await station.all_ended(before + paid)
        assert station.tally.value("dispatcher_retries", (LANES[lane],)) == paid
        assert station.tally.value("dispatcher_retries_delayed", (LANES[lane],)) == in_air - paid
        station.clock.ms += 1_000
        station.pump.set_alarm()
        await until(lambda: cast(int, station.outbox.next_ms) > station.clock.ms, "the others have asked again")
        assert station.outbox.waiting == in_air - paid, "a retry earns nothing"
        calls = len(station.router.calls)
        station.clock.ms += 11_000  # the window is over, and with it what it has paid and earned
        station.pump.set_alarm()
        await until(lambda: station.outbox.waiting <= max(in_air - paid - reserve, 0), "the reserve has grown again")
        await until(lambda: len(station.router.calls) > calls, "and pays")
        station.clock.ms += 60_000
        station.pump.set_alarm()
        await until(lambda: not station.outbox.waiting, "what has expired waits no longer")
        answered: set[int] = set()
        while len(station.ended) < before + in_air:
            for number in set(range(calls, len(station.router.calls))) - answered:
                station.router.calls[number].answer("accepted", provider="p2")
                answered.add(number)
            await turns()
        left = [end for _, end in station.ended[before + paid :]]
        assert {end.outcome for end in left} <= {"sent", "expired"}
        assert sum(end.outcome == "sent" for end in left) == min(reserve, in_air - paid)
        assert all(end.refund for end in left if end.outcome == "expired")
        assert station.outbox.counts == [0, 0, 0]

    playing(station, script)


@pytest.mark.parametrize("answer", ["refused", "nobody"])
def test_what_no_provider_has_seen_needs_no_budget(answer: str) -> None:
    station = Station((4_000, 4_000, 4_000))

    async def script() -> None:
        station.put(*tickets(700))
        call = await station.router.call(0)
        station.router.answers = "accepted"  # from now on
        if answer == "refused":
            call.answer("refused")
        else:
            call.say([Receipt(id_, "transient", "", code="no_provider") for id_ in call.ids])
            await until(lambda: station.outbox.waiting == 700, "they wait")
            station.clock.ms += NOBODY_MS
            station.pump.set_alarm()
        await station.all_ended(700)
        assert sum(len(c.ids) for c in station.router.calls[1:]) == 700
        assert station.tally.value("dispatcher_retries", ("normal",)) == 0
        assert station.tally.value("dispatcher_retries_delayed", ("normal",)) == 0

    playing(station, script)


# -- late receipts


def test_what_a_slow_provider_has_in_hand_holds_up_nobody_else() -> None:
    station = Station(windows=(10, 10, 10))

    async def script() -> None:
        some = tickets(10)
        station.put(*some)
        first = await station.router.call(0)
        station.router.late_calls[7] = rest = asyncio.get_running_loop().create_future()
        told = [Receipt(id_, "refused" if n in (3, 4) else "accepted", "a") for n, id_ in enumerate(first.ids)]
        first.answered.set_result(msgspec.msgpack.encode(RouteAnswer(told, {}, [3, 4], 7)))
        await station.all_ended(len(first.ids) - 2)
        assert sum(station.pump._in_hand) < 10, "the window is open again but for the late ones"
        late = [first.ids[3], first.ids[4]]
        assert not set(late) & set(station.outcomes)
        answer = RouteAnswer([Receipt(late[0], "accepted", "b"), Receipt(late[1], "rejected", "b")])
        rest.set_result(msgspec.msgpack.encode(answer))
        await until(lambda: set(late) <= set(station.outcomes), "the late ones ended")
        assert [station.outcomes[id_] for id_ in late] == ["sent", "failed"]
        for n in range(1, len(station.router.calls)):
            station.router.calls[n].answer("accepted")
        await station.all_ended(10)

    playing(station, script)
