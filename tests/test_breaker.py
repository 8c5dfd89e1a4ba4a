"""The breaker trips after enough failures, grants few probes, and heals on answers alone."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.breaker import AUTH_PROBE_S, GOOD_TO_CLOSE, IN_A_ROW, OUT_AT, PROBE_S, Latch, Probes


def test_ten_failures_in_a_row_trip_it_and_nine_do_not() -> None:
    latch = Latch()
    for n in range(IN_A_ROW):
        assert latch.reason == "", n
        latch.record(False, 0.0, float(n))
    assert latch.reason == "errors"


def test_a_high_error_rate_trips_it_at_once() -> None:
    latch = Latch()
    latch.record(False, OUT_AT, 0.0)
    assert latch.reason == ""
    latch.record(False, OUT_AT + 0.01, 0.0)
    assert latch.reason == "errors"


@given(st.lists(st.booleans(), max_size=200))
def test_it_is_tripped_exactly_between_ten_bad_and_three_good_in_a_row(verdicts: list[bool]) -> None:
    latch, row, tripped = Latch(), 0, False
    for n, good in enumerate(verdicts):
        row = (max(row, 0) + 1) if good else (min(row, 0) - 1)
        if tripped and row >= GOOD_TO_CLOSE:
            tripped = False
        elif row <= -IN_A_ROW:
            tripped = True
        healed = latch.record(good, 0.0, float(n))
        assert bool(latch.reason) == tripped
        assert latch.streak == row
        if healed:
            assert latch.healed_s(n + 2.0) == 2.0


@given(st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60), st.sampled_from(["errors", "auth: E1"]))
def test_an_open_one_grants_one_probe_a_pause(steps_s: list[float], reason: str) -> None:
    probes, every_s = Probes(), AUTH_PROBE_S if reason.startswith("auth") else PROBE_S
    probes.news(reason, -IN_A_ROW, 0.0)
    now_s, granted_s = 0.0, [0.0]
    for step_s in steps_s:
        now_s += step_s
        if probes.grant(now_s):
            assert now_s - granted_s[-1] >= every_s - 1e-9
            granted_s.append(now_s)
        else:
            assert now_s - granted_s[-1] < every_s + 1e-9


@given(st.integers(1, GOOD_TO_CLOSE - 1), st.integers(1, 50))
def test_a_half_open_one_grants_what_is_still_missing_and_no_more(streak: int, asked: int) -> None:
    probes = Probes()
    probes.news("errors", streak, 10.0)
    assert probes.half_open
    granted = sum(probes.grant(10.0) for _ in range(asked))
    assert granted == min(asked, GOOD_TO_CLOSE - streak)
    probes.news("errors", -1, 10.1)
    assert not probes.half_open
    assert not probes.grant(10.2)
    assert probes.grant(11.1)


def test_another_routers_probe_postpones_ours() -> None:
    probes = Probes()
    probes.news("errors", -20, 0.0)
    probes.news("errors", -21, 0.9)  # somebody's probe failed
    assert not probes.grant(1.5)
    assert probes.grant(1.9)


def test_patience_multiplies_the_pause() -> None:
    probes = Probes()
    probes.news("errors", -20, 0.0)
    assert not probes.grant(4.9, patience=5.0)
    assert probes.grant(5.0, patience=5.0)
