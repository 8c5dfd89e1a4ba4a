"""Dry runs: decided by the live code on the live state, with every number, and nothing done."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from config.load import load
from dispatcher.admission import Rehearsal
from dispatcher.answers import Result
from dispatcher.entries import Block
from dispatcher.explanation import ChannelExplanation
from dispatcher.profile import Profile
from dispatcher.trigger import Order
from tests.worlds import TEMPLATES, World, at, profile_of_phone

DAY_MS = 86_400_000
MARKETING = {"type": "marketing", "channels": [{"channel": "sms", "text": "sale {what}"}]}


@pytest.fixture
def world() -> World:
    """A world under the shipped rules."""
    return shipped()


def shipped() -> World:
    rules = msgspec.to_builtins(load(None, {}).rules)
    return World(rules, {**TEMPLATES, "sale": MARKETING}, keywords={"default": {"words": ["lottery"]}})


def rehearse(world: World, order: Order, profile: Profile | None = None) -> tuple[Result, list[ChannelExplanation]]:
    moment = Rehearsal(world.partition, world.now_ms)
    result = world.admission.rehearse(moment, order, profile or profile_of_phone())
    assert moment.effects.empty
    return result, [rehearsed.explanation([]) for rehearsed in moment.rehearsed]


def state(world: World) -> bytes:
    """Everything a snapshot would hold."""
    return b"".join(world.partition.slices(100))


def notice(world: World, n: int, **more: Any) -> Order:
    return world.order("notice", params={"order": str(n), "amount": "1"}, **more)


def test_every_rule_in_whose_scope_it_lies_says_its_numbers(world: World) -> None:
    for n in range(3):
        world.submit(notice(world, n))
        world.now_ms += 60_000
    result, [explained] = rehearse(world, notice(world, 9))
    assert (result.status, result.reason) == ("accepted", None)
    assert [(m.message, m.channel, m.status) for m in result.messages] == [(None, "sms", "accepted")]
    found = {rule.name: rule for rule in explained.rules}
    assert list(found) == [
        "keyword", "blacklist", "task_frequency", "line_cap_sms", "company_cap_sms", "repeat",
    ]  # fmt: skip
    assert all(rule.passed for rule in explained.rules)
    line = msgspec.to_builtins(found["line_cap_sms"])
    midnight = "2026-11-23T16:00:00Z"  # in Shanghai
    assert (line["kind"], line["family"], line["count"], line["limit"], line["window_s"], line["resets_at"]) == (
        "line_cap", "intercept", 3, 5, 86_400.0, midnight,
    )  # fmt: skip
    assert (found["company_cap_sms"].count, found["company_cap_sms"].limit) == (3, 30)
    assert (found["repeat"].count, found["repeat"].window_s) == (0, 300)
    assert found["blacklist"].count is None


def test_all_rules_are_shown_past_the_first_objection(world: World) -> None:
    world.submit(world.order("sale", params={"what": "a"}))
    world.now_ms = at("2026-11-23T21:00:00")
    result, [explained] = rehearse(world, world.order("sale", params={"what": "LOT-TERY"}))
    assert (result.status, result.reason) == ("intercepted", "keyword")
    assert [rule.kind for rule in explained.rules if not rule.passed] == ["keyword", "quiet_hours", "frequency"]
    word = explained.rules[0]
    assert (word.word, word.list, word.field, word.position) == ("lottery", "default", "text", 5)


def test_a_block_carries_the_numbers_that_a_dry_run_gave(world: World) -> None:
    for n in range(5):
        world.submit(notice(world, n))
    _, [explained] = rehearse(world, notice(world, 9))
    assert world.decided(notice(world, 9)) == "intercepted line_cap"
    entry = world.log[-1]
    assert isinstance(entry, Block)
    objection = entry.blocks[0].objection
    shown = next(rule for rule in explained.rules if not rule.passed)
    assert (shown.name, shown.count, shown.limit, shown.window_s) == (
        objection.rule, objection.count, objection.limit, objection.window_s,
    )  # fmt: skip
    assert objection.resets_at_ms == at("2026-11-24T00:00:00")
    assert shown.resets_at is not None
    assert round(shown.resets_at.timestamp() * 1000) == objection.resets_at_ms


def test_a_known_trigger_is_a_duplicate_and_explained_as_if_new(world: World) -> None:
    order = notice(world, 1)
    first = world.submit(order)
    before = state(world)
    result, [explained] = rehearse(world, order)
    assert result.status == "duplicate"
    assert result.first is not None
    assert result.first.status == "accepted"
    assert [m.message for m in result.messages] == [m.message for m in first.messages]
    assert not next(rule for rule in explained.rules if rule.kind == "repeat").passed
    assert state(world) == before


def test_each_channel_tried_is_explained(world: World) -> None:
    _, explained = rehearse(world, world.order("both", params={"n": "1"}))
    assert [channel.channel for channel in explained] == ["sms", "push"]
    result, explained = rehearse(world, world.order("either", params={"n": "1"}), profile_of_phone(push=None))
    assert [(m.channel, m.status) for m in result.messages] == [("push", "rejected"), ("sms", "accepted")]
    assert [channel.channel for channel in explained] == ["sms"]


def test_what_is_for_later_is_explained_by_what_is_asked_at_once(world: World) -> None:
    later_s = world.now_ms / 1000 + 3_600
    result, [explained] = rehearse(world, world.order("sale", params={"what": "a"}, send_at=later_s))
    assert result.messages[0].due_ms == round(later_s * 1000)
    assert [rule.kind for rule in explained.rules] == ["keyword", "blacklist"]


orders = st.tuples(
    st.sampled_from(["notice", "sale", "code", "both", "either", "draft", "none"]),
    st.sampled_from(["u1", "u2"]),
    st.sampled_from(["wallet", "loan", "unknown"]),
    st.integers(0, 3),
    st.sampled_from([None, "spring"]),
    st.sampled_from([None, None, 0.5, 7_200.0]),
)
waits = st.sampled_from([0, 1, 299_999, 300_000, 8 * 3_600_000, DAY_MS])


@given(st.lists(st.tuples(orders, waits), min_size=1, max_size=14))
def test_a_dry_run_changes_nothing_and_says_what_comes(steps: list[tuple[tuple[Any, ...], int]]) -> None:
    """Before every order a dry run of it: the state's bytes stay what they were, and the order is then answered so."""
    world = shipped()
    for (template, user, line, n, task, later_s), wait_ms in steps:
        params = {"order": str(n), "amount": "1", "what": str(n), "code": str(n), "n": str(n)}
        send_at = None if later_s is None else world.now_ms / 1000 + later_s
        order = world.order(template, user, line, id=f"t{n}", params=params, task=task, send_at=send_at)
        before = state(world)
        dry, explained = rehearse(world, order)
        assert state(world) == before
        wet = world.submit(order)
        assert (dry.status, dry.reason, dry.first) == (wet.status, wet.reason, wet.first)
        assert [(m.channel, m.status, m.reason, m.due_ms) for m in dry.messages] == [
            (m.channel, m.status, m.reason, m.due_ms) for m in wet.messages
        ]
        if dry.status in ("filtered", "intercepted"):
            objecting = [rule.kind for channel in explained for rule in channel.rules if not rule.passed]
            assert dry.reason in objecting
        world.now_ms += wait_ms
