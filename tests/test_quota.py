"""In no one-second window does a quota grant more than its rate."""

from math import floor

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.quota import Quota, portion


def busiest(grants: list[tuple[float, int]], window_s: float) -> int:
    """The most messages granted in any half-open window."""
    return max((sum(n for t, n in grants if at <= t < at + window_s) for at, _ in grants), default=0)


@given(
    st.floats(0.1, 50.0),
    st.lists(st.tuples(st.floats(0.0, 0.7), st.integers(1, 30), st.sampled_from([1.0, 0.8])), max_size=60),
)
def test_never_over_in_any_window(rate_per_s: float, steps: list[tuple[float, int, float]]) -> None:
    quota = Quota(rate_per_s)
    now_s, grants = 1000.0, []
    for pause_s, n, share in steps:
        now_s += pause_s
        granted = quota.grant(n, now_s, share)
        assert 0 <= granted <= n
        if granted:
            grants.append((now_s, granted))
    assert busiest(grants, 1.0) <= max(floor(rate_per_s), 1)
    if rate_per_s < 1:
        assert busiest(grants, 1 / rate_per_s) <= 1


@given(st.floats(0.2, 200.0), st.integers(1, 300))
def test_wait_is_long_enough_and_no_longer(rate_per_s: float, n: int) -> None:
    quota = Quota(rate_per_s)
    quota.grant(n, 10.0)
    wait_s = quota.wait_s(10.0)
    if wait_s > 0:
        assert quota.left(10.0 + wait_s * 0.9 - 0.02) == 0
        assert quota.left(10.0 + wait_s + 0.001) > 0


def test_the_whole_rate_but_two_hundredths_is_usable() -> None:
    quota = Quota(100)
    granted = sum(quota.grant(100, at / 1000) for at in range(10_000))
    assert 980 <= granted <= 1000


def test_a_reserve_is_left_to_the_lanes_before() -> None:
    quota = Quota(10)
    assert quota.grant(10, 0.0, 0.8) == 8
    assert quota.grant(10, 0.0, 1.0) == 2
    assert quota.grant(1, 0.5) == 0


def test_a_new_rate_remembers_the_last_window() -> None:
    quota = Quota(10)
    quota.grant(6, 0.0)
    quota.configure(4)
    assert quota.left(0.5) == 0
    assert quota.left(1.03) == 4
    quota.configure(20)
    assert quota.left(1.03) == 20


def test_a_quota_of_nothing_grants_nothing() -> None:
    quota = Quota(0.0)
    assert quota.grant(1, 5.0) == 0
    assert quota.wait_s(5.0) == float("inf")


@given(st.floats(0.01, 2000.0), st.integers(1, 64))
def test_portions_never_add_up_to_more(rate_per_s: float, senders: int) -> None:
    parts = [portion(rate_per_s, senders, number) for number in range(senders)]
    assert sum(parts) == (rate_per_s if rate_per_s < 1 else floor(rate_per_s))
