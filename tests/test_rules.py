"""The rules as the design page tells them: its worked examples, and the days, nights, zones and plans between them, all
to the millisecond on a clock moved by hand."""

from random import Random
from typing import Any

import msgspec
import pytest

from config.load import load
from dispatcher.admission import Admission, Moment
from dispatcher.answers import Result
from dispatcher.calendar import calendar_of
from dispatcher.entries import Block, End, Settle, decode_entry, encode_entry
from dispatcher.keywords import WordList
from dispatcher.partition import Partition
from dispatcher.profile import Profile
from dispatcher.receipt import Receipt
from dispatcher.retry import Done, next_step
from dispatcher.rulebook import Rulebook
from dispatcher.rules import Objection
from tests.worlds import TEMPLATES, World, at, profile_of_phone

SHIPPED = msgspec.to_builtins(load(None, {}).rules)
DAY_MS, WEEK_MS = 86_400_000, 604_800_000
NEW_YORK, LONDON = "America/New_York", "Europe/London"
MORE_TEMPLATES: dict[str, Any] = {
    **TEMPLATES,
    "hint": {"type": "notice", "level": 4, "channels": [{"channel": "sms", "text": "hint {n}"}]},
    "promo": {"type": "notice_marketing", "channels": [{"channel": "sms", "text": "promo {n}"}]},
    "bill": {"type": "repayment", "channels": [{"channel": "sms", "text": "bill {n}", "signature": "Bank"}]},
    "pop": {"type": "notice", "level": 5, "channels": [{"channel": "push", "title": "pop", "body": "{n}"}]},
    "offer": {
        "type": "marketing",
        "mode": "all",
        "channels": [{"channel": "sms", "text": "offer {n}"}, {"channel": "push", "title": "offer", "body": "{n}"}],
    },
}


def world_of(*rules: dict[str, Any], zone: str = "Asia/Shanghai", **kinds: Any) -> World:
    """A world under these rules, its days and hours those of `zone`."""
    world = World([{"name": f"rule {i}", **rule} for i, rule in enumerate(rules)], MORE_TEMPLATES, **kinds)
    world.admission = Admission(world.catalog, calendar_of(zone), "CN")
    return world


@pytest.fixture
def world() -> World:
    """A world under the shipped rules, with a list of words."""
    shipped = World(SHIPPED, MORE_TEMPLATES)
    shipped.catalog.keywords = {"default": WordList("default", ["lottery"])}
    return shipped


def sale(world: World, n: int = 0, profile: Profile | None = None, **more: Any) -> str:
    return world.decided(world.order("sale", params={"what": f"offer {n}"}, **more), profile)


def notice(world: World, n: int, line: str = "wallet", **more: Any) -> str:
    return world.decided(world.order("notice", line=line, params={"order": str(n), "amount": "1"}, **more))


def say(world: World, template: str, n: int = 0, **more: Any) -> str:
    return world.decided(world.order(template, params={"n": str(n)}, **more))


def last_objection(world: World) -> Objection:
    """The numbers of the latest block, as the log carries them."""
    [block] = [entry for entry in world.log[-1:] if isinstance(entry, Block)]
    again = decode_entry(encode_entry(block))
    assert isinstance(again, Block)
    return again.blocks[-1].objection


def numbers(world: World) -> tuple[int | None, int | None, float | None, int | None]:
    """Count, limit, window and reset of the latest block."""
    o = last_objection(world)
    return o.count, o.limit, o.window_s, o.resets_at_ms


def come_due(world: World, at_ms: int, profile: Profile | None = None) -> list[str]:
    """Decide the parked messages at this time; what became of each."""
    world.now_ms = at_ms
    answers = []
    for message in list(world.partition.parked.values()):
        assert message.due_ms <= at_ms
        moment = Moment(world.partition, at_ms)
        world.admission.due(moment, message, profile or profile_of_phone())
        world.log += moment.effects.entries(at_ms)
        effects = moment.effects
        answers += [f"accepted {m.channel}" for m in effects.admitted]
        answers += [f"{b.status} {b.objection.kind}" for b in effects.blocks]
        answers += [f"parked until {m.due_ms}" for m in effects.parked]
    return answers


def parts(result: Result) -> list[tuple[str, str, str | None]]:
    return [(m.channel, m.status, m.reason) for m in result.messages]


# -- the worked examples of the page


@pytest.mark.parametrize(
    ("time", "answer"),
    [
        ("08:59:59.999", "filtered quiet_hours"),
        ("09:00:00.000", "accepted"),
        ("19:59:59.999", "accepted"),
        ("20:00:00.000", "filtered quiet_hours"),
    ],
)
def test_example_1_marketing_only_by_day(world: World, time: str, answer: str) -> None:
    world.now_ms = at(f"2026-11-23T{time}")
    assert sale(world) == answer


def test_example_2_one_marketing_sms_in_seven_days(world: World) -> None:
    monday_ms = world.now_ms = at("2026-11-23T10:00:00")
    assert sale(world, 1) == "accepted"
    world.now_ms = at("2026-11-30T09:59:59")
    assert sale(world, 2) == "filtered frequency"
    assert numbers(world) == (1, 1, 604_800, monday_ms + WEEK_MS)
    world.now_ms = at("2026-11-30T09:59:59.999")
    assert sale(world, 3) == "filtered frequency"
    world.now_ms = at("2026-11-30T10:00:00")
    assert sale(world, 4) == "accepted"


def test_example_3_line_and_company_caps_end_at_midnight(world: World) -> None:
    world.catalog.lines.update({f"line{n}": world.catalog.lines["wallet"] for n in range(10)})
    world.now_ms = at("2026-11-23T10:00:00")
    assert [notice(world, n) for n in range(5)] == ["accepted"] * 5
    assert notice(world, 5) == "intercepted line_cap"
    assert numbers(world) == (5, 5, 86_400, at("2026-11-24T00:00:00"))
    assert notice(world, 6, "loan") == "accepted"
    for n in range(24):
        assert notice(world, 100 + n, f"line{n // 5}") == "accepted"
    assert notice(world, 200, "line9") == "intercepted company_cap"
    assert numbers(world) == (30, 30, 86_400, at("2026-11-24T00:00:00"))
    world.now_ms = at("2026-11-23T23:59:59.999")
    assert notice(world, 201, "line9") == "intercepted company_cap"
    world.now_ms = at("2026-11-24T00:00:00")
    assert [notice(world, 202), notice(world, 203, "loan"), notice(world, 204, "line9")] == ["accepted"] * 3


def test_example_4_the_same_content_again_within_five_minutes(world: World) -> None:
    start_ms = world.now_ms = at("2026-11-23T10:00:00")
    assert notice(world, 1) == "accepted"
    world.now_ms = start_ms + 299_900
    assert notice(world, 1) == "intercepted repeat"
    assert numbers(world) == (1, 1, 300, start_ms + 300_000)
    assert notice(world, 2) == "accepted"
    world.now_ms = start_ms + 299_999
    assert notice(world, 1) == "intercepted repeat"
    world.now_ms = start_ms + 300_000
    assert notice(world, 1) == "accepted"


def test_example_5_a_refused_notice_gives_its_slot_back(world: World) -> None:
    world.now_ms = at("2026-11-23T10:00:00")
    for n in range(5):
        assert notice(world, n) == "accepted"
    assert notice(world, 5) == "intercepted line_cap"
    fifth = list(world.partition.in_flight.values())[4]
    step = next_step(Receipt(fifth.id, "rejected"), fifth.type, 1, world.now_ms, fifth.expires_ms, Random(1))
    assert isinstance(step, Done)
    world.write(Settle(world.now_ms, [End(fifth.id, step.outcome, step.refund)]))
    assert [notice(world, 6), notice(world, 7)] == ["accepted", "intercepted line_cap"]


def test_a_slot_is_kept_when_the_outcome_is_accepted_or_unknown(world: World) -> None:
    for n in range(5):
        assert notice(world, n) == "accepted"
    for answer, message in zip(("accepted", "unknown"), list(world.partition.in_flight.values()), strict=False):
        step = next_step(Receipt(message.id, answer), message.type, 1, world.now_ms, message.expires_ms, Random(1))  # type: ignore[arg-type]
        assert isinstance(step, Done)
        world.write(Settle(world.now_ms, [End(message.id, step.outcome, step.refund)]))
    assert notice(world, 6) == "intercepted line_cap"


def test_example_6_a_burst_gets_five_through_whoever_brings_it(world: World) -> None:
    """Here the logic; over all gateways, in processes: `tests/endtoend/test_burst.py`."""
    answers = [notice(world, n) for n in range(1_000)]
    assert (answers[:5], set(answers[5:])) == (["accepted"] * 5, {"intercepted line_cap"})
    rebuilt = Partition(3, Rulebook(world.catalog.rules))
    for entry in world.log:
        rebuilt.apply(decode_entry(encode_entry(entry)))
    world.partition = rebuilt
    assert {notice(world, 1_000 + n) for n in range(10)} == {"intercepted line_cap"}
    assert len(rebuilt.in_flight) == 5


# -- days that the clocks make shorter or longer


@pytest.mark.parametrize(
    ("zone", "start", "end", "hours"),
    [
        (NEW_YORK, "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", 23),
        (NEW_YORK, "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
        (LONDON, "2026-03-29T00:00:00Z", "2026-03-29T23:00:00Z", 23),
        (LONDON, "2026-10-24T23:00:00Z", "2026-10-26T00:00:00Z", 25),
        ("Asia/Shanghai", "2026-03-07T16:00:00Z", "2026-03-08T16:00:00Z", 24),
    ],
)
def test_a_day_is_as_long_as_the_local_one(zone: str, start: str, end: str, hours: int) -> None:
    world = world_of({"kind": "line_cap", "limit": 1, "per": "day"}, zone=zone)
    start_ms, end_ms = at(start), at(end)
    assert end_ms - start_ms == hours * 3_600_000
    world.now_ms = start_ms - 1
    assert notice(world, 1) == "accepted"
    world.now_ms = start_ms
    assert notice(world, 2) == "accepted"
    assert notice(world, 3) == "intercepted line_cap"
    assert numbers(world) == (1, 1, hours * 3_600, end_ms)
    world.now_ms = end_ms - 1
    assert notice(world, 4) == "intercepted line_cap"
    assert numbers(world) == (1, 1, hours * 3_600, end_ms)
    world.now_ms = end_ms
    assert notice(world, 5) == "accepted"


def test_an_hour_ends_on_the_hour_and_one_that_comes_twice_counts_twice() -> None:
    world = world_of({"kind": "company_cap", "limit": 1, "per": "hour"}, zone=NEW_YORK)
    for hour in ("05", "06", "07"):  # 01:00 with daylight saving, 01:00 without, 02:00
        start_ms = world.now_ms = at(f"2026-11-01T{hour}:00:00Z")
        assert notice(world, int(hour)) == "accepted"
        world.now_ms = start_ms + 3_599_999
        assert notice(world, 100 + int(hour)) == "intercepted company_cap"
        assert numbers(world) == (1, 1, 3_600, start_ms + 3_600_000)


def test_an_hour_is_that_of_the_local_clock() -> None:
    world = world_of({"kind": "company_cap", "limit": 1, "per": "hour"}, zone="Asia/Kathmandu")  # +05:45
    world.now_ms = at("2026-11-23T10:14:59.999Z")
    assert notice(world, 1) == "accepted"
    world.now_ms += 1
    assert notice(world, 2) == "accepted"
    assert notice(world, 3) == "intercepted company_cap"
    assert last_objection(world).resets_at_ms == at("2026-11-23T11:15:00Z")


def blocked_until(world: World, time: str, opens: str) -> None:
    """Marketing is filtered at this time, up to the last millisecond before the window opens, and then passes."""
    world.now_ms = at(time)
    assert sale(world) == "filtered quiet_hours"
    assert numbers(world) == (None, None, None, at(opens))
    world.now_ms = at(opens) - 1
    assert sale(world) == "filtered quiet_hours"
    assert last_objection(world).resets_at_ms == at(opens)
    world.now_ms = at(opens)
    assert sale(world) == "accepted"


@pytest.mark.parametrize(
    ("zone", "allow", "time", "opens"),
    [
        # 02:30 is skipped: the clock shows 03:00 after 01:59:59.999, and that is inside.
        (NEW_YORK, "02:30-04:00", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z"),
        (LONDON, "01:30-03:00", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
        # The whole window is skipped: it opens on the next day.
        (NEW_YORK, "02:15-02:45", "2026-03-08T05:00:00Z", "2026-03-09T06:15:00Z"),
        (LONDON, "01:00-02:00", "2026-03-29T00:59:59Z", "2026-03-30T00:00:00Z"),
        # 01:30 comes twice. Between the two the clock goes back to 01:00, which is outside.
        (NEW_YORK, "01:30-05:00", "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z"),
        (NEW_YORK, "01:30-05:00", "2026-11-01T06:00:00Z", "2026-11-01T06:30:00Z"),
        (LONDON, "01:30-05:00", "2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"),
        (LONDON, "01:30-05:00", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"),
        # The clock goes back into a window that had closed.
        (NEW_YORK, "20:00-01:30", "2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z"),
        (NEW_YORK, "20:00-01:30", "2026-11-01T06:30:00Z", "2026-11-02T01:00:00Z"),
        (LONDON, "09:00-20:00", "2026-03-28T20:00:00Z", "2026-03-29T08:00:00Z"),
        (LONDON, "09:00-20:00", "2026-10-24T19:00:00Z", "2026-10-25T09:00:00Z"),
    ],
)
def test_quiet_hours_when_the_clocks_change(zone: str, allow: str, time: str, opens: str) -> None:
    blocked_until(world_of({"kind": "quiet_hours", "allow": allow}, zone=zone), time, opens)


@pytest.mark.parametrize(
    ("zone", "time", "due"),
    [
        (NEW_YORK, "2026-03-08T02:00:00Z", "2026-03-08T13:00:00Z"),  # 21:00 to 09:00 in eleven hours
        (NEW_YORK, "2026-11-01T01:00:00Z", "2026-11-01T14:00:00Z"),  # and in thirteen
        (LONDON, "2026-03-28T21:00:00Z", "2026-03-29T08:00:00Z"),
        (LONDON, "2026-10-24T20:00:00Z", "2026-10-25T09:00:00Z"),
    ],
)
def test_what_is_deferred_over_the_change_comes_at_nine_by_the_new_clock(zone: str, time: str, due: str) -> None:
    world = world_of({"kind": "quiet_hours", "outside": "defer"}, zone=zone)
    world.now_ms = at(time)
    result = world.submit(world.order("sale", params={"what": "x"}))
    assert (result.status, [m.due_ms for m in result.messages]) == ("accepted", [at(due)])
    assert come_due(world, at(due)) == ["accepted sms"]


def test_a_window_may_cross_midnight() -> None:
    night = world_of({"kind": "quiet_hours", "allow": "22:00-06:00"})
    for time, answer in (
        ("2026-11-23T21:59:59.999", "filtered quiet_hours"),
        ("2026-11-23T22:00:00", "accepted"),
        ("2026-11-23T23:59:59.999", "accepted"),
        ("2026-11-24T00:00:00", "accepted"),
        ("2026-11-24T05:59:59.999", "accepted"),
        ("2026-11-24T06:00:00", "filtered quiet_hours"),
    ):
        night.now_ms = at(time)
        assert sale(night) == answer, time
    assert last_objection(night).resets_at_ms == at("2026-11-24T22:00:00")


# -- whose day it is


def test_a_rule_may_go_by_the_users_own_clock() -> None:
    here = profile_of_phone()
    there = profile_of_phone(calendar=calendar_of(NEW_YORK))
    world = world_of({"kind": "quiet_hours", "timezone": "user"})
    world.now_ms = at("2026-11-23T13:59:59.999Z")  # 21:59 in Shanghai, 08:59 in New York
    assert sale(world, 1, here) == "filtered quiet_hours"
    assert sale(world, 2, there) == "filtered quiet_hours"
    assert last_objection(world).resets_at_ms == at("2026-11-23T14:00:00Z")
    world.now_ms += 1
    assert sale(world, 3, here) == "filtered quiet_hours"
    assert sale(world, 4, there) == "accepted"
    assert sale(world_at(world.now_ms, {"kind": "quiet_hours"}), 5, there) == "filtered quiet_hours"


def world_at(now_ms: int, *rules: dict[str, Any]) -> World:
    world = world_of(*rules)
    world.now_ms = now_ms
    return world


def test_a_day_may_be_the_users_own() -> None:
    there = profile_of_phone(calendar=calendar_of(NEW_YORK))
    world = world_of({"kind": "frequency", "limit": 1, "per": "day", "timezone": "user"})
    world.now_ms = at("2026-11-24T04:59:59.999Z")  # 23:59 in New York, 12:59 of the next day in Shanghai
    assert sale(world, 1, there) == "accepted"
    assert sale(world, 2, there) == "filtered frequency"
    assert numbers(world) == (1, 1, 86_400, at("2026-11-24T05:00:00Z"))
    world.now_ms += 1
    assert sale(world, 3, there) == "accepted"


# -- campaigns and levels


def test_one_campaign_reaches_a_user_once_whatever_way_it_comes() -> None:
    world = world_of({"kind": "task_frequency"})
    start_ms = world.now_ms
    assert sale(world, 1, task="spring") == "accepted"
    assert sale(world, 2, task="spring") == "filtered task_frequency"
    assert numbers(world) == (1, 1, 2_592_000, start_ms + 30 * DAY_MS)
    assert say(world, "pop", 3, task="spring") == "filtered task_frequency"  # on another channel
    assert say(world, "bill", 4, task="spring", line="loan") == "filtered task_frequency"
    assert sale(world, 5, task="autumn") == "accepted"
    assert [sale(world, 6), sale(world, 7)] == ["accepted", "accepted"]
    world.now_ms = start_ms + 30 * DAY_MS - 1
    assert sale(world, 8, task="spring") == "filtered task_frequency"
    world.now_ms += 1
    assert sale(world, 9, task="spring") == "accepted"


def test_the_messages_of_one_trigger_do_not_count_against_each_other() -> None:
    world = world_of({"kind": "task_frequency"})
    both = world.submit(world.order("offer", params={"n": "1"}, task="spring"))
    assert parts(both) == [("sms", "accepted", None), ("push", "accepted", None)]
    assert say(world, "offer", 2, task="spring") == "filtered task_frequency"
    assert last_objection(world).count == 1  # one trigger, though two messages


def test_a_campaign_that_did_not_reach_the_user_may_come_again() -> None:
    world = world_of({"kind": "task_frequency"})
    assert sale(world, 1, task="spring") == "accepted"
    [message] = world.partition.in_flight.values()
    world.write(Settle(world.now_ms, [End(message.id, "failed", refund=True)]))
    assert sale(world, 2, task="spring") == "accepted"


def test_an_id_used_again_after_its_window_is_another_trigger_of_the_campaign() -> None:
    world = world_of({"kind": "task_frequency"})
    assert sale(world, 1, id="daily", task="spring") == "accepted"
    world.now_ms += DAY_MS
    assert sale(world, 2, id="daily", task="spring") == "filtered task_frequency"


def test_the_less_important_come_in_small_doses(world: World) -> None:
    start_ms = world.now_ms = at("2026-11-23T10:00:00")
    for n in range(3):
        world.now_ms = start_ms + n
        assert say(world, "hint", n) == "accepted"
    assert say(world, "hint", 3) == "filtered level_cap"
    assert numbers(world) == (3, 3, 86_400, start_ms + DAY_MS)
    assert last_objection(world).family == "filter"
    assert notice(world, 4) == "accepted"  # level 3 neither counts nor is held back
    assert say(world, "bill", 5, line="loan") == "accepted"
    pops = [say(world, "pop", n) for n in range(4)]  # each channel for itself
    assert pops == ["accepted"] * 3 + ["filtered level_cap"]
    world.now_ms = start_ms + DAY_MS - 1
    assert say(world, "hint", 6) == "filtered level_cap"
    world.now_ms += 1
    assert say(world, "hint", 7) == "accepted"
    assert say(world, "hint", 8) == "filtered level_cap"


# -- what is decided when


def test_a_word_or_an_entry_stops_a_later_message_at_once_and_a_cap_when_it_is_due() -> None:
    entry = {"user": "u1", "type": "marketing"}
    world = world_of(
        {"kind": "keyword"}, {"kind": "blacklist"}, {"kind": "line_cap", "limit": 1}, blacklist={"e": entry}
    )
    world.catalog.keywords = {"default": WordList("default", ["lottery"])}
    due_ms = world.now_ms + 3_600_000
    later = due_ms / 1000
    assert say(world, "hint", "L.O.T t\u200bery", send_at=later) == "intercepted keyword"  # type: ignore[arg-type]
    found = last_objection(world)
    assert (found.word, found.list, found.field) == ("lottery", "default", "text")
    assert sale(world, 1, send_at=later) == "filtered blacklist"
    assert notice(world, 2) == "accepted"
    assert notice(world, 3, send_at=later) == "accepted"  # the cap is full, and not asked yet
    assert come_due(world, due_ms) == ["intercepted line_cap"]
    assert last_objection(world).count == 1


def test_what_was_deferred_is_decided_by_the_whole_list_when_the_window_opens() -> None:
    world = world_of({"kind": "quiet_hours", "outside": "defer"}, {"kind": "frequency", "limit": 1, "window_s": 60})
    world.now_ms = at("2026-11-23T23:00:00")
    assert [sale(world, 1), sale(world, 2)] == ["accepted", "accepted"]
    assert len(world.partition.parked) == 2  # a deferred message holds no slot
    opens_ms = at("2026-11-24T09:00:00")
    assert come_due(world, opens_ms) == ["accepted sms", "filtered frequency"]
    assert numbers(world) == (1, 1, 60, opens_ms + 60_000)


def test_a_block_before_the_window_is_not_deferred() -> None:
    world = world_of({"kind": "frequency", "limit": 0, "per": "day"}, {"kind": "quiet_hours", "outside": "defer"})
    world.now_ms = at("2026-11-23T23:00:00")
    assert sale(world, 1) == "filtered frequency"


@pytest.mark.parametrize(("ttl_s", "answer"), [(36_000.0, "filtered quiet_hours"), (36_000.001, "accepted")])
def test_what_would_expire_before_the_window_opens_is_filtered_at_once(ttl_s: float, answer: str) -> None:
    world = world_of({"kind": "quiet_hours", "outside": "defer"})
    world.now_ms = at("2026-11-23T23:00:00")
    assert sale(world, 1, ttl_s=ttl_s) == answer


# -- plans


def test_a_first_plan_goes_on_past_the_blacklist_and_is_counted_where_it_arrives() -> None:
    entry = {"user": "u1", "channel": "push"}
    world = world_of(
        {"kind": "blacklist"}, {"kind": "company_cap", "limit": 1, "channels": ["sms"]}, blacklist={"e": entry}
    )
    taken = world.submit(world.order("either", params={"n": "1"}))
    assert (taken.status, parts(taken)) == ("accepted", [("push", "filtered", "blacklist"), ("sms", "accepted", None)])
    ended = world.submit(world.order("either", params={"n": "2"}))
    assert (ended.status, ended.reason) == ("intercepted", "company_cap")
    assert parts(ended) == [("push", "filtered", "blacklist"), ("sms", "intercepted", "company_cap")]


def test_a_user_who_has_had_enough_on_push_is_not_chased_by_sms() -> None:
    world = world_of({"kind": "company_cap", "limit": 0, "channels": ["push"]})
    ended = world.submit(world.order("either", params={"n": "1"}))
    assert (ended.status, ended.reason, parts(ended)) == (
        "intercepted", "company_cap", [("push", "intercepted", "company_cap")],
    )  # fmt: skip


def test_an_all_plan_that_is_blocked_everywhere_gives_the_first_channels_reason() -> None:
    world = world_of(
        {"kind": "frequency", "limit": 0, "per": "day", "channels": ["sms"]},
        {"kind": "company_cap", "limit": 0, "channels": ["push"]},
    )
    ended = world.submit(world.order("offer", params={"n": "1"}))
    assert (ended.status, ended.reason) == ("filtered", "frequency")
    assert parts(ended) == [("sms", "filtered", "frequency"), ("push", "intercepted", "company_cap")]
    again = world.submit(world.order("offer", id="t1", params={"n": "1"}))
    assert (again.status, again.first and (again.first.status, again.first.reason)) == (
        "duplicate", ("filtered", "frequency"),
    )  # fmt: skip


def test_an_all_plan_is_accepted_when_one_channel_is() -> None:
    world = world_of({"kind": "frequency", "limit": 0, "per": "day", "channels": ["sms"]})
    taken = world.submit(world.order("offer", params={"n": "1"}))
    assert (taken.status, parts(taken)) == ("accepted", [("sms", "filtered", "frequency"), ("push", "accepted", None)])


# -- what a code is subject to


def test_a_code_is_not_held_back_by_night_or_by_marketing_rules(world: World) -> None:
    world.now_ms = at("2026-11-23T03:00:00")
    codes = [world.decided(world.order("code", params={"code": str(n)}, task="login")) for n in range(6)]
    assert codes == ["accepted"] * 5 + ["intercepted line_cap"]


def test_a_code_is_stopped_by_an_entry_that_names_it_only() -> None:
    for type_, answer in ((None, "accepted"), ("verification", "filtered blacklist")):
        world = world_of({"kind": "blacklist"}, blacklist={"e": {"user": "u1", "type": type_}})
        assert world.decided(world.order("code", params={"code": "1"})) == answer


def test_a_clock_that_is_set_back_lets_nobody_have_more() -> None:
    """Sends of the time that comes again count as all others do."""
    world = World([{"kind": "line_cap", "name": "cap", "limit": 3, "window_s": 3_600}])
    world.now_ms = at("2026-11-23T10:30:00")
    answers = []
    for n, step_ms in enumerate([60_000, -1_800_000, 60_000, 60_000, -600_000, 3_000_000]):
        answers.append(world.decided(world.order("notice", params={"order": str(n), "amount": "1"})))
        world.now_ms += step_ms
    assert answers == ["accepted"] * 3 + ["intercepted line_cap"] * 3
