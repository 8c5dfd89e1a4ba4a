"""Routers that hear the same agree; a bad provider is left fast, probed, and comes back; noise moves nothing."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.policies import POLICIES, Ours
from bench.routing import SEED, Run
from bench.traces import Moment, Scenario, Trace, scenarios
from dispatcher.health import AUTH_PROBE_S, BAND, LEAST, PROBE_S, SETTLE_S, STEP, Health
from dispatcher.receipt import Answer
from dispatcher.score import CAUSES, MIN_REPORTS, Around, Pooled, bound, judge
from dispatcher.vitals import CellVitals, Pulse, Vitals


def vitals(**changes: object) -> Vitals:
    """Of a provider that is well, but for the changes."""
    usual = {"seen": 100, "traffic": 50.0, "latency_s": 0.1, "usual_s": 0.1, "quiet_s": 0.1, "streak": 9}
    return Vitals(**{**usual, **changes})  # type: ignore[arg-type]


def sick(reason: str = "errors", **changes: object) -> Vitals:
    return vitals(**{"tripped": reason, "error_rate": 0.9, "error_peak": 0.9, "streak": -12, **changes})


def test_nobody_known_is_well() -> None:
    health = Health()
    assert health.score("a", 0.0) == health.share("a", 0.0) == 1.0
    assert health.view("a", 0.0).breaker == "closed"
    assert health.view("a", 0.0).reason is None


class TestScore:
    @pytest.mark.parametrize(
        ("changes", "score", "cause", "reason"),
        [
            ({"error_peak": 0.5, "error_rate": 0.4}, 0.25, "errors", "error rate 0.50"),
            ({"latency_s": 0.4}, 0.25, "latency", "latency 4x its usual"),
            ({"latency_s": 2.0}, LEAST, "latency", "latency 20x its usual"),
            ({"throttle_rate": 0.6}, 0.4, "throttled", "throttled 0.60"),
            ({"healed_s": 0.0}, 0.1, "starting", "share returns step by step after the probes"),
            ({"busy": 10.0}, 0.1, "busy", "100% of its limit in the air"),
        ],
    )
    def test_every_fault_costs_share_and_says_why(
        self, changes: dict[str, float], score: float, cause: str, reason: str
    ) -> None:
        changed: list[tuple[str, str]] = []
        health = Health(lambda provider, cause: changed.append((provider, cause)))
        health.heard("a", 1, vitals(), 0.0, 5, 10)
        assert health.score("a", 0.0) == 1.0
        health.heard("a", 1, vitals(**changes), 1.0, 5, 10)
        assert health.score("a", 1.0) == pytest.approx(score)
        assert changed == [("a", cause)]
        view = health.view("a", 1.04)
        assert view.reason == reason
        [change] = view.changes
        assert (change.cause, change.reason, change.ago_s) == (cause, reason, pytest.approx(0.04))
        assert change.score == pytest.approx(score)
        assert (view.in_flight, view.limit) == (5, 10)

    def test_small_latencies_do_not_matter(self) -> None:
        health = Health()
        health.heard("a", 1, vitals(latency_s=0.006, usual_s=0.002), 0.0)
        health.heard("b", 1, vitals(latency_s=0.002, usual_s=0.002), 0.0)
        assert health.score("a", 0.0) == health.score("b", 0.0) == 1.0

    def test_a_slow_habit_is_seen_beside_others_and_excused_alone(self) -> None:
        health = Health()
        health.keep({"a": "sms", "b": "sms", "mail": "email"})
        slow = vitals(latency_s=0.9, usual_s=0.9)
        health.heard("a", 1, slow, 0.0)
        health.heard("mail", 1, slow, 0.0)
        assert health.score("a", 0.0) == health.score("mail", 0.0) == 1.0
        health.heard("b", 1, vitals(latency_s=0.03, usual_s=0.03), 1.0)
        assert health.score("b", 1.0) == 1.0
        health.heard("a", 1, slow, 2.0)
        assert health.score("a", 2.0) == pytest.approx((2 * 0.24 / 0.9) ** 2)
        assert health.score("mail", 2.0) == 1.0

    def test_reports_count_where_there_are_enough(self) -> None:
        health = Health()
        health.keep({"a": "sms", "b": "sms"})
        health.reported("a", 45, MIN_REPORTS - 1, 0.0)
        health.reported("b", 0, 0, 0.0)
        assert health.score("a", 0.0) == 1.0
        assert health.view("a", 0.0).delivery_rate is None
        health.reported("b", 1000, 1000, 0.0)
        health.reported("a", 450, 1000, 0.0)
        assert health.score("a", 1.0) == pytest.approx(health.view("a", 1.0).delivery_rate or 0)
        assert 0.4 < health.score("a", 1.0) < 0.6
        assert health.view("a", 1.0).reason == "delivery rate 0.46, the best has 1.00"

    def test_success_rates_far_below_the_others_are_outliers(self) -> None:
        assert bound([0.5, 0.0, 0.0, 0.0]) == 1.0, "four are too few"
        rates = [0.01, 0.0, 0.02, 0.01, 0.01, 0.4]
        assert 0.2 < bound(rates) < 0.4
        assert bound([0.01, 0.012, 0.011, 0.01, 0.02]) > 0.1, "all alike: none is"
        health = Health()
        health.keep(dict.fromkeys("abcdef", "sms"))
        for id_, rate in zip("abcdef", rates, strict=True):
            health.heard(id_, 1, vitals(error_rate=rate, error_peak=rate), 0.0)
            health.score(id_, 0.0)
        assert health.score("f", 1.0) == LEAST
        assert health.score("c", 1.0) > 0.9

    def test_silence_with_a_call_out_costs_share(self) -> None:
        health = Health()
        health.heard("a", 1, vitals(), 0.0)
        assert health.score("a", 5.0, waited_s=0.0) == 1.0
        assert health.score("a", 5.0, waited_s=1.5) == pytest.approx(0.25)
        assert health.view("a", 5.0).reason == "silent for 1.5 s"
        health.heard("a", 1, vitals(), 5.1)
        assert health.score("a", 5.1, waited_s=1.6) == 1.0, "its sender lives, and would say if requests hung"
        assert health.score("new", 5.0, waited_s=1.5) == pytest.approx(0.25)

    @given(
        st.builds(
            Pooled,
            error_peak=st.floats(0, 1), throttle_rate=st.floats(0, 1), latency_s=st.floats(0, 1e4),
            usual_s=st.floats(0, 1e4), busy=st.floats(0, 50), healed_s=st.floats(0, 1e9),
        ),
        st.builds(Around, st.floats(0, 100), st.floats(0, 1), st.floats(0, 1)),
        st.none() | st.floats(0, 1),
        st.floats(0, 1e6),
    )  # fmt: skip
    def test_scores_stay_within_bounds(self, pool: Pooled, around: Around, rate: float | None, silent_s: float) -> None:
        verdict = judge(pool, around, rate, silent_s)
        assert LEAST <= verdict.score <= 1.0
        assert verdict.cause in CAUSES


class TestPool:
    def test_what_a_dead_sender_said_is_forgotten(self) -> None:
        health = Health()
        health.heard("a", 1, sick(), 0.0)
        assert health.share("a", 0.0) == 0.0
        health.gone("a", 1)
        assert health.share("a", 0.1) > 0.0
        assert health.out("a") is None
        health.heard("a", 2, sick(), 0.2)
        health.heard("a", 3, vitals(), 0.2)
        health.only("a", {2})
        assert health.share("a", 0.3) == 0.0

    def test_it_is_out_only_when_every_sender_that_knows_says_so(self) -> None:
        health = Health()
        health.heard("a", 1, sick(), 0.0)
        health.heard("a", 2, Vitals(), 0.0)
        assert health.share("a", 0.0) == 0.0, "the other has seen nothing"
        health.heard("a", 2, vitals(), 0.1)
        assert health.share("a", 0.1) == 1.0

    def test_others_are_forgotten(self) -> None:
        health = Health()
        health.heard("a", 1, sick(), 0.0)
        health.keep({"b": "sms"})
        assert health.share("a", 0.0) == 1.0

    def test_cells_have_shares_of_their_own(self) -> None:
        health = Health()
        cell = CellVitals("CN", "verification", 0.9, 0.0, 0.1)
        health.heard("a", 1, vitals(cells=(cell,)), 0.0)
        assert health.score("a", 0.0) == 1.0
        assert health.score("a", 0.0, cell=("CN", "verification")) == pytest.approx(LEAST)
        assert health.score("a", 0.0, cell=("US", "verification")) == 1.0
        assert health.apart(["b", "a"], ("CN", "verification"))
        assert not health.apart(["b", "a"], ("CN", "notice"))
        assert health.view("a", 0.0).cells == {"CN verification": pytest.approx(LEAST)}


class TestHysteresis:
    @given(st.lists(st.floats(1 / BAND + 0.001, 1.0), min_size=1, max_size=30), st.integers(0, 2**32))
    def test_noise_within_the_band_moves_nothing(self, scores: list[float], seed: int) -> None:
        rng, changes = Random(seed), Counter[str]()
        health = Health(lambda _, cause: changes.update([cause]))
        health.heard("a", 1, vitals(), 0.0)
        assert health.score("a", 0.0) == 1.0
        now_s = 0.0
        for score in scores:
            now_s += rng.random() * SETTLE_S / 40
            health.heard("a", 1, vitals(error_peak=1 - score**0.5), now_s)
            assert health.score("a", now_s) == 1.0
        assert not changes

    @given(st.floats(LEAST, 1.0), st.floats(LEAST, 1.0))
    def test_beyond_it_moves_at_once_and_within_it_later(self, before: float, after: float) -> None:
        assume(abs(before / after - BAND) > 1e-6)
        assume(abs(after / before - BAND) > 1e-6)
        assume(abs(abs(before - after) - STEP) > 1e-6)
        health = Health()
        health.heard("a", 1, vitals(error_peak=1 - before**0.5), 0.0)
        assert health.score("a", 0.0) == pytest.approx(before)
        health.heard("a", 1, vitals(error_peak=1 - after**0.5), 1.0)
        beyond = abs(after - before) >= STEP and not before / BAND <= after <= before * BAND
        assert health.score("a", 1.0) == pytest.approx(after if beyond else before)
        health.heard("a", 1, vitals(error_peak=1 - after**0.5), 1.0 + SETTLE_S)
        assert health.score("a", 1.0 + SETTLE_S) == pytest.approx(after)

    def test_changes_are_bounded(self) -> None:
        health = Health()
        for k in range(100):
            health.heard("a", 1, vitals(error_peak=0.9 * (k % 2)), float(k))
            health.score("a", float(k))
        assert len(health.view("a", 100.0).changes) == 16


class TestBreaker:
    def test_out_probed_half_open_and_back(self) -> None:
        changed: list[str] = []
        health = Health(lambda _, cause: changed.append(cause))
        health.heard("a", 1, vitals(), 9.0)
        health.score("a", 9.0)
        health.heard("a", 1, sick(quiet_s=0.0), 10.0)
        assert health.share("a", 10.0) == 0.0
        assert health.score("a", 10.0) == LEAST
        assert health.out("a") == "errors"
        assert health.view("a", 10.0).breaker == "open"
        assert not health.probe("a", 10.0 + PROBE_S / 2)
        assert not health.probe("a", 10.0 + PROBE_S, patience=5)
        assert health.probe("a", 10.0 + PROBE_S)
        assert not health.probe("a", 10.0 + PROBE_S)
        health.heard("a", 1, sick(quiet_s=0.0, streak=1), 11.1)
        assert health.share("a", 11.1) == 0.0
        assert health.view("a", 11.1).breaker == "half_open"
        assert [health.probe("a", 11.1) for _ in range(3)] == [True, True, False]
        health.heard("a", 1, vitals(healed_s=0.0, streak=3), 11.2)
        assert health.share("a", 11.2) == pytest.approx(0.1)
        health.heard("a", 1, vitals(healed_s=10.0), 21.2)
        assert health.share("a", 21.2) == 1.0
        assert changed == ["errors", "probe", "well"]
        assert [change.reason for change in health.view("a", 22.0).changes] == [
            "well again",
            "probes passed",
            "error rate 0.90, 12 failed in a row",
        ]

    def test_auth_takes_it_out_with_its_reason(self) -> None:
        health = Health()
        health.heard("a", 1, sick("auth: E401", quiet_s=0.0), 0.0)
        view = health.view("a", 0.0)
        assert (view.breaker, view.reason) == ("open", "auth: E401")
        assert not health.probe("a", PROBE_S)
        assert health.probe("a", AUTH_PROBE_S)

    def test_where_all_are_out_the_least_bad_one_is_tried_first_and_at_once(self) -> None:
        health = Health()
        health.heard("account", 1, sick("auth", error_rate=0.1, quiet_s=9.0), 0.0)
        health.heard("worse", 1, sick(error_rate=0.95, quiet_s=9.0), 0.0)
        health.heard("bad", 1, sick(error_rate=0.85, quiet_s=9.0), 0.0)
        ids = ["account", "worse", "bad"]
        assert [health.share(id_, 0.0) for id_ in ids] == [0.0, 0.0, 0.0]
        order = [health.probed(ids, 0.0, patience=5.0) for _ in range(4)]
        assert order == ["bad", "worse", "account", None]
        assert health.probed(ids, PROBE_S, patience=5.0) == "bad"

    @given(st.integers(0, 2**32), st.lists(st.floats(0.001, 0.5), min_size=50, max_size=150))
    def test_all_out_never_refuses_for_ever(self, seed: int, steps_s: list[float]) -> None:
        rng, health = Random(seed), Health()
        ids = ["a", "b", "c"]
        for id_ in ids:
            health.heard(id_, 1, sick(quiet_s=0.0, error_rate=rng.random()), 0.0)
            health.share(id_, 0.0)
        now_s, last_s = 0.0, 0.0
        for step_s in steps_s:
            now_s += step_s
            chosen = health.probed(ids, now_s, patience=5.0)
            if chosen is None:
                assert now_s < last_s + PROBE_S, "within a pause somebody is tried"
            else:
                last_s = now_s


# -- several routers, real pulses


def story(seed: int) -> Iterator[tuple[float, Pulse, int]]:
    """A provider's two senders under random conditions: after each event, when, whose, and which it is."""
    rng = Random(seed)
    pulses = [Pulse(0.0), Pulse(0.0)]
    now_s, slow, error = 0.0, 1.0, 0.0
    for k in range(400):
        if k % 80 == 0:
            slow, error = rng.choice([(1.0, 0.0), (20.0, 0.0), (1.0, 1.0), (1.0, 0.3)])
        now_s += rng.expovariate(40)
        at = rng.randrange(2)
        took_s = 0.02 * slow * rng.uniform(0.7, 1.4)
        answer: Answer = "transient" if rng.random() < error else "accepted"
        pulses[at].began(now_s - min(took_s, 0.01))
        pulses[at].ended(took_s, [answer], now_s)
        yield now_s, pulses[at], at


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_routers_that_hear_the_same_senders_agree_and_a_new_one_knows_at_once(seed: int) -> None:
    rng = Random(seed)
    one, other = Health(), Health()
    pulses: dict[int, Pulse] = {}
    heard_s = 0.0
    for now_s, pulse, at in story(seed):
        pulses[at] = pulse
        if rng.random() < 0.5:  # each hears what it asked for itself ...
            (one if rng.random() < 0.5 else other).heard("a", at, pulse.vitals(now_s), now_s)
        if now_s >= heard_s + 0.25:  # ... and everybody four times a second
            heard_s = now_s
            new = Health()
            for health in (one, other, new):
                for sender, known in pulses.items():
                    health.heard("a", sender, known.vitals(now_s), now_s)
            shares = [health.share("a", now_s) for health in (one, other, new)]
            assert len({health.out("a") for health in (one, other, new)}) == 1
            low, high = min(shares), max(shares)
            assert high <= low * BAND**2 + 1e-9 or high - low <= 2 * STEP


def play(scenario: Scenario) -> tuple[Run, Ours]:
    prices = {id_: trace.price for id_, trace in scenario.providers.items()}
    ours = Ours(prices, Random(SEED))
    run = Run(scenario, ours, Random(SEED))
    run.play()
    return run, ours


def test_a_brownout_costs_share_within_a_second_and_no_longer_than_it_must() -> None:
    [brownout] = [scenario for scenario in scenarios() if scenario.name == "brownout"]
    run, _ = play(brownout)
    ours = run.outcome("ours")
    robin = Run(brownout, POLICIES["round robin"]({"a": 1, "b": 1, "c": 1}, Random(SEED)), Random(SEED))
    robin.play()
    assert ours.under_s is not None
    assert ours.under_s <= 1.0
    assert ours.back_s is not None
    assert ours.back_s <= 30.0
    assert 0 < ours.late * 10 <= robin.outcome("round robin").late
    assert ours.lost == 0


def test_without_faults_nothing_changes() -> None:
    [price] = [scenario for scenario in scenarios() if scenario.name == "price"]
    run, ours = play(price)
    assert ours.changes == 0
    assert run.outcome("ours").flaps == 0
    b = sum(of_bin.get("b", 0) for of_bin in run.bins) / len(run.messages)
    assert b == pytest.approx(1 - 2 / 3 * 0.05, abs=0.01), "the cheapest has all but what keeps the others warm"


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=6)
def test_an_ejected_provider_gets_only_probes_and_all_come_back(seed: int, everybody: bool) -> None:
    traces = {id_: Trace([Moment(0.0, 0.05)]) for id_ in "abc"}
    for id_ in "abc" if everybody else "a":
        traces[id_] = Trace([Moment(0.0, 0.05), Moment(5.0, 0.05, error=1.0), Moment(20.0, 0.05)])
    scenario = Scenario("blackout", "", traces, 5.0, 20.0, 40.0, 60.0)
    ours = Ours(dict.fromkeys("abc", 1.0), Random(seed))
    run = Run(scenario, ours, Random(seed))
    run.play()
    for id_ in "abc" if everybody else "a":
        sent = sum(of_bin.get(id_, 0) for of_bin in run.bins[28:80])  # from two seconds into it to its end
        assert 0 < sent <= 13 / PROBE_S * len(ours._routers) + 2
    assert all(message.accepted_s is not None for message in run.messages)
    last = Counter[str]()
    for of_bin in run.bins[140:160]:
        last.update(of_bin)
    assert min(last[id_] / last.total() for id_ in "abc") > 0.25
