"""In no window does a quota let more be written than its share, and a message that is not urgent never crowds it."""

from math import floor, inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.kinds import BULK, NORMAL, URGENT
from dispatcher.quota import PACE_S, Quota, whole

LANES = st.sampled_from([URGENT, NORMAL, BULK])


def busiest(writes: list[tuple[float, int]], window_s: float) -> int:
    """The most messages written in any half-open window."""
    return max((sum(n for t, n in writes if at <= t < at + window_s) for at, _ in writes), default=0)


def opened(rate_per_s: float, now_s: float = 1000.0) -> Quota:
    """A quota that is all its own and whose first period is over."""
    quota = Quota(rate_per_s, now_s - 100.0)
    quota.lease(quota.total, inf, now_s)
    return quota


def send(quota: Quota, n: int, now_s: float, lane: int = URGENT) -> int:
    """Grant and write at once."""
    n = quota.grant(n, now_s, lane)
    quota.wrote(n, now_s)
    return n


@given(
    st.floats(0.1, 50.0),
    st.lists(st.tuples(st.floats(0.0, 0.7), st.integers(1, 30), LANES, st.floats(0.0, 2.0)), max_size=60),
)
def test_never_over_in_any_window(rate_per_s: float, steps: list[tuple[float, int, int, float]]) -> None:
    """Whenever what was granted is written."""
    quota = opened(rate_per_s)
    now_s = 1000.0
    writes: list[tuple[float, int]] = []
    pending: list[tuple[float, int]] = []
    for pause_s, n, lane, late_s in steps:
        now_s += pause_s
        for at_s, granted in [one for one in sorted(pending) if one[0] <= now_s]:
            quota.wrote(granted, at_s)
            writes.append((at_s, granted))
            pending.remove((at_s, granted))
        granted = quota.grant(n, now_s, lane)
        assert 0 <= granted <= n
        if granted:
            pending.append((now_s + late_s, granted))
    writes += pending
    total, period_s = whole(rate_per_s)
    assert busiest(writes, period_s) <= total == max(floor(rate_per_s), 1)


@given(st.floats(0.2, 200.0), st.integers(1, 300), LANES)
def test_wait_is_long_enough_and_no_longer(rate_per_s: float, n: int, lane: int) -> None:
    quota = opened(rate_per_s, 10.0)
    send(quota, n, 10.0, lane)
    wait_s = quota.wait_s(10.0, lane)
    if wait_s > 0:
        assert quota.left(10.0 + wait_s * 0.9 - 0.004, lane) == 0
        assert quota.left(10.0 + wait_s + 0.0001, lane) > 0
        assert quota.within(wait_s + 0.0001, 10.0, lane) > 0


@given(st.integers(1, 3000), LANES, st.randoms(use_true_random=False))
def test_any_lane_alone_can_use_the_quota(rate: int, lane: int, rng: Any) -> None:
    """With a timer that is up to 2 ms late: from 97 % on. The first second is spread, the others follow it."""
    quota = opened(rate)
    now_s, sent = 1000.0, 0
    while now_s < 1011.0:
        n = send(quota, rate, now_s, lane)
        sent += n if now_s >= 1001.0 else 0
        now_s += max(quota.wait_s(now_s, lane), 0.0) + rng.uniform(0.0, 0.002)
    assert sent >= 0.97 * 10 * rate - 1


@given(st.integers(50, 3000), st.floats(0.0, 3.0))
def test_an_urgent_message_soon_finds_a_unit_free_though_bulk_would_have_all(rate: int, after_s: float) -> None:
    quota = opened(rate)
    now_s = 1000.0
    while now_s < 1000.0 + after_s:
        send(quota, rate, now_s, BULK)
        now_s += max(quota.wait_s(now_s, BULK), 0.0005)
    assert quota.wait_s(now_s, URGENT) <= PACE_S + 2 / rate + 0.005


def test_what_is_not_urgent_is_spread_and_urgent_is_not() -> None:
    quota = opened(125)
    assert send(quota, 125, 1000.0, BULK) == 1 + floor(PACE_S * 125)
    assert send(quota, 125, 1000.0, NORMAL) == 0
    assert 0 < quota.wait_s(1000.0, NORMAL) < 0.008
    assert send(quota, 125, 1000.0) == 122
    assert quota.left(1000.999) == 0
    assert quota.left(1001.003) == 125


def test_what_is_granted_counts_until_it_is_written_and_a_period_more() -> None:
    quota = opened(10)
    assert quota.grant(10, 1000.0) == 10
    assert quota.left(1005.0) == 0
    assert 0 < quota.wait_s(1005.0) < 0.1
    quota.wrote(6, 1005.0)
    quota.undo(4)
    assert quota.left(1005.0) == 4
    assert quota.left(1005.999) == 4
    assert quota.left(1006.003) == 10


def test_nothing_in_the_first_period_of_a_process() -> None:
    quota = Quota(0.5, 1000.0)
    quota.lease(1, inf, 1000.0)
    assert quota.left(1001.9) == 0
    assert abs(quota.wait_s(1000.5) - 1.5) < 1e-6
    assert quota.left(1002.0) == 1


def test_a_lease_ends_and_what_it_granted_with_it() -> None:
    quota = opened(10)
    quota.lease(5, 1003.0, 1000.0)
    assert quota.grant(7, 1002.9) == 5
    term = quota.term
    assert quota.valid(1002.9)
    quota.lease(6, 1003.5, 1002.95)
    assert (quota.term, quota.valid(1003.2)) == (term, True)
    assert not quota.valid(1003.5)
    assert quota.left(1003.5) == 0
    assert quota.wait_s(1003.5) == inf
    quota.lease(10, 1007.0, 1004.0)
    assert quota.term == term + 1
    assert quota.left(1004.0) == 5


def test_a_new_rate_remembers_what_was_written() -> None:
    quota = opened(10)
    send(quota, 6, 1000.0)
    quota.configure(4, 1000.0)
    assert quota.left(1000.5) == 0
    assert quota.left(1001.003) == 4
    quota.configure(0.2, 1001.1)
    assert quota.left(1006.0) == 0
    assert quota.left(1006.1) == 1


def test_a_quota_of_nothing_grants_nothing() -> None:
    quota = Quota(5.0, 0.0)
    assert quota.grant(1, 5.0) == 0
    assert quota.wait_s(5.0) == inf


@given(st.floats(0.01, 2000.0))
def test_a_rate_in_whole_messages_is_never_more(rate_per_s: float) -> None:
    total, period_s = whole(rate_per_s)
    assert total / period_s <= rate_per_s * (1 + 1e-9)
    assert period_s >= 1.0
