"""What every rule owes, whatever its kind. A new kind is covered once it stands in `NAMES` and has `examples`."""

import copy
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from dispatcher.catalog import decode_document
from dispatcher.kinds import CHANNELS, TYPES
from dispatcher.rulebook import Rulebook
from dispatcher.rules import (
    NAMES,
    RULE_KINDS,
    STATUS_OF,
    AnyRule,
    Capped,
    Objection,
    Rule,
    check_rules,
    decide,
    explain,
)
from dispatcher.user import REFUNDED, Kind, UserView
from tests.scenes import CASES, MINE, NOON_MS, example, message_at, rule_of, scene, view

SCOPES: list[tuple[str, Any, dict[str, Any]]] = [
    ("types", ["notice"], {"type": "marketing"}),
    ("channels", ["push"], {"channel": "sms"}),
    ("lines", ["loan"], {"line": "wallet"}),
    ("templates", ["other"], {"template": "sale"}),
    ("levels", [1, 2], {"level": 5}),
]


def objection_of(rule: Rule, user: UserView | None = None) -> Objection | None:
    message, someone, now_ms = scene(str(rule.__struct_config__.tag))
    return rule.decide(message, user or someone, now_ms)


def test_every_kind_has_examples() -> None:
    assert tuple(RULE_KINDS) == NAMES
    assert set(RULE_KINDS.values()) == set(AnyRule.__args__)  # type: ignore[attr-defined]
    assert all(kind.examples for kind in RULE_KINDS.values())


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def rule(request: pytest.FixtureRequest) -> Rule:
    return example(*request.param)


def test_a_rule_is_its_configuration(rule: Rule) -> None:
    again = decode_document("rules", msgspec.json.encode([rule]))
    assert again == [rule]
    assert msgspec.json.encode(again) == msgspec.json.encode([rule])
    assert msgspec.to_builtins(rule)["kind"] in RULE_KINDS
    with pytest.raises(AttributeError):
        rule.name = "another"  # type: ignore[misc]


def test_an_unknown_field_is_refused_by_its_path(rule: Rule) -> None:
    config = msgspec.to_builtins(rule)
    with pytest.raises(msgspec.ValidationError, match=r"unknown field `colour` - at `\$\[1\]`"):
        decode_document("rules", msgspec.json.encode([config, {**config, "colour": "red"}]))
    with pytest.raises(msgspec.ValidationError, match=r"`\$\[0\]\.types\[0\]`"):
        decode_document("rules", msgspec.json.encode([{**config, "types": ["letter"]}]))
    del config["name"]
    with pytest.raises(msgspec.ValidationError, match="missing required field `name`"):
        decode_document("rules", msgspec.json.encode([config]))


def test_it_objects_in_its_own_name(rule: Rule) -> None:
    objection = objection_of(rule)
    assert objection is not None
    assert (objection.rule, objection.kind, objection.family) == ("a rule", rule.__struct_config__.tag, rule.family)
    assert objection.family in STATUS_OF
    assert rule.__doc__


def test_it_decides_the_same_again_and_changes_nothing(rule: Rule) -> None:
    message, user, now_ms = scene(str(rule.__struct_config__.tag))
    before = [(name, copy.deepcopy(getattr(user, name))) for name in ("listed", "_packed", "_kind", "_kinds")]
    config, said = msgspec.to_builtins(rule), msgspec.to_builtins(message)
    decisions = [rule.decide(message, user, now_ms) for _ in range(3)]
    assert decisions[0] == decisions[1] == decisions[2]
    assert [(name, getattr(user, name)) for name, _ in before] == before
    assert (msgspec.to_builtins(rule), msgspec.to_builtins(message)) == (config, said)


def test_its_numbers_make_sense(rule: Rule) -> None:
    message, user, now_ms = scene(str(rule.__struct_config__.tag))
    found = rule.decide(message, user, now_ms)
    assert found is not None
    if found.count is not None:
        assert found.limit is not None
        assert found.window_s is not None
        assert found.window_s > 0
        assert 0 <= found.limit <= found.count <= 3
    if found.resets_at_ms is not None:
        assert found.resets_at_ms > now_ms
    if found.defer_until_ms is not None:
        assert now_ms < found.defer_until_ms < message.expires_ms
        assert rule.decide(message, user, found.defer_until_ms) is None
    assert msgspec.json.decode(msgspec.json.encode(found), type=Objection) == found


def test_it_objects_no_more_when_it_says_so(rule: Rule) -> None:
    """`resets_at_ms` is the first moment at which a message passes, if nothing else is sent meanwhile."""
    message, user, now_ms = scene(str(rule.__struct_config__.tag))
    found = rule.decide(message, user, now_ms)
    assert found is not None
    if found.resets_at_ms is not None and found.limit != 0:
        assert rule.decide(message, user, found.resets_at_ms - 1) is not None
        assert rule.decide(message, user, found.resets_at_ms) is None


@pytest.mark.parametrize(("field", "others", "mine"), SCOPES, ids=[scope[0] for scope in SCOPES])
def test_outside_its_scope_it_sees_nothing(rule: Rule, field: str, others: list[Any], mine: dict[str, Any]) -> None:
    config = msgspec.to_builtins(rule)
    inside, outside = ({**config, field: values} for values in (list(mine.values()), others))
    [one, other] = decode_document("rules", msgspec.json.encode([inside, {**outside, "name": "b"}]))
    assert (one.sees(MINE), other.sees(MINE)) == (True, False)
    assert Rulebook([one, other]).seeing(MINE) == (one,)
    assert objection_of(one) is not None


@pytest.mark.parametrize(("field", "others", "mine"), SCOPES, ids=[scope[0] for scope in SCOPES])
def test_sends_outside_its_scope_do_not_count(rule: Rule, field: str, others: list[Any], mine: dict[str, Any]) -> None:
    if not isinstance(rule, Capped) or rule.limit == 0:
        return
    [attribute] = mine
    scoped = decode_document("rules", msgspec.json.encode([{**msgspec.to_builtins(rule), field: [mine[attribute]]}]))[0]
    elsewhere = MINE._replace(**{attribute: others[0]})
    assert objection_of(scoped, view(NOON_MS, kind=elsewhere)) is None
    assert objection_of(scoped, view(NOON_MS)) is not None


def test_another_channels_sends_never_count(rule: Rule) -> None:
    if rule.horizon_ms() and not rule.of_tasks and getattr(rule, "limit", 1):
        assert objection_of(rule, view(NOON_MS, kind=MINE._replace(channel="push"))) is None


def test_refunded_sends_never_count(rule: Rule) -> None:
    if rule.horizon_ms() and getattr(rule, "limit", 1):
        assert objection_of(rule, view(NOON_MS, state=REFUNDED)) is None


def test_its_horizon_covers_what_it_counts(rule: Rule) -> None:
    """A send that the sweep may forget changes no decision: beyond the horizon it makes none, within it is kept."""
    horizon_ms = rule.horizon_ms()
    assert horizon_ms >= 0
    if not horizon_ms or getattr(rule, "limit", 1) == 0:
        return
    assert objection_of(rule, view(NOON_MS, (horizon_ms + 2, horizon_ms + 1, horizon_ms))) is None
    assert Rulebook([rule]).horizons_ms(MINE) == ((0, horizon_ms) if rule.of_tasks else (horizon_ms, 0))
    if getattr(rule, "window_s", None) is not None:
        assert objection_of(rule, view(NOON_MS, (horizon_ms - 1,) * 3)) is not None


@given(st.sampled_from(CASES), st.lists(st.integers(0, 200_000_000), max_size=8), st.integers(-90_000_000, 90_000_000))
def test_what_lies_beyond_the_horizon_is_never_missed(case: tuple[str, int], ages: list[int], shift_ms: int) -> None:
    rule = example(*case)
    now_ms = NOON_MS + shift_ms
    message = message_at(now_ms)
    ages = sorted(ages, reverse=True)
    kept = tuple(age for age in ages if age < rule.horizon_ms())
    whole = rule.decide(message, view(now_ms, tuple(ages)), now_ms)
    assert rule.decide(message, view(now_ms, kept), now_ms) == whole


@given(st.sampled_from(CHANNELS), st.sampled_from(list(TYPES)), st.integers(1, 5), st.sampled_from(CASES))
def test_an_empty_scope_sees_everything(channel: str, type_: str, level: int, case: tuple[str, int]) -> None:
    rule = example(*case)
    expected = not rule.types or type_ in rule.types
    expected = expected and level >= getattr(rule, "min_level", 1)
    assert rule.sees(Kind(channel, type_, level, "l", "t")) is expected


def test_nothing_is_held_against_somebody_who_got_nothing_by_day(rule: Rule) -> None:
    fresh = view(NOON_MS, (), listed=None, words={})
    if getattr(rule, "limit", 1) and getattr(rule, "allow", "09:00-20:00") == "09:00-20:00":
        assert rule.decide(message_at(NOON_MS), fresh, NOON_MS) is None


def test_it_measures_what_it_decides(rule: Rule) -> None:
    """`measure` has all numbers whether it objects or not, and objects when `decide` does, with the same ones."""
    message, user, now_ms = scene(str(rule.__struct_config__.tag))
    for someone in (user, view(now_ms, (), listed=None, words={})):
        [finding] = explain([rule], message, someone, now_ms)
        assert finding == rule.measure(message, someone, now_ms)
        objection = rule.decide(message, someone, now_ms)
        assert finding.passed is (objection is None)
        assert objection is None or objection == finding.numbers
        if rule.horizon_ms():
            numbers = finding.numbers
            assert numbers.window_s is not None
            assert (numbers.count, numbers.limit) == (0 if someone is not user else numbers.count, numbers.limit)
            assert numbers.count is not None
            assert numbers.limit is not None


@given(st.sampled_from(CASES), st.lists(st.integers(0, 100_000_000), max_size=6), st.integers(-90_000_000, 90_000_000))
def test_it_measures_what_it_decides_at_any_time(case: tuple[str, int], ages: list[int], shift_ms: int) -> None:
    rule, now_ms = example(*case), NOON_MS + shift_ms
    message, user = message_at(now_ms), view(now_ms, tuple(sorted(ages, reverse=True)))
    finding, objection = rule.measure(message, user, now_ms), rule.decide(message, user, now_ms)
    assert finding.passed is (objection is None)
    assert objection is None or objection == finding.numbers


def test_the_first_that_objects_wins() -> None:
    rules = [example(kind, 0) for kind in ("repeat", "line_cap", "frequency")]
    message, user, now_ms = scene("repeat")
    for turned in (rules, rules[::-1]):
        found = decide(turned, message, user, now_ms)
        assert found is not None
        assert found.kind == turned[0].__struct_config__.tag
    assert decide([], message, user, now_ms) is None


def test_names_are_unique() -> None:
    rules = [rule_of("repeat"), rule_of("blacklist"), rule_of("repeat")]
    assert [path for path, _ in check_rules(rules)] == ["[1].name", "[2].name"]
