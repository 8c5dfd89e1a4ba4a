"""What the behaviour is at which time: pure, no sockets."""

import math
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels.simulator.behaviour import Behaviour, BehaviourError, Constant, Reports
from channels.simulator.provider import Accepted
from channels.simulator.reports import Schedule
from channels.simulator.scenario import (
    Scenario,
    Step,
    behaviours,
    moment,
    named_orders,
    names,
    read_order,
    shipped,
    stretched,
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    times_s = sorted(draw(st.sets(st.floats(0, 100, width=32), min_size=1, max_size=6)))
    ends_s = times_s[-1] + draw(st.floats(0.5, 50))
    steps = [Step(at_s, {"error": i / 10}) for i, at_s in enumerate(times_s)]
    return Scenario(steps, ends_s, repeat=draw(st.booleans()), jitter=draw(st.floats(0, 1)))


EDGE_S = 8.370862588654125  # the step begins at the next number there is


@given(scenario=scenarios(), seed=st.integers(0, 9), elapsed_s=st.floats(0, 10_000))
@example(scenario=Scenario([Step(0.0)], EDGE_S, repeat=True, jitter=2e-138), seed=0, elapsed_s=EDGE_S)
def test_until_is_when_the_step_changes(scenario: Scenario, seed: int, elapsed_s: float) -> None:
    now = moment(scenario, seed, elapsed_s)
    assert now == moment(scenario, seed, elapsed_s)
    assert now.until_s > elapsed_s
    if math.isinf(now.until_s):
        assert (now.step, scenario.repeat) == (None, False)
        assert elapsed_s >= scenario.ends_s
        return
    middle_s = elapsed_s + (now.until_s - elapsed_s) * 0.5
    assert middle_s == now.until_s or moment(scenario, seed, middle_s).step == now.step, "a number between, if any"
    after = moment(scenario, seed, now.until_s + 1e-6)
    assert after.until_s > now.until_s


@given(scenario=scenarios(), seed=st.integers(0, 9))
def test_one_round_visits_every_step_in_order_and_ends_in_time(scenario: Scenario, seed: int) -> None:
    seen: list[int | None] = []
    starts_s: list[float] = []
    at_s = 0.0
    while at_s < scenario.ends_s:
        now = moment(scenario, seed, at_s)
        seen.append(now.step)
        starts_s.append(at_s)
        at_s = now.until_s
    assert at_s == pytest.approx(scenario.ends_s)
    visited = [step for step in seen if step is not None]
    assert visited == sorted(visited)
    assert visited[-1] == len(scenario.steps) - 1
    assert None not in seen[1:]
    for step, start_s in zip(seen, starts_s, strict=True):
        if step is not None:
            edges = [one.at_s for one in scenario.steps] + [scenario.ends_s]
            length_s = edges[step + 1] - edges[step]
            assert edges[step] - 1e-9 <= start_s <= edges[step] + scenario.jitter * length_s + 1e-9


@given(scenario=scenarios(), seed=st.integers(0, 9), elapsed_s=st.floats(0, 500))
def test_without_jitter_every_round_is_the_same_and_stretching_is_only_slower(
    scenario: Scenario, seed: int, elapsed_s: float
) -> None:
    plain = msgspec.structs.replace(scenario, jitter=0.0, repeat=True)
    edges = [one.at_s for one in plain.steps] + [plain.ends_s, 0.0]
    if any(abs(elapsed_s % plain.ends_s - edge) < 1e-6 for edge in edges):
        return  # at an edge, rounding decides
    now = moment(plain, seed, elapsed_s)
    assert now.step == moment(plain, seed + 1, elapsed_s).step == moment(plain, seed, elapsed_s % plain.ends_s).step
    assert now.step == moment(stretched(plain, 4.0), seed, elapsed_s * 4.0).step


def test_jitter_differs_by_seed_and_by_round() -> None:
    scenario = Scenario([Step(0.0), Step(1.0)], 2.0, repeat=True, jitter=1.0)

    def changes(seed: int) -> list[float]:
        found, at_s = [], 0.0
        for _ in range(30):
            at_s = moment(scenario, seed, at_s).until_s
            found.append(at_s)
        return found

    assert changes(1) == changes(1)
    assert changes(1) != changes(2)
    lengths = {round(after - before, 6) for before, after in pairwise(changes(1))}
    assert len(lengths) > 10


def test_steps_patch_what_was_before_and_do_not_add_up() -> None:
    base = Behaviour(latency=Constant(20), rate_per_s=100)
    scenario = Scenario([Step(0.0, {"error": 0.5, "rate_per_s": None}), Step(1.0, {"hang": 0.5}), Step(2.0)], 3.0)
    assert behaviours(base, scenario) == [
        Behaviour(latency=Constant(20), error=0.5),
        Behaviour(latency=Constant(20), rate_per_s=100, hang=0.5),
        base,
    ]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "name"),
        ({"name": "no-such"}, "name"),
        ({"steps": []}, "steps"),
        ({"steps": [{"at_s": 0}]}, ""),
        ({"steps": [{"at_s": 0}], "ends_s": 0}, "ends_s"),
        ({"steps": [{"at_s": 2}, {"at_s": 2}], "ends_s": 3}, "steps[1].at_s"),
        ({"steps": [{"at_s": 3}], "ends_s": 3}, "ends_s"),
        ({"steps": [{"at_s": 0, "behaviour": {"eror": 1}}], "ends_s": 3}, "steps[0].behaviour.eror"),
        ({"steps": [{"at_s": 0, "behaviour": {"error": 2}}], "ends_s": 3}, "steps[0].behaviour.error"),
        ({"steps": [{"at_s": 0, "behavior": {}}], "ends_s": 3}, "steps[0].behavior"),
        ({"name": "blackout", "stretch": 0}, "stretch"),
        ({"name": "blackout", "jitter": 2}, "jitter"),
        ({"name": "blackout", "ends": 2}, "ends"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], path: str) -> None:
    with pytest.raises(BehaviourError) as caught:
        read_order(msgspec.json.encode(document)).scenario()
    assert caught.value.path == path


def test_shipped_ones_are_all_there_and_each_says_what_it_does() -> None:
    assert set(names()) == {"blackout", "brownout", "flapping", "hang", "odd-reports", "slow-start", "throttling"}
    unsure = {name for name in names() if any(one.leaves_unsure for one in behaviours(Behaviour(), shipped(name)))}
    assert unsure == {"blackout", "hang", "slow-start"}
    for name in names():
        assert shipped(name).about
        assert any(one != Behaviour() for one in behaviours(Behaviour(), shipped(name)))


def test_orders_from_the_command_line(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('ends_s = 4\nseed = 3\n[[steps]]\nat_s = 1\nbehaviour = { reset = 1 }\n')
    orders = named_orders(["brownout", f"b={own}"], ["a", "b"])
    assert orders["a"].scenario() == shipped("brownout")
    assert orders["b"].scenario() == Scenario([Step(1.0, {"reset": 1})], 4.0)
    assert orders["b"].seed == 3
    for word in ("nothing", "a=nothing"):
        with pytest.raises(BehaviourError, match="no scenario"):
            named_orders([word], ["a"])
    own.write_text("ends_s = 4\n")
    with pytest.raises(BehaviourError, match=r"own\.toml"):
        named_orders([str(own)], ["a"])
    own.write_text("{")
    with pytest.raises(ValueError, match="Invalid"):
        named_orders([str(own)], ["a"])


REPORTED = Behaviour(reports=Reports("http://x.test/", delay_s=1.0, undelivered_rate=0.5))


def taken(behaviour: Behaviour, seed: int, count: int = 500) -> list[tuple[int, bool]]:
    schedule = Schedule(Random(seed))
    for i in range(count):
        schedule.put([Accepted(str(i), f"r{i}")], behaviour, i / 100)
    found, now_s = [], 0.0
    while (wait_s := schedule.wait_s(now_s)) is not None:
        now_s += max(wait_s, 0.0)
        found += [(int(due.accepted.id), due.delivered) for due in schedule.take(now_s, 7)]
    return found


def test_reports_come_once_and_in_order() -> None:
    found = taken(REPORTED, 1)
    assert [id_ for id_, _ in found] == list(range(500))
    assert 200 < sum(delivered for _, delivered in found) < 300


def test_reports_come_twice_and_out_of_order() -> None:
    odd = msgspec.structs.replace(REPORTED, report_twice=0.33, report_spread_s=2.0)
    found = taken(odd, 1)
    assert found == taken(odd, 1)
    ids = [id_ for id_, _ in found]
    assert set(ids) == set(range(500))
    assert max(ids.count(id_) for id_ in set(ids)) == 2
    assert len(ids) - 500 == pytest.approx(165, abs=40)
    assert sum(after < before for before, after in pairwise(ids)) > 100
    words: dict[int, set[bool]] = {}
    for id_, delivered in found:
        words.setdefault(id_, set()).add(delivered)
    assert all(len(said) == 1 for said in words.values())  # a repeated report says what the first said
