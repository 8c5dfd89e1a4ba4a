"""Tenancy as a plain class: what a new owner knows is what the old one knew, on a store in memory and on a real one."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from dispatcher.entries import Admit, Opened, Park, decode_entry
from dispatcher.outbox import EPOCH_SHIFT
from dispatcher.receipt import Receipt
from dispatcher.rulebook import Rulebook
from dispatcher.store.connection import connect
from dispatcher.store.errors import Fenced
from dispatcher.store.log import Log
from dispatcher.store.profiles import ProfileStore
from dispatcher.store.snapshots import Snapshots
from dispatcher.user import events_of
from tests.actors.fakes import PARTITIONS, START_MS, House, MemoryStore, play, turns
from tests.servers import Process, started
from tests.support import until

CAP = {"kind": "line_cap", "name": "cap", "limit": 3, "channels": ["sms"]}
SALES = {"kind": "frequency", "name": "sales", "limit": 1, "window_s": 3_600}
RULES = (CAP, SALES)


def remembered(house: House) -> dict[str, Any]:
    """Everything a shard knows of its users, in words instead of a partition's own numbers."""
    known: dict[str, Any] = {}
    for number, partition in house.shard.tenancy.partitions.items():
        known[f"in flight {number}"] = dict(partition.in_flight)
        known[f"parked {number}"] = dict(partition.parked)
        for user, packed in partition.users.items():
            events = events_of(packed)  # their order within one millisecond means nothing
            known[user] = sorted(repr((e.key, e.at_ms, partition.kinds[e.kind], e.content, e.state)) for e in events)
    return known


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["notice", "sale", "code", "later"]), st.integers(0, 5)),
        st.tuples(st.just("answer"), st.sampled_from(["accepted", "rejected", "unknown", "transient"])),
        st.tuples(st.just("snapshot"), st.integers(0, PARTITIONS - 1)),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=60)
def test_a_new_owner_knows_what_the_old_one_knew(steps: list[tuple[Any, ...]]) -> None:
    async def whole() -> None:
        house = House(RULES, windows=(3, 3, 3))
        await house.shard.start()
        for name, *values in steps:
            if name == "submit":
                template, user = values
                more: dict[str, Any] = {"send_at": START_MS / 1000 + 900} if template == "later" else {}
                order = house.order("notice" if template == "later" else template, user=f"u{user}", **more)
                await house.submit(order)
            elif name == "answer":
                open_ = [call for call in house.router.calls if not call.answered.done()]
                if open_:
                    open_[0].answer(values[0])
            else:
                await house.shard.tenancy.snapshot(values[0])
            await turns(10)
            house.clock.ms += 50
        before = remembered(house)
        house.die()
        await turns()
        after = House(RULES, store=house.store)
        after.router.recalls.clear()
        after.clock.ms = house.clock.ms
        await after.shard.start()
        assert remembered(after) == before
        assert after.shard.tenancy.epochs == dict.fromkeys(range(PARTITIONS), 2)
        after.die()
        after.router.recalls.set()

    play(whole())


def test_what_was_in_flight_is_asked_for_and_goes_on_under_the_new_epoch() -> None:
    async def whole() -> None:
        house = House()
        await house.shard.start()
        told = await house.submit(*[house.order(user=f"u{i}") for i in range(6)])
        await until(lambda: len(house.router.messages) == 6, "all are out")
        house.die()
        sent, failed, *others = told.messages
        after = House(store=house.store, answers="accepted")
        after.router.known = {sent: Receipt(sent, "accepted", "p"), failed: Receipt(failed, "rejected", "p")}
        await after.shard.start()
        await after.ended(6)
        assert sorted(m.id for m in after.router.messages) == sorted(others)
        assert {attempt for call in after.router.calls for attempt in call.attempts} == {2 << EPOCH_SHIFT | 2}
        assert dict(after.router.recalled) == dict.fromkeys(told.messages, 2 << EPOCH_SHIFT | 1)
        assert {end[0]: end[1] for end in after.ends()} == {sent: "sent", failed: "failed"} | dict.fromkeys(
            others, "sent"
        )
        assert after.tally.value("dispatcher_redispatched", ("recovered",)) == 6
        assert after.shard.outbox.counts == [0, 0, 0]
        opened = [e for e in after.store.entries() if isinstance(e, Opened)]
        assert sum(entry.in_flight for entry in opened if entry.epoch == 2) == 6
        await after.close()

    play(whole())


def test_while_nothing_is_known_of_those_in_flight_new_triggers_are_taken_within_the_bound() -> None:
    async def whole() -> None:
        house = House(outbox_messages=2)
        await house.shard.start()
        await house.submit(house.order(user="u1"), house.order(user="u2"))
        house.die()
        after = House(store=house.store, outbox_messages=2, answers="accepted")
        after.router.recalls.clear()
        await after.shard.start()
        await turns()
        assert (await after.submit(after.order(user="u3"))).statuses == ["overloaded"]
        assert (await after.submit(after.order("code", user="u3"))).statuses == ["accepted"]
        after.router.recalls.set()
        await after.ended(3)
        assert (await after.submit(after.order(user="u3"))).statuses == ["accepted"]
        await after.ended(4)
        await after.close()

    play(whole())


def test_parked_messages_wake_at_their_due_time_in_order() -> None:
    async def whole() -> None:
        house = House([{**CAP, "limit": 1}], answers="accepted")
        await house.shard.start()
        soon_s, later_s = START_MS / 1000 + 0.02, START_MS / 1000 + 0.03
        late = await house.submit(house.order(user="u1", send_at=later_s))
        early = await house.submit(house.order(user="u1", send_at=soon_s), house.order(user="u2", send_at=soon_s))
        house.clock.ms += 19
        await asyncio.sleep(0.05)  # it wakes by the loop's time, and sleeps on by the clock's
        assert house.shard.tenancy.parked == 3
        assert house.router.calls == []
        house.clock.ms += 1
        await house.ended(2)
        assert sorted(m.id for m in house.router.messages) == sorted(early.messages)
        assert house.shard.tenancy.parked == 1
        house.clock.ms += 10
        await until(lambda: house.shard.tenancy.parked == 0, "all have woken")
        await turns()
        assert late.messages[0] not in {m.id for m in house.router.messages}  # the cap was taken by then
        assert house.tally.value("dispatcher_blocked", ("cap", "intercept", "sms")) == 1
        assert len(house.ends()) == 2
        await house.close()

    play(whole())


def test_a_nearer_due_time_is_not_overslept() -> None:
    async def whole() -> None:
        house = House(answers="accepted")
        await house.shard.start()
        far = await house.submit(house.order(user="u1", send_at=START_MS / 1000 + 3_000))
        await turns()
        near = await house.submit(house.order(user="u2", send_at=START_MS / 1000 + 0.02))
        house.clock.ms += 20
        await house.ended(1)
        assert [m.id for m in house.router.messages] == near.messages != far.messages
        await house.close()

    play(whole())


def test_parked_messages_are_still_parked_for_the_next_owner() -> None:
    async def whole() -> None:
        house = House()
        await house.shard.start()
        orders = [house.order(user=f"u{i}", send_at=START_MS / 1000 + 1 + i) for i in range(4)]
        told = await house.submit(*orders)
        await house.shard.tenancy.snapshot(0)
        house.die()
        after = House(store=house.store, answers="accepted")
        after.clock.ms = START_MS + 2_500
        await after.shard.start()
        await after.ended(2)
        assert sorted(m.id for m in after.router.messages) == sorted(told.messages[:2])
        assert after.shard.tenancy.parked == 2
        assert (await after.submit(*orders)).statuses == ["duplicate"] * 4
        await after.close()

    play(whole())


def test_a_parked_message_that_expired_meanwhile_ends_unsent() -> None:
    async def whole() -> None:
        house = House()
        await house.shard.start()
        [id_] = (await house.submit(house.order(send_at=START_MS / 1000 + 1, ttl_s=5.0))).messages
        house.die()
        after = House(store=house.store)
        after.clock.ms = START_MS + 60_000
        await after.shard.start()
        assert await after.ended(1) == [(id_, "expired", True, None)]
        assert after.router.calls == []
        assert after.shard.outbox.counts == [0, 0, 0]
        await after.close()

    play(whole())


def test_snapshots_are_taken_after_so_many_entries_and_trim_the_log() -> None:
    async def whole() -> None:
        house = House(answers="accepted", snapshot_entries=4)
        await house.shard.start()
        await house.submit(*[house.order(user=f"u{i}") for i in range(40)])
        await house.ended(40)
        for _ in range(4):
            await house.submit(*[house.order(user=f"u{i}") for i in range(40)])
        await until(lambda: len(house.store.snapshots) == PARTITIONS, "every partition has a snapshot")
        await until(lambda: house.shard.pump.idle, "all are sent")
        assert house.tally.value("dispatcher_snapshots") >= PARTITIONS
        for number, (seq, _) in house.store.snapshots.items():
            assert all(row > seq for row, _ in house.store.rows[number])
        before = remembered(house)
        house.die()
        after = House(store=house.store)
        await after.shard.start()
        assert remembered(after) == before
        await after.close()

    play(whole())


def test_a_snapshot_that_fails_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        house = House(answers="accepted", snapshot_entries=1)
        failures = 0
        real = house.shard.tenancy._snapshots.write

        async def write(*args: Any) -> None:
            nonlocal failures
            failures += 1
            if failures == 1:
                raise Fenced([0])
            await real(*args)

        monkeypatch.setattr(house.shard.tenancy._snapshots, "write", write)
        await house.shard.start()
        await house.submit(house.order())
        await house.ended(1)
        await until(lambda: bool(house.store.snapshots), "it is tried again, though nothing else has changed")
        await house.close()

    play(whole())


# -- on a real store


@pytest.fixture(scope="module")
def valkey() -> Iterator[Process]:
    with started("valkey") as process:
        yield process


def on(house: House, redis: Any) -> House:
    """The same house, built on a real store."""
    shard = house.shard
    shard._log = shard.tenancy._log = Log(redis)
    shard.tenancy._snapshots = Snapshots(redis)
    shard.profiles._store = ProfileStore(redis)
    return house


def test_recovery_on_a_real_store_and_fencing_of_the_old_owner(valkey: Process) -> None:
    async def whole() -> None:
        redis = connect(valkey.url)
        await redis.flushall()
        house = on(House(RULES, windows=(5, 5, 5)), redis)
        await house.shard.start()
        rng = Random(1)
        for round_ in range(6):
            templates = [rng.choice(["notice", "sale", "code"]) for _ in range(30)]
            await house.submit(*[house.order(t, user=f"u{rng.randrange(12)}") for t in templates])
            for call in [call for call in house.router.calls if not call.answered.done()]:
                call.answer(rng.choice(["accepted", "rejected"]))
            await turns(20)
            if round_ == 2:
                for number in range(PARTITIONS):
                    await house.shard.tenancy.snapshot(number)
        await house.submit(house.order(user="later", send_at=START_MS / 1000 + 600))
        await house.shard._log.flushed()
        before = remembered(house)
        assert any(key.startswith("in flight") and value for key, value in before.items())
        house.shard.pump.stopped = True
        after = on(House(RULES), redis)
        after.router.recalls.clear()
        await after.shard.start()
        assert remembered(after) == before
        with pytest.raises(Fenced):  # the old one still lives, and may decide nothing any more
            await house.submit(house.order(user="u99"))
        with pytest.raises(Fenced):
            await house.shard.tenancy.snapshot(0)
        after.router.recalls.set()
        after.router.answers = "accepted"
        await until(lambda: after.shard.outbox.counts == [0, 0, 0], "everything in flight has ended")
        log = after.shard._log
        entries = [
            decode_entry(entry) for p in range(PARTITIONS) for _, es in await log.read(p, 0, 1_000) for entry in es
        ]
        assert not any(m.user == "u99" for e in entries if isinstance(e, Admit | Park) for m in e.messages)
        await after.close()
        for call in house.router.calls:
            if not call.answered.done():
                call.answered.cancel()
        house.die()
        await house.shard._log.stop()
        await asyncio.gather(*house.shard.pump._tasks, return_exceptions=True)
        await redis.aclose()

    play(whole())


def test_profiles_survive_on_a_real_store(valkey: Process) -> None:
    async def whole() -> None:
        redis = connect(valkey.url)
        await redis.flushall()
        house = on(House(answers="accepted"), redis)
        await house.shard.start()
        doc = msgspec.json.encode({"addresses": {"sms": ["+86 138 0000 0001"]}})
        await house.ask("put", *[(f"u{i}", doc) for i in range(30)])
        house.shard.profiles._known.clear()
        told = await house.submit(*[house.order(user=f"u{i}", to=None) for i in range(30)])
        assert set(told.statuses) == {"accepted"}
        await until(lambda: house.shard.outbox.counts == [0, 0, 0], "sent")
        assert {m.to for m in house.router.messages} == {"+8613800000001"}
        await house.close()
        await redis.aclose()

    play(whole())


def test_an_empty_store_is_a_start_like_any_other() -> None:
    async def whole() -> None:
        store = MemoryStore()
        for epoch in (1, 2, 3):
            house = House(store=store)
            await house.shard.start()
            assert house.shard.tenancy.epochs == dict.fromkeys(range(PARTITIONS), epoch)
            await house.close()

    play(whole())


def test_a_slot_is_not_given_back_when_a_former_owner_may_have_sent_the_message() -> None:
    """Its senders may have died with it: what they sent nobody knows, so the cap must not open again."""

    async def whole() -> None:
        house = House()
        await house.shard.start()
        [id_] = (await house.submit(house.order(user="u1"))).messages
        await until(lambda: len(house.router.messages) == 1, "it is out")
        house.die()
        after = House(store=house.store, answers="rejected")
        await after.shard.start()
        [(ended, outcome, refund, _)] = await after.ended(1)
        assert (ended, outcome, refund) == (id_, "unknown", False)
        await after.close()

    play(whole())


def test_rules_changed_during_recovery_are_in_force_on_every_partition() -> None:
    async def whole() -> None:
        house = House(RULES)
        opened = house.shard.tenancy._recover

        async def recover(number: int) -> Any:
            partition = await opened(number)
            if number == 1:  # in the middle of it
                house.shard.tenancy.use(Rulebook(()))
            return partition

        house.shard.tenancy._recover = recover  # type: ignore[method-assign]
        await house.shard.start()
        assert {len(p.book.rules) for p in house.shard.tenancy.partitions.values()} == {0}
        await house.close()

    play(whole())


def test_parked_messages_wait_for_room_in_their_lane() -> None:
    async def whole() -> None:
        house = House(outbox_messages=2)
        await house.shard.start()
        at_s = START_MS / 1000 + 1
        await house.submit(*[house.order(user=f"u{i}", send_at=at_s) for i in range(6)])
        house.clock.ms += 2_000
        house.shard.tenancy._woken.set()
        await until(lambda: len(house.router.messages) == 2, "as many as the lane holds")
        await turns()
        assert sum(house.shard.outbox.counts) == 2
        assert house.shard.tenancy.parked == 4
        house.die()

    play(whole())
