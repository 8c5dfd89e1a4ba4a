"""What becomes of a trigger: plans, rejections, idempotency, parking, refunds."""

import pytest

from dispatcher.admission import Moment
from dispatcher.answers import Result
from dispatcher.entries import End, Settle
from dispatcher.kinds import NORMAL
from dispatcher.shed import Entrance, Occupancy
from tests.worlds import World, at, profile_of_phone

CAP = {"kind": "line_cap", "name": "cap", "limit": 2, "channels": ["sms"]}
LIST = {"kind": "blacklist", "name": "blacklist"}
QUIET = {"kind": "quiet_hours", "name": "night", "outside": "defer"}


def statuses(result: Result) -> list[tuple[str, str, str | None]]:
    return [(m.channel, m.status, m.reason) for m in result.messages]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"template": "nothing"}, "unknown_template"),
        ({"template": "draft"}, "template_not_active"),
        ({"template": "notice", "line": "nobody"}, "unknown_line"),
        ({"template": "notice", "params": {"order": "1"}}, "missing_param:amount"),
        ({"template": "notice", "channels": ["email"]}, "unsupported_channel:email"),
        ({"template": "sale", "params": {"what": "x" * 501}}, "content_too_long:sms"),
        ({"template": "sale", "params": {"what": "x"}, "send_at": 1.0}, "expired"),
        ({"template": "sale", "params": {"what": "x"}, "to": {"sms": "12"}}, "invalid_address:sms"),
    ],
)
def test_a_callers_mistake_is_named_and_never_remembered(order: dict[str, object], reason: str) -> None:
    world = World([CAP])
    wrong = world.order(**order)  # type: ignore[arg-type]
    assert world.decided(wrong) == f"rejected {reason}"
    assert world.log == []
    assert world.partition.users == {}


def test_a_user_without_an_address_is_rejected_with_the_first_channel() -> None:
    world = World([])
    nobody = profile_of_phone(sms=None, push=None)
    assert world.decided(world.order("either", params={"n": "1"}), nobody) == "rejected no_address:push"


def test_first_goes_on_when_there_is_no_address_and_stops_when_it_was_taken() -> None:
    world = World([CAP])
    by_sms = world.submit(world.order("either", params={"n": "1"}), profile_of_phone(push=None))
    assert statuses(by_sms) == [("push", "rejected", "no_address:push"), ("sms", "accepted", None)]
    by_push = world.submit(world.order("either", params={"n": "2"}))
    assert statuses(by_push) == [("push", "accepted", None)]


def test_first_goes_on_past_the_blacklist_but_not_past_a_cap() -> None:
    entry = {"user": "u1", "channel": "push"}
    world = World([LIST, CAP], blacklist={"e1": entry})
    taken = world.submit(world.order("either", params={"n": "1"}))
    assert statuses(taken) == [("push", "filtered", "blacklist"), ("sms", "accepted", None)]
    world.submit(world.order("either", params={"n": "2"}))
    ended = world.submit(world.order("either", params={"n": "3"}))
    assert (ended.status, ended.reason) == ("intercepted", "line_cap")
    assert statuses(ended) == [("push", "filtered", "blacklist"), ("sms", "intercepted", "line_cap")]


def test_all_sends_on_every_channel_that_may() -> None:
    world = World([{**CAP, "limit": 1}])
    assert statuses(world.submit(world.order("both", params={"n": "1"}))) == [
        ("sms", "accepted", None),
        ("push", "accepted", None),
    ]
    second = world.submit(world.order("both", params={"n": "2"}))
    assert second.status == "accepted"
    assert statuses(second) == [("sms", "intercepted", "line_cap"), ("push", "accepted", None)]


def test_a_repeated_trigger_gets_the_first_answer_and_no_second_message() -> None:
    world = World([{**CAP, "limit": 1}])
    order = world.order("notice", params={"order": "1", "amount": "2"})
    first = world.submit(order)
    world.now_ms += 5_000
    again = world.submit(order)
    assert (again.status, again.first and again.first.status) == ("duplicate", "accepted")
    assert [m.message for m in again.messages] == [m.message for m in first.messages]
    blocked = world.order("notice", params={"order": "2", "amount": "2"})
    assert world.decided(blocked) == "intercepted line_cap"
    told = world.submit(blocked)
    assert told.status == "duplicate"
    assert told.first is not None
    assert (told.first.status, told.first.reason) == ("intercepted", "line_cap")
    assert len(world.partition.in_flight) == 1


def test_a_resend_of_our_own_is_answered_as_the_first_time() -> None:
    world = World([CAP])
    order = world.order("notice", params={"order": "1", "amount": "2"})
    first = world.submit(order)
    again = world.submit(order, resend=True)
    assert (again.status, again.first) == ("accepted", None)
    assert [m.message for m in again.messages] == [m.message for m in first.messages]


def test_the_same_id_of_another_user_or_line_is_another_trigger() -> None:
    world = World([])
    for user, line in (("u1", "wallet"), ("u2", "wallet"), ("u1", "loan")):
        order = world.order("notice", user, line, id="same", params={"order": "1", "amount": "2"})
        assert world.submit(order).status == "accepted"


def test_idempotency_ends_with_its_window() -> None:
    world = World([])
    order = world.order("notice", params={"order": "1", "amount": "2"})
    world.submit(order)
    world.now_ms += 86_400_000 - 1
    assert world.submit(order).status == "duplicate"
    world.now_ms += 1
    assert world.submit(order).status == "accepted"


def test_a_full_lane_refuses_and_takes_nothing() -> None:
    world = World([CAP])
    occupancy = Occupancy(4)
    occupancy.take(NORMAL, "loan", 4)
    order = world.order("notice", params={"order": "1", "amount": "2"})
    told = world.submit(order, entrance=Entrance(occupancy, parking=1))
    assert (told.status, told.reason) == ("overloaded", "outbox_full")
    assert world.partition.users == {}
    occupancy.give(NORMAL, "loan")
    assert world.submit(order, entrance=Entrance(occupancy, parking=1)).status == "accepted"


def test_a_refund_frees_the_slot_and_keeps_the_trigger_known() -> None:
    world = World([{**CAP, "limit": 1}])
    order = world.order("notice", params={"order": "1", "amount": "2"})
    message = world.submit(order).messages[0].message
    assert message is not None
    assert world.decided(world.order("notice", params={"order": "2", "amount": "2"})) == "intercepted line_cap"
    world.write(Settle(world.now_ms, [End(message, "failed", refund=True)]))
    assert world.decided(world.order("notice", params={"order": "3", "amount": "2"})) == "accepted"
    assert world.submit(order).status == "duplicate"


def test_a_trigger_for_later_is_parked_and_decided_when_due() -> None:
    world = World([{**CAP, "limit": 1}])
    due_ms = world.now_ms + 60_000
    later = world.order("notice", params={"order": "1", "amount": "2"}, send_at=due_ms / 1000)
    result = world.submit(later)
    assert (result.status, result.messages[0].due_ms) == ("accepted", due_ms)
    assert world.submit(later).status == "duplicate"
    assert world.decided(world.order("notice", params={"order": "2", "amount": "2"})) == "accepted"
    [parked] = world.partition.parked.values()
    world.now_ms = due_ms
    moment = Moment(world.partition, world.now_ms)
    world.admission.due(moment, parked, profile_of_phone())
    assert [b.objection.kind for b in moment.effects.blocks] == ["line_cap"]
    assert world.partition.parked == {}


def test_defer_parks_until_the_window_opens_and_then_decides_by_the_whole_list() -> None:
    world = World([QUIET, {**CAP, "limit": 1}])
    world.now_ms = at("2026-11-23T23:30:00")
    result = world.submit(world.order("sale", params={"what": "x"}))
    assert (result.status, result.messages[0].due_ms) == ("accepted", at("2026-11-24T09:00:00"))
    [parked] = world.partition.parked.values()
    world.now_ms = at("2026-11-24T09:00:00")
    moment = Moment(world.partition, world.now_ms)
    world.admission.due(moment, parked, profile_of_phone())
    assert [m.id for m in moment.effects.admitted] == [parked.id]


def test_defer_filters_what_would_expire_before_the_window_opens() -> None:
    world = World([QUIET])
    world.now_ms = at("2026-11-23T23:30:00")
    assert world.decided(world.order("sale", params={"what": "x"}, ttl_s=3600.0)) == "filtered quiet_hours"


def test_a_parked_message_that_expired_ends_without_a_slot() -> None:
    world = World([{**CAP, "limit": 1}])
    order = world.order("notice", params={"order": "1", "amount": "2"}, send_at=world.now_ms / 1000 + 60, ttl_s=30.0)
    world.submit(order)
    [parked] = world.partition.parked.values()
    world.now_ms = parked.expires_ms
    moment = Moment(world.partition, world.now_ms)
    world.admission.due(moment, parked, profile_of_phone())
    assert [(e.outcome, e.refund) for e in moment.effects.ends] == [("expired", True)]
    assert world.partition.in_flight == {}
    assert world.decided(world.order("notice", params={"order": "2", "amount": "2"})) == "accepted"


def test_after_a_final_failure_the_next_channel_gets_a_message_of_the_same_trigger() -> None:
    world = World([CAP])
    world.submit(world.order("either", params={"n": "1"}))
    [push] = world.partition.in_flight.values()
    world.write(Settle(world.now_ms, [End(push.id, "failed", refund=True)]))
    moment = Moment(world.partition, world.now_ms + 10)
    world.admission.fall(moment, push, profile_of_phone())
    [sms] = moment.effects.admitted
    assert (sms.channel, sms.trigger, sms.later) == ("sms", push.trigger, None)
    assert sms.id != push.id


def test_a_trigger_with_addresses_only_is_known_by_its_address() -> None:
    world = World([{**CAP, "limit": 1}])
    to = {"sms": "+8613900000001"}
    nobody = profile_of_phone(sms=None, push=None)
    first = world.order("notice", "+8613900000001", to=to, params={"order": "1", "amount": "2"})
    second = world.order("notice", "+8613900000001", to=to, params={"order": "2", "amount": "2"})
    assert world.decided(first, nobody) == "accepted"
    assert world.decided(second, nobody) == "intercepted line_cap"


def test_a_full_parking_space_refuses_what_may_have_to_park() -> None:
    world = World([QUIET])
    entrance = Entrance(Occupancy(100), parking=0)
    assert world.submit(world.order("sale", params={"what": "x"}), entrance=entrance).status == "overloaded"
    notice = world.order("notice", params={"order": "1", "amount": "2"})
    assert world.submit(notice, entrance=entrance).status == "accepted"


def test_send_at_has_an_end() -> None:
    world = World([])
    order = world.order("sale", params={"what": "x"}, send_at=253_402_300_799.0)
    assert world.decided(order) == "rejected invalid: send_at: more than 366 days ahead"


def test_names_of_campaigns_leave_nothing_behind() -> None:
    world = World([CAP])
    for n in range(50):
        world.submit(world.order("notice", f"u{n}", params={"order": "1", "amount": "2"}, task=f"campaign {n}"))
    assert len(world.partition.kinds) == 1
