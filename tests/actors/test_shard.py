"""The shard as a plain class: a store in memory, a scripted router, a clock moved by hand, no Ray."""

import asyncio

import msgspec
import pytest

from actors.shard import UserAnswer
from dispatcher.blacklist import entry_id
from dispatcher.documents import BlacklistEntry, Provider
from dispatcher.drain import MOST_WAIT_S, TAU_S
from dispatcher.entries import Admit, Settle
from dispatcher.ident import place_of
from dispatcher.receipt import Receipt
from dispatcher.store.errors import Fenced
from tests.actors.fakes import PARTITIONS, START_MS, House, Told, phone_of, play, scene, turns
from tests.support import until

CAP = {"kind": "line_cap", "name": "cap", "limit": 1, "channels": ["sms"]}
LIST = {"kind": "blacklist", "name": "list"}
PROFILE = msgspec.json.encode({"addresses": {"sms": ["+8613800000001"], "push": [{"token": "token"}]}})


def test_accepted_is_answered_and_sent_only_when_it_is_durable() -> None:
    @scene()
    async def _(house: House) -> None:
        house.log.held = True
        submitting = asyncio.create_task(house.submit(house.order(), house.order(user="u2")))
        await turns(200)
        assert not submitting.done()
        assert house.router.calls == []
        house.log.release()
        told = await submitting
        assert told.statuses == ["accepted", "accepted"]
        call = await house.router.call(0)
        assert sorted(call.ids) == sorted(told.messages)
        call.answer("accepted")
        house.log.held = False


def test_blocked_answers_wait_for_the_log_too() -> None:
    @scene(CAP, answers="accepted")
    async def _(house: House) -> None:
        await house.submit(house.order())
        await until(lambda: house.shard.pump.idle, "it was sent")
        house.log.held = True
        submitting = asyncio.create_task(house.submit(house.order()))
        await turns(200)
        assert not submitting.done()
        house.log.release()
        told = await submitting
        assert (told.statuses, told.answers.reasons) == (["intercepted"], {"line_cap": 1})
        assert house.tally.value("dispatcher_blocked", ("cap", "intercept", "sms")) == 1


def test_the_log_holds_what_was_accepted_and_how_it_ended() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        told = await house.submit(*[house.order(user=f"u{i}") for i in range(20)])
        await house.ended(20)
        admitted = [m.id for e in house.store.entries() if isinstance(e, Admit) for m in e.messages]
        assert sorted(admitted) == sorted(told.messages)
        assert {end[:2] for end in house.ends()} == {(id_, "sent") for id_ in told.messages}
        assert house.shard.outbox.counts == [0, 0, 0]
        for number, partition in house.shard.tenancy.partitions.items():
            assert partition.in_flight == {}
            settled = [e for p, rows in house.store.rows.items() if p == number for e in rows]
            assert settled
        assert {(place_of(id_) or (None,))[0] for id_ in admitted} <= set(range(PARTITIONS))
        assert house.tally.value("dispatcher_outcomes", ("sms", "normal", "sent")) == 20
        assert house.tally.value("dispatcher_triggers", ("accepted",)) == 20


def test_a_full_lane_answers_overloaded_and_remembers_nothing() -> None:
    @scene(outbox_messages=2)
    async def _(house: House) -> None:
        first = await house.submit(house.order(user="u1"), house.order(user="u2"))
        assert first.statuses == ["accepted", "accepted"]
        third = house.order(user="u3")
        full = await house.submit(third, house.order("code", user="u4"))
        assert full.statuses == ["overloaded", "accepted"]  # lanes share nothing
        assert (full.answers.reasons, full.answers.retry_after_s) == ({"outbox_full": 1}, MOST_WAIT_S)
        assert all("u3" not in partition.users for partition in house.shard.tenancy.partitions.values())
        await until(lambda: len(house.router.messages) == 3, "all were handed out")
        for call in house.router.calls:
            call.answer("accepted")
        await house.ended(3)
        house.router.answers = "accepted"
        again = await house.submit(third)
        assert (again.statuses, again.answers.retry_after_s) == (["accepted"], 0.0)
        await house.ended(4)


def test_a_flood_of_one_call_is_turned_away_by_line_and_level_and_told_why() -> None:
    @scene(outbox_messages=100)
    async def _(house: House) -> None:
        def reasons(told: Told) -> dict[str, int]:
            return {"accepted": told.statuses.count("accepted"), **told.answers.reasons}

        told = await house.submit(*[house.order("sale", user=f"u{i}") for i in range(200)])
        assert reasons(told) == {"accepted": 63, "line_share": 137}, "nine tenths of the 70 % that level 5 may fill"
        told = await house.submit(*[house.order("sale", user=f"v{i}", line="loan") for i in range(20)])
        assert reasons(told) == {"accepted": 7, "shed_level": 13}
        told = await house.submit(*[house.order("code", user=f"w{i}") for i in range(120)])
        assert reasons(told) == {"accepted": 90, "line_share": 30}, "codes may fill nine tenths of their lane"
        told = await house.submit(*[house.order("code", user=f"x{i}", line="loan") for i in range(5)])
        assert reasons(told) == {"accepted": 5}, "and the rest is for other lines"
        assert house.shard.outbox.counts == [95, 0, 70]
        shed = {
            labels: house.tally.value("dispatcher_shed", labels)
            for labels in (("bulk", "5", "line_share"), ("bulk", "5", "shed_level"), ("urgent", "1", "line_share"))
        }
        assert list(shed.values()) == [137, 13, 30]
        house.router.answers = "accepted"
        for call in house.router.calls:
            call.answer("accepted")
        await house.ended(165)


def test_retry_after_is_how_long_the_lane_takes_to_make_room() -> None:
    @scene(outbox_messages=100, windows=(100, 2, 100))
    async def _(house: House) -> None:
        async def told(n: int, line: str = "loan") -> tuple[int, float]:
            """So many orders of a level that may fill 90 of 100: how many were taken, when to come again."""
            said = await house.submit(*[house.order(user=f"u{house._number + i}", line=line) for i in range(n)])
            return said.statuses.count("accepted"), said.answers.retry_after_s

        assert await told(81, "wallet") == (81, 0.0), "nine tenths of what there is"
        assert await told(10) == (9, MOST_WAIT_S), "nothing has ended yet"
        call = await house.router.call(0)
        call.answer("accepted")
        await house.ended(len(call.ids))
        rate_per_s = len(call.ids) / TAU_S
        needed = 1 / (9 + 10 / 89)  # the 11th of 90, where each may hold nine times what is free
        assert await told(3) == (1, pytest.approx(needed / rate_per_s))
        house.clock.ms += round(TAU_S * 1000)
        assert await told(1) == (0, pytest.approx(needed / rate_per_s * 2.71828, rel=1e-3)), "it goes on slower"
        house.router.answers = "accepted"
        for waiting in house.router.calls[1:]:
            waiting.answer("accepted")
        await house.ended(91)


def test_parked_messages_have_a_bound_of_their_own() -> None:
    @scene(parked_messages=1)
    async def _(house: House) -> None:
        later = START_MS / 1000 + 3_600
        told = await house.submit(house.order(send_at=later))
        assert told.statuses == ["accepted"]
        assert told.bodies[0]["messages"][0]["due"] == "2026-11-23T03:00:00Z"
        assert (await house.submit(house.order(send_at=later))).statuses == ["overloaded"]
        assert house.shard.tenancy.parked == 1
        assert house.router.calls == []


def test_a_stalled_log_answers_at_once_and_takes_nothing() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        order = house.order()
        house.log.stalled_since = asyncio.get_running_loop().time() - 1.0
        told = await house.submit(order)
        assert (told.statuses, told.answers.reasons) == (["overloaded"], {"store_unavailable": 1})
        assert msgspec.msgpack.decode(await house.shard.status(b"")) == "store_unavailable"
        house.log.stalled_since = asyncio.get_running_loop().time()  # a moment is no stall
        assert (await house.submit(order)).statuses == ["accepted"]
        house.log.stalled_since = None
        assert msgspec.msgpack.decode(await house.shard.status(b"")) is None
        await house.ended(1)


def test_profiles_that_cannot_be_read_are_no_reason_to_reject() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        house.profiles.away = True
        order = house.order(to=None)
        told = await house.submit(order)
        assert (told.statuses, told.bodies[0]["reason"]) == (["overloaded"], "store_unavailable")
        house.profiles.away = False
        house.store.profiles["u1"] = PROFILE
        assert (await house.submit(order)).statuses == ["accepted"]
        await house.ended(1)


def test_nobody_loses_their_address_to_a_full_cache() -> None:
    """A batch whose users do not fit the cache together, with one of them in it already."""

    @scene(answers="accepted", cache_users=2)
    async def _(house: House) -> None:
        users = [f"u{i}" for i in range(6)]
        house.store.profiles = dict.fromkeys(users, PROFILE)
        for first in users:
            await house.submit(house.order(user=first, to=None))
            told = await house.submit(*[house.order(user=user, to=None) for user in users])
            assert set(told.statuses) == {"accepted"}, told.bodies
        await house.ended(42)


def test_a_repeated_trigger_is_a_duplicate_and_a_resend_is_answered_as_the_first_time() -> None:
    @scene(CAP, answers="accepted")
    async def _(house: House) -> None:
        taken, blocked = house.order(id="a"), house.order(id="b")
        first = await house.submit(taken, blocked)
        assert first.statuses == ["accepted", "intercepted"]
        duplicate = await house.submit(taken, blocked)
        assert duplicate.statuses == ["duplicate", "duplicate"]
        assert [body["first"] for body in duplicate.bodies] == [
            {"status": "accepted", "reason": None}, {"status": "intercepted", "reason": "line_cap"},
        ]  # fmt: skip
        again = await house.submit(taken, blocked, resend=True)
        assert again.statuses == ["accepted", "intercepted"]
        assert first.messages == duplicate.bodies[0]["messages"][0]["message"].split() == again.messages
        await house.ended(1)
        assert len(house.router.messages) == 1


def test_within_a_resend_the_same_trigger_twice_is_still_a_duplicate() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        order, other = house.order(), house.order()
        await house.submit(order, order)
        told = await house.submit(order, order, other, other, resend=True)
        assert told.statuses == ["accepted", "duplicate", "accepted", "duplicate"]
        await house.ended(2)
        assert len(house.router.messages) == 2


@pytest.mark.parametrize(
    ("want", "there"), [(0, [True, True, True]), (1, [False, True, True]), (2, [False, False, False])]
)
def test_bodies_are_written_as_wanted(want: int, there: list[bool]) -> None:
    @scene(CAP, answers="accepted")
    async def _(house: House) -> None:
        told = await house.submit(house.order(), house.order(), house.order("nothing"), want=want)
        assert told.statuses == ["accepted", "intercepted", "rejected"]
        assert [body is not None for body in told.bodies] == there
        assert told.answers.reasons == {"line_cap": 1, "unknown_template": 1}
        await house.ended(1)


def test_a_refused_message_gives_its_slot_back() -> None:
    @scene(CAP)
    async def _(house: House) -> None:
        [id_] = (await house.submit(house.order())).messages
        assert (await house.submit(house.order())).statuses == ["intercepted"]
        (await house.router.call(0)).answer("rejected", code="bad words")
        assert await house.ended(1) == [(id_, "failed", True, "bad words")]
        told = await house.submit(house.order())
        assert told.statuses == ["accepted"]
        (await house.router.call(1)).answer("unknown")
        await house.ended(2)
        assert house.ends()[1][1:3] == ("unknown", False)
        assert (await house.submit(house.order())).statuses == ["intercepted"]  # it may have been sent


def test_a_dead_address_is_marked_and_the_next_channel_tried() -> None:
    @scene()
    async def _(house: House) -> None:
        house.store.profiles["u1"] = PROFILE
        told = await house.submit(house.order("either", to=None))
        call = await house.router.call(0)
        assert [m.channel for m in call.messages] == ["push"]
        call.answer("invalid_recipient")
        second = await house.router.call(1)
        [sms] = second.messages
        assert (sms.channel, sms.to, sms.trigger) == ("sms", "+8613800000001", call.messages[0].trigger)
        assert sms.id != told.messages[0]
        second.answer("accepted")
        await house.ended(2)
        assert [end[1:3] for end in house.ends()] == [("failed", True), ("sent", False)]
        await until(lambda: b"dead" in house.store.profiles["u1"], "the address is marked")
        house.router.answers = "accepted"
        after = await house.submit(house.order("either", to=None))
        assert [(m["channel"], m["status"]) for m in after.bodies[0]["messages"]] == [
            ("push", "rejected"), ("sms", "accepted"),
        ]  # fmt: skip
        await house.ended(3)


def test_what_expired_before_it_was_sent_is_never_sent() -> None:
    @scene(CAP)
    async def _(house: House) -> None:
        [id_] = (await house.submit(house.order(ttl_s=10.0))).messages
        (await house.router.call(0)).answer("refused")
        house.clock.ms += 10_000
        assert await house.ended(1) == [(id_, "expired", True, "ttl")]
        assert len(house.router.calls) == 1
        assert (await house.submit(house.order())).statuses == ["accepted"]  # its slot is free
        (await house.router.call(1)).answer("accepted")


def test_what_was_blacklisted_after_admission_is_not_sent() -> None:
    @scene(LIST, CAP)
    async def _(house: House) -> None:
        [id_] = (await house.submit(house.order())).messages
        (await house.router.call(0)).answer("refused")
        house.catalog.blacklist.put(BlacklistEntry(user="u1"))
        assert await house.ended(1) == [(id_, "filtered", True, "blacklist:list")]
        assert len(house.router.calls) == 1
        house.catalog.blacklist.remove(BlacklistEntry(user="u1"))
        house.router.answers = "accepted"
        assert (await house.submit(house.order())).statuses == ["accepted"]
        await house.ended(2)


def test_a_shard_tells_the_ids_of_whom_it_has_listed() -> None:
    @scene(LIST)
    async def _(house: House) -> None:
        entries = [BlacklistEntry(user="u1"), BlacklistEntry(user="u1", channel="sms"), BlacklistEntry(address="u1")]
        for entry in entries:
            house.catalog.blacklist.put(entry)

        async def ids(user: str | None, address: str | None) -> list[str]:
            found: list[str] = msgspec.msgpack.decode(await house.shard.listed(msgspec.msgpack.encode((user, address))))
            return found

        assert await ids("u1", None) == [entry_id(entry) for entry in entries[:2]]
        assert await ids(None, "u1") == [entry_id(entries[2])]
        assert await ids("u2", "a") == []


def test_a_newer_owner_ends_this_one() -> None:
    async def whole() -> None:
        house = House()
        await house.shard.start()
        house.log.held = True
        submitting = asyncio.create_task(house.submit(house.order()))
        await turns()
        for p in range(PARTITIONS):
            house.store.epochs[p] += 1
        house.log.release()
        with pytest.raises(Fenced):
            await submitting
        await turns()
        assert house.router.calls == []  # whoever owns it now decides
        assert not any(isinstance(entry, Admit) for entry in house.store.entries())
        house.die()

    play(whole())


def test_two_shards_share_the_partitions() -> None:
    @scene(number=1, shards=2)
    async def _(house: House) -> None:
        assert sorted(house.shard.tenancy.partitions) == [1, 3]
        told = await house.submit(*[house.order(user=f"u{i}") for i in range(40)])
        assert set(told.statuses) == {"accepted", "overloaded"}
        assert set(told.answers.reasons) == {"moving"}
        house.shard.pump.stopped = True
        for call in house.router.calls:
            call.answer("accepted")


def test_a_shard_that_is_not_open_yet_says_so() -> None:
    async def whole() -> None:
        house = House()
        told = await house.submit(house.order())
        assert (told.statuses, told.bodies[0]["reason"]) == (["overloaded"], "starting")
        assert msgspec.msgpack.decode(await house.shard.status(b"")) == "starting"

    play(whole())


def test_drain_settles_what_is_out_and_leaves_the_rest_in_the_log() -> None:
    async def whole() -> None:
        house = House(windows=(1, 1, 1))
        await house.shard.start()
        told = await house.submit(house.order(user="u1"), house.order(user="u2"))
        call = await house.router.call(0)
        draining = asyncio.create_task(house.close())
        await turns()
        assert not draining.done()
        late = await house.submit(house.order())
        assert (late.statuses, late.bodies[0]["reason"]) == (["overloaded"], "draining")
        call.answer("accepted")
        await draining
        assert house.ends() == [] or [end[1] for end in house.ends()] == ["sent"]  # trimmed behind the snapshot
        assert house.log.stopped
        assert house.follower.stopped
        [left] = set(told.messages) - set(call.ids)
        in_flight = [id_ for p in house.shard.tenancy.partitions.values() for id_ in p.in_flight]
        assert in_flight == [left]
        after = House(store=house.store, answers="accepted")
        await after.shard.start()
        await until(lambda: [m.id for m in after.router.messages] == [left], "the next owner sends it")
        await until(lambda: after.shard.pump.idle, "settled")
        await after.close()

    play(whole())


def test_what_was_sent_is_billed() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        house.catalog.providers = {"a": Provider("webhook", "sms", price={"CN": 0.25})}
        await house.submit(*[house.order(user=f"u{i}") for i in range(3)])
        await house.ended(3)
        ends = [end for entry in house.store.entries() if isinstance(entry, Settle) for end in entry.ends]
        assert [(end.segments, end.price) for end in ends] == [(1, 0.25)] * 3
        assert house.tally.value("dispatcher_segments", ("a",)) == 3
        assert house.tally.value("dispatcher_cost", ("a",)) == 0.75


def test_what_failed_costs_nothing() -> None:
    @scene(answers="rejected")
    async def _(house: House) -> None:
        house.catalog.providers = {"a": Provider("webhook", "sms", price={"CN": 0.25})}
        await house.submit(house.order())
        await house.ended(1)
        assert house.tally.value("dispatcher_cost", ("a",)) == house.tally.value("dispatcher_segments", ("a",)) == 0


def test_a_repeated_settlement_counts_once() -> None:
    @scene(CAP)
    async def _(house: House) -> None:
        await house.submit(house.order())
        call = await house.router.call(0)
        [ticket_id] = call.ids
        partition = next(p for p in house.shard.tenancy.partitions.values() if ticket_id in p.in_flight)
        message = partition.in_flight[ticket_id]
        call.answer("rejected")
        await house.ended(1)
        ticket = house.shard.tenancy.ticket(message, partition.id)
        house.shard.outbox.expect([ticket])
        house.shard.pump._take_in(ticket.queue, message.lane, [ticket], [Receipt(ticket_id, "accepted", "a")])
        assert len([e for e in house.store.entries() if isinstance(e, Settle)]) == 1
        assert house.shard.outbox.counts == [0, 0, 0]


def test_users_are_written_read_merged_and_deleted() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        assert (await house.ask("get", ("u1", None))).users == [None]
        assert await house.ask("put", ("u1", PROFILE), ("u2", PROFILE)) == UserAnswer()
        assert (await house.ask("get", ("u1", None), ("u2", None), ("u3", None))).users == [PROFILE, PROFILE, None]
        [merged] = (await house.ask("patch", ("u1", b'{"addresses":{"sms":["+8613800000009"]}}'))).users
        assert merged is not None
        assert msgspec.json.decode(merged)["addresses"]["sms"] == ["+8613800000009"]
        await house.submit(house.order(to=None))
        await house.ended(1)
        assert house.router.messages[0].to == "+8613800000009"
        assert (await house.ask("patch", ("nobody", b"{}"))).users == [None]
        wrong = await house.ask("patch", ("u1", b'{"addresses":{"sms":7}}'))
        assert wrong.error is not None
        assert "addresses.sms" in wrong.error
        assert (await house.ask("delete", ("u1", None))).users == [merged]
        assert (await house.ask("delete", ("u1", None))).users == [None]
        assert (await house.submit(house.order(to=None))).bodies[0]["reason"] == "no_address:sms"
        house.profiles.away = True
        assert (await house.ask("get", ("u2", None))).unavailable == "store_unavailable"


def test_new_rules_decide_from_the_next_trigger_on() -> None:
    @scene(answers="accepted")
    async def _(house: House) -> None:
        await house.submit(house.order())
        assert (await house.submit(house.order())).statuses == ["accepted"]
        house.catalog.apply(2, "rules", "all", msgspec.json.encode([CAP]))
        told = await house.submit(house.order())
        assert told.statuses == ["intercepted"]  # what was sent before counts
        assert await house.shard.await_catalog(msgspec.msgpack.encode(2)) == b""
        assert house.follower.waited_for == [2]
        await house.ended(2)


def test_topology_tells_what_waits_here() -> None:
    @scene()
    async def _(house: House) -> None:
        await house.submit(house.order(), house.order("code"), house.order(send_at=START_MS / 1000 + 60))
        assert house.shard.topology() == {
            "partitions": dict.fromkeys(range(PARTITIONS), 1),
            "backlog": {"urgent": 1, "normal": 1, "bulk": 0},
            "parked": 1,
            "users": 1,
        }
        assert house.router.messages == [] or phone_of("u1") in {m.to for m in house.router.messages}
        await until(lambda: len(house.router.messages) == 2, "handed out")
        for call in house.router.calls:
            call.answer("accepted")
        await house.ended(2)


def test_end_to_end_seconds_are_those_from_the_due_time() -> None:
    @scene()
    async def _(house: House) -> None:
        await house.submit(house.order())
        call = await house.router.call(0)
        house.clock.ms += 700
        call.answer("accepted")
        await house.ended(1)
        [family] = [f for f in house.tally.collect() if f.name == "dispatcher_end_to_end_seconds"]
        values = {(s.name[30:], s.labels.get("le")): s.value for s in family.samples if s.labels["lane"] == "normal"}
        assert values["count", None] == 1
        assert values["sum", None] == pytest.approx(0.7)
        assert (values["bucket", "0.5"], values["bucket", "1.0"]) == (0, 1)
