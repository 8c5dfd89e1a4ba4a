"""A simulated provider's behaviour: drawing, patching, and errors that name the field."""

from random import Random
from typing import Any

import pytest

from channels.simulator.behaviour import Behaviour, BehaviourError, Constant, Lognormal, Uniform, patched
from channels.simulator.provider import RateWindow


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"eror": 1}, "eror"),
        ({"error": 2}, "error"),
        ({"error": "x"}, "error"),
        ({"error": 0.6, "hang": 0.6}, "error"),
        ({"rejected": 0.6, "transient": 0.6}, "transient"),
        ({"latency": {"kind": "constant", "ms": -1}}, "latency.ms"),
        ({"latency": {"kind": "normal"}}, "latency.kind"),
        ({"latency": {"kind": "uniform", "low_ms": 2, "high_ms": 1}}, "latency.low_ms"),
        ({"latency": {"kind": "lognormal", "p50_ms": 2, "p99_ms": 1}}, "latency.p50_ms"),
        ({"latency": {"kind": "constant", "millis": 1}}, "latency.millis"),
        ({"rate_per_s": 0}, "rate_per_s"),
        ({"reports": {"url": "nowhere"}}, "reports.url"),
        ({"reports": {"delay_s": 1}}, "reports"),
        ([], ""),
    ],
)
def test_bad_field_is_named(patch: Any, path: str) -> None:
    with pytest.raises(BehaviourError) as caught:
        patched(Behaviour(), patch)
    assert caught.value.path == path


def test_patch_keeps_the_rest_and_null_puts_back() -> None:
    first = patched(Behaviour(), {"error": 0.5, "rate_per_s": 10, "latency": {"kind": "constant", "ms": 5}})
    second = patched(first, {"hang": 0.25, "rate_per_s": None})
    assert second == Behaviour(latency=Constant(5), error=0.5, hang=0.25)


def test_same_seed_same_fates() -> None:
    behaviour = Behaviour(error=0.2, throttle=0.2, hang=0.2, transient=0.3, rejected=0.3, invalid_recipient=0.3)
    first, second = Random("7:a"), Random("7:a")
    assert [behaviour.request_fate(first) for _ in range(99)] == [behaviour.request_fate(second) for _ in range(99)]
    assert behaviour.message_answers(99, first) == behaviour.message_answers(99, second)


def test_shares_come_out() -> None:
    rng = Random(1)
    behaviour = Behaviour(error=0.1, throttle=0.2, hang=0.3, rejected=0.25)
    fates = [behaviour.request_fate(rng) for _ in range(20_000)]
    for fate, rate in (("error", 0.1), ("throttle", 0.2), ("hang", 0.3), (None, 0.4)):
        assert fates.count(fate) / 20_000 == pytest.approx(rate, abs=0.015)
    answers = behaviour.message_answers(20_000, rng)
    assert answers is not None
    assert answers.count("rejected") / 20_000 == pytest.approx(0.25, abs=0.015)
    assert set(answers) == {"accepted", "rejected"}


def test_latency_distributions() -> None:
    rng = Random(1)
    assert Constant(20).draw_s(rng) == 0.02
    drawn = [Uniform(10, 20).draw_s(rng) for _ in range(1_000)]
    assert 0.01 <= min(drawn) <= max(drawn) <= 0.02
    drawn = sorted(Lognormal(50, 400).draw_s(rng) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.05, rel=0.05)
    assert drawn[19_800] == pytest.approx(0.4, rel=0.15)


def test_rate_window_never_lets_more_through_in_any_second() -> None:
    rng = Random(3)
    window, taken, now_s = RateWindow(), [], 100.0
    for _ in range(3_000):
        now_s += rng.expovariate(50)
        count = rng.randint(1, 10)
        wait_s = window.wait_s(count, 100, now_s)
        assert wait_s >= 0
        if not wait_s:
            taken.append((now_s, count))
            assert sum(n for at, n in taken if at > now_s - 1) <= 100
    assert sum(n for _, n in taken) > 0.9 * 100 * (now_s - 101)


def test_a_request_above_the_rate_passes_alone() -> None:
    window = RateWindow()
    assert window.wait_s(100, 10, 5.0) == 0
    assert window.wait_s(1, 10, 5.5) == pytest.approx(0.5)
    assert window.wait_s(1, 10, 6.0) == 0
