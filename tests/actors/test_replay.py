"""Dead letters sent again by a shard whose store lives in memory: once, by the rules, whoever dies when."""

import asyncio
from typing import Any

import msgspec
import pytest

from dispatcher.deadletter import Letter, Replayed
from dispatcher.entries import Admit, Park
from dispatcher.message import Message
from dispatcher.receipt import Answer
from tests.actors.fakes import START_MS, House, play, scene, turns
from tests.support import until

PROFILE = msgspec.json.encode({"addresses": {"sms": ["+8613800000001"], "push": [{"token": "token"}]}})
CAP = {"kind": "line_cap", "name": "cap", "limit": 1, "channels": ["sms"]}
NIGHT = {"kind": "quiet_hours", "name": "night", "allow": "09:00-20:00", "types": ["notice"], "outside": "defer"}


async def dead(house: House, n: int = 1, answer: Answer = "rejected", **how: Any) -> list[Letter]:
    """Letters of `n` messages that a provider refused, each of a user's own."""
    before = len(house.ends())
    house.router.answers = answer
    await house.submit(*[house.order(user=f"u{i}", **how) for i in range(n)])
    await house.ended(before + n)
    await until(lambda: house.shard.pump.idle and not house.shard._failed, "it is over")
    house.router.answers = "accepted"
    return house.store.letters.all()


def sent(house: House) -> list[Message]:
    """What the logs say was sent."""
    ids = {id_ for id_, outcome, _, _ in house.ends() if outcome == "sent"}
    return [m for entry in house.store.entries() if isinstance(entry, Admit) for m in entry.messages if m.id in ids]


def test_a_failed_message_leaves_a_letter_that_says_who_refused_it_and_why() -> None:
    @scene()
    async def _(house: House) -> None:
        told = await house.submit(house.order())
        (await house.router.call(0)).answer("rejected", provider="p1", code="bad words")
        await house.ended(1)
        [letter] = house.store.letters.all()
        assert letter.message == house.router.messages[0]
        assert letter.message.id == told.messages[0]
        assert (letter.at_ms, letter.outcome, letter.provider) == (START_MS, "failed", "p1")
        assert (letter.code, letter.attempts) == ("bad words", 1)


@pytest.mark.parametrize("answer", ["accepted", "unknown"])
def test_what_arrived_or_may_have_leaves_none(answer: Answer) -> None:
    @scene()
    async def _(house: House) -> None:
        assert await dead(house, answer=answer) == []


def test_what_expired_leaves_one_whether_it_waited_in_the_outbox_or_parked() -> None:
    @scene(NIGHT)
    async def _(house: House) -> None:
        await house.submit(house.order(ttl_s=60), house.order(user="u2", send_at=START_MS / 1000 + 30, ttl_s=60))
        call = await house.router.call(0)
        house.clock.ms += 100_000
        house.shard.tenancy._woken.set()
        call.answer("transient")
        ends = await house.ended(2)
        assert {outcome for _, outcome, _, _ in ends} == {"expired"}
        letters = house.store.letters.all()
        assert {letter.message.id for letter in letters} == {id_ for id_, *_ in ends}
        assert {(letter.outcome, letter.attempts) for letter in letters} == {("expired", 0), ("expired", 1)}


def test_a_letter_is_sent_again_once_however_often_it_is_asked_for() -> None:
    @scene(CAP)
    async def _(house: House) -> None:
        [letter] = await dead(house)
        house.clock.ms += 10_000
        id_ = letter.message.id
        house.log.held = True
        asking = [asyncio.create_task(house.replay(id_)) for _ in range(3)]
        await turns()
        assert [task.done() for task in asking] == [False] * 3
        assert house.store.letters.all() == [letter]
        house.log.held = False
        house.log.release()
        first, *others = await asyncio.gather(*asking)
        assert (first, others) == (Replayed(1, {}, {}), [Replayed(0, {}, {"in_progress": 1})] * 2)
        await house.ended(2)
        [message] = sent(house)
        assert message.id != id_
        assert (message.to, message.fields, message.trigger) == (
            letter.message.to, letter.message.fields, letter.message.trigger,
        )  # fmt: skip
        own_ms = letter.message.expires_ms - letter.message.due_ms
        assert (message.due_ms, message.expires_ms) == (house.clock.ms, house.clock.ms + own_ms)
        assert house.store.letters.all() == []
        assert await house.replay(id_) == Replayed(0, {}, {"gone": 1})
        assert (await house.submit(house.order(user="u0"))).statuses == ["intercepted"]


def test_a_given_time_to_live_is_counted_from_now() -> None:
    @scene()
    async def _(house: House) -> None:
        [letter] = await dead(house)
        house.clock.ms += 10_000
        assert (await house.replay(letter.message.id, ttl_ms=7_000)).replayed == 1
        await house.ended(2)
        assert sent(house)[0].expires_ms == house.clock.ms + 7_000


def test_one_that_fails_again_leaves_a_letter_of_its_own_that_can_be_sent_again() -> None:
    @scene()
    async def _(house: House) -> None:
        [letter] = await dead(house)
        house.router.answers = "rejected"
        assert (await house.replay(letter.message.id)).replayed == 1
        await house.ended(2)
        [second] = house.store.letters.all()
        assert second.message.id != letter.message.id
        house.router.answers = "accepted"
        assert (await house.replay(letter.message.id, second.message.id)) == Replayed(1, {}, {"gone": 1})
        await house.ended(3)
        assert len(sent(house)) == 1


def test_rules_decide_and_what_they_block_keeps_its_letter() -> None:
    @scene(CAP)
    async def _(house: House) -> None:
        letters = await dead(house)
        letters = await dead(house)  # the refused one gave its slot back
        assert len(letters) == 2
        told = await house.replay(*[letter.message.id for letter in letters])
        assert told == Replayed(1, {"line_cap": 1}, {})
        await house.ended(3)
        assert len(sent(house)) == 1
        [left] = house.store.letters.all()
        assert await house.replay(left.message.id) == Replayed(0, {"line_cap": 1}, {})
        assert house.tally.value("dispatcher_blocked", ("cap", "intercept", "sms")) == 2


def test_quiet_hours_postpone_it() -> None:
    @scene(NIGHT)
    async def _(house: House) -> None:
        [letter] = await dead(house)
        house.clock.ms += 12 * 3_600_000  # 22:00
        assert (await house.replay(letter.message.id, ttl_ms=86_400_000)).replayed == 1
        assert (house.store.letters.all(), house.shard.tenancy.parked, len(house.ends())) == ([], 1, 1)
        assert await house.replay(letter.message.id) == Replayed(0, {}, {"gone": 1})
        house.clock.ms += 12 * 3_600_000
        house.shard.tenancy._woken.set()
        await house.ended(2)
        assert len(sent(house)) == 1


def test_half_of_a_lane_is_left_to_others() -> None:
    @scene(outbox_messages=10)
    async def _(house: House) -> None:
        letters = await dead(house, 6)
        house.router.answers = None
        calls = len(house.router.calls)
        await house.submit(*[house.order(user=f"w{i}") for i in range(5)])
        ids = [letter.message.id for letter in letters]
        assert await house.replay(*ids) == Replayed(0, {}, {"overloaded": 6})
        (await house.router.call(calls)).answer("accepted")
        house.router.answers = "accepted"
        await until(lambda: house.shard.outbox.counts == [0, 0, 0], "the lane is empty")
        assert (await house.replay(*ids)).replayed == 6
        await house.ended(17)
        assert len(sent(house)) == 11


def test_a_store_that_is_away_says_so_and_a_draining_shard_too() -> None:
    @scene()
    async def _(house: House) -> None:
        [letter] = await dead(house)
        house.store.letters.away = True
        assert await house.replay(letter.message.id) == Replayed(0, {}, {"store_unavailable": 1})
        house.store.letters.away = False
        house.shard.draining = True
        assert await house.replay(letter.message.id) == Replayed(0, {}, {"draining": 1})
        house.shard.draining = False
        assert (await house.replay(letter.message.id)).replayed == 1
        await house.ended(2)


@pytest.mark.parametrize("durable", [False, True])
def test_a_shard_that_dies_while_it_sends_one_again_sends_it_once_or_leaves_it(durable: bool) -> None:
    async def main() -> None:
        old = House()
        await old.shard.start()
        [letter] = await dead(old)
        old.router.answers = None
        old.log.held = True
        replaying = asyncio.create_task(old.replay(letter.message.id))
        await turns(200)
        assert not replaying.done()
        assert len(old.router.messages) == 1, "nothing leaves before it is durable"
        if durable:
            old.log.release()
            await old.router.call(1)
        old.die()
        replaying.cancel()
        await asyncio.gather(replaying, return_exceptions=True)
        new = House(store=old.store, answers="accepted")
        await new.shard.start()
        assert [bool(old.store.letters.all())] == [not durable]
        told = await new.replay(letter.message.id)
        assert told == (Replayed(0, {}, {"gone": 1}) if durable else Replayed(1, {}, {}))
        await until(lambda: len(sent(new)) == 1, "it is sent")
        assert old.store.letters.all() == []
        if not durable:
            old.log.release()  # refused: there is a newer owner
            await turns(50)
            assert len([e for e in new.store.entries() if isinstance(e, Admit | Park)]) == 2
        await new.close()

    play(main())


def test_a_plan_that_goes_on_with_its_next_channel_leaves_no_letter() -> None:
    @scene()
    async def _(house: House) -> None:
        house.store.profiles["u1"] = PROFILE
        await house.submit(house.order("either", to=None))
        (await house.router.call(0)).answer("rejected")
        second = await house.router.call(1)
        assert [message.channel for message in second.messages] == ["sms"]
        assert house.store.letters.all() == []
        second.answer("rejected")
        await house.ended(2)
        assert [letter.message.channel for letter in house.store.letters.all()] == ["sms"]


def test_a_plan_whose_next_channels_cannot_leaves_the_letter() -> None:
    @scene(CAP)
    async def _(house: House) -> None:
        house.store.profiles["u1"] = PROFILE
        house.router.answers = "accepted"
        await house.submit(house.order())
        await house.ended(1)
        house.router.answers = "rejected"
        await house.submit(house.order("either", to=None))
        await house.ended(2)
        await until(lambda: not house.shard._failed, "the plan has ended")
        [letter] = house.store.letters.all()
        assert (letter.message.channel, letter.message.later) == ("push", ["sms"])
        house.router.answers = "accepted"
        assert (await house.replay(letter.message.id)).replayed == 1
        await house.ended(3)
