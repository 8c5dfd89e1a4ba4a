"""What a sender says of its provider: latency that shows while requests hang, rates, cells."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.latency import FLOOR_S, WARM, WORST
from dispatcher.receipt import Answer
from dispatcher.vitals import MOST_CELLS, Cell, Pulse, Vitals


def fed(pulse: Pulse, from_s: float, until_s: float, per_s: float, took_s: float, answer: Answer = "accepted") -> float:
    """Requests at even distances, each taking so long, all of them ended when this returns."""
    events = []
    for k in range(int((until_s - from_s) * per_s)):
        start_s = from_s + k / per_s
        events += [(start_s, 0), (start_s + took_s, 1)]
    for at_s, kind in sorted(events):
        if kind == 0:
            pulse.began(at_s)
        else:
            pulse.ended(took_s, [answer], at_s)
    return max(at_s for at_s, _ in events)


def test_steady_traffic_shows_its_latency() -> None:
    pulse = Pulse(0.0)
    end_s = fed(pulse, 0.0, 20.0, 100, 0.1)
    vitals = pulse.vitals(end_s)
    assert vitals.latency_s == pytest.approx(0.1, rel=0.15)
    assert vitals.usual_s == pytest.approx(0.1, rel=0.15)
    assert (vitals.p50_s, vitals.p95_s, vitals.error_rate, vitals.tripped) == (0.1, 0.1, 0.0, "")
    assert vitals.busy == pytest.approx(10, rel=0.25)
    assert vitals.traffic == pytest.approx(100, rel=0.25)


def test_hanging_requests_show_before_any_ends() -> None:
    pulse = Pulse(0.0)
    fed(pulse, 0.0, 10.0, 100, 0.1)
    for k in range(50):
        pulse.began(11.0 + k / 100)
    vitals = pulse.vitals(11.5)
    assert vitals.latency_s > 10 * vitals.usual_s


def test_one_stuck_request_of_many_moves_little() -> None:
    pulse = Pulse(0.0)
    fed(pulse, 0.0, 10.0, 500, 0.05)
    pulse.began(10.5)
    end_s = fed(pulse, 10.6, 12.6, 500, 0.05)
    vitals = pulse.vitals(end_s)
    assert vitals.latency_s < 2 * vitals.usual_s


def test_a_brownout_does_not_become_usual_and_a_peak_fades_when_it_is_over() -> None:
    pulse = Pulse(0.0)
    fed(pulse, 0.0, 30.0, 20, 0.05)
    usual_s = pulse.vitals(31.0).usual_s
    end_s = fed(pulse, 31.0, 91.0, 2, 1.0)
    vitals = pulse.vitals(end_s)
    assert vitals.usual_s < 1.2 * usual_s
    assert 8 * usual_s < vitals.latency_s <= WORST * max(vitals.usual_s, FLOOR_S)
    end_s = fed(pulse, end_s, end_s + 25, 2, 0.05)
    assert pulse.vitals(end_s).latency_s < 2 * usual_s


def test_what_lasts_becomes_usual_in_the_end() -> None:
    pulse = Pulse(0.0)
    fed(pulse, 0.0, 30.0, 10, 0.05)
    fed(pulse, 30.0, 4000.0, 5, 0.5)
    assert pulse.vitals(4000.5).usual_s > 0.3


@given(st.integers(0, 2**32), st.floats(0.2, 0.6))
def test_noise_is_not_a_brownout(seed: int, spread: float) -> None:
    rng, pulse = Random(seed), Pulse(0.0)
    events: list[tuple[float, int, float]] = []
    at_s = 0.0
    for _ in range(1500):
        at_s += rng.expovariate(50)
        took_s = rng.lognormvariate(-2.5, spread)
        events += [(at_s, 0, took_s), (at_s + took_s, 1, took_s)]
    for now_s, kind, took_s in sorted(events):
        if kind == 0:
            pulse.began(now_s)
        else:
            pulse.ended(took_s, ["accepted"], now_s)
    vitals = pulse.vitals(at_s)
    assert vitals.latency_s < 2.5 * vitals.usual_s


def test_errors_throttles_and_fading() -> None:
    pulse = Pulse(0.0)
    pulse.began(0.0)
    pulse.ended(0.1, ["transient"] * 4 + ["accepted"] * 4, 0.1)
    vitals = pulse.vitals(0.1)
    assert vitals.error_rate == pytest.approx(0.25)
    assert vitals.error_peak == vitals.error_rate
    assert pulse.vitals(5.1).error_rate == pytest.approx(0.125)
    pulse.began(5.1)
    pulse.ended(0.1, ["throttled"] * 8, 5.2)
    assert pulse.vitals(5.2).throttle_rate == pytest.approx(0.5)
    assert pulse.vitals(5.2).error_rate < 0.13, "a throttle is no error"


def test_trouble_with_the_account_trips_it_and_three_successes_heal_it() -> None:
    pulse = Pulse(0.0)
    pulse.began(0.0)
    pulse.ended(0.1, ["auth"], 0.1, code="E401")
    assert pulse.vitals(9.0).tripped == "auth: E401"
    for k in range(3):
        assert pulse.vitals(9.0).tripped
        pulse.began(10.0 + k)
        pulse.ended(0.1, ["accepted"], 10.1 + k)
    vitals = pulse.vitals(13.1)
    assert (vitals.tripped, vitals.streak, vitals.healed_s) == ("", 3, pytest.approx(1.0))


def test_a_tripped_one_stays_as_bad_as_it_was() -> None:
    pulse = Pulse(0.0)
    fed(pulse, 0.0, 1.0, 20, 0.1, "transient")
    before = pulse.vitals(1.1)
    after = pulse.vitals(100.0)
    assert before.tripped == after.tripped == "errors"
    assert after.error_rate == before.error_rate > 0.5
    assert after.quiet_s == pytest.approx(before.quiet_s + 98.9)


CN, US = ("CN", "verification"), ("US", "marketing")


def with_cells(pulse: Pulse, now_s: float, cn: Answer, us: Answer, n: int = 4) -> None:
    answers: list[Answer] = [cn] * n + [us] * n
    cells: list[Cell] = [CN] * n + [US] * n
    pulse.began(now_s)
    pulse.ended(0.05, answers, now_s + 0.05, cells=cells)


def test_a_region_that_fares_worse_is_told_and_the_others_are_not() -> None:
    pulse = Pulse(0.0)
    for k in range(12):
        with_cells(pulse, k / 10, "transient", "accepted")
    assert pulse.vitals(1.3).cells == (), "too few yet"
    for k in range(12, 30):
        with_cells(pulse, k / 10, "transient", "accepted")
    [cell] = pulse.vitals(3.0).cells
    assert (cell.region, cell.type) == CN
    assert cell.error_rate > 0.9
    for k in range(30, 200):
        with_cells(pulse, k / 10, "accepted", "accepted")
    assert pulse.vitals(20.0).cells == ()


def test_cells_are_bounded() -> None:
    pulse = Pulse(0.0)
    for k in range(4 * MOST_CELLS):
        pulse.began(k / 100)
        pulse.ended(0.005, ["transient"], k / 100 + 0.005, cells=[(f"R{k}", "notice")])
    assert len(pulse._cells) == MOST_CELLS
    pulse.began(100.0)
    pulse.ended(0.005, ["accepted"], 100.0, cells=[("new", "notice")])
    assert ("new", "notice") in pulse._cells, "idle ones make room"


def test_vitals_travel() -> None:
    pulse = Pulse(0.0)
    for k in range(60):
        with_cells(pulse, k / 10, "transient", "accepted")
    vitals = pulse.vitals(6.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(vitals), type=Vitals) == vitals
    assert vitals.cells
    assert vitals.seen == 60
    assert WARM < 60
