"""When to come again: as long as it takes until there is room, by how fast the lane empties."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.drain import LEAST_WAIT_S, MOST_WAIT_S, TAU_S, Drain, Drains
from dispatcher.http.problem import retry_after
from dispatcher.kinds import BULK, NORMAL

START_MS = 1_700_000_000_000


def steady(per_s: int, every_ms: int, seconds: float) -> tuple[Drain, int]:
    """A lane that has emptied at this rate for so long, and when that is."""
    drain, now_ms = Drain(), START_MS
    for _ in range(round(seconds * 1000 / every_ms)):
        now_ms += every_ms
        drain.ended(per_s * every_ms // 1000, now_ms)
    return drain, now_ms


@pytest.mark.parametrize(("per_s", "every_ms"), [(10, 100), (1_000, 20), (10_000, 80)])
def test_the_wait_is_what_the_rate_says(per_s: int, every_ms: int) -> None:
    drain, now_ms = steady(per_s, every_ms, 20.0)
    assert drain.per_s(now_ms) == pytest.approx(per_s, rel=0.05)
    assert drain.wait_s(per_s * 7, now_ms) == pytest.approx(7.0, rel=0.05)
    assert drain.wait_s(0.1, now_ms) == LEAST_WAIT_S
    assert retry_after(drain.wait_s(per_s * 6.5, now_ms)) == "7"


def test_a_rate_that_changes_is_known_within_seconds() -> None:
    drain, now_ms = steady(1_000, 20, 20.0)
    for _ in range(300):
        now_ms += 20
        drain.ended(2, now_ms)
    assert drain.per_s(now_ms) == pytest.approx(100 + 900 * 0.05, rel=0.05)  # three time constants: 5 % of it is left


def test_a_lane_that_stands_still_says_longer_and_longer_up_to_a_minute() -> None:
    drain, now_ms = steady(1_000, 20, 20.0)
    waits = [drain.wait_s(1, now_ms + ms) for ms in range(0, 60_000, 500)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (LEAST_WAIT_S, MOST_WAIT_S)
    assert Drain().wait_s(1, START_MS) == MOST_WAIT_S


@given(
    st.lists(st.tuples(st.integers(-5_000, 100_000), st.integers(1, 5_000)), max_size=40), st.floats(0, 1e9),
    st.integers(-10_000, 100_000),
)  # fmt: skip
def test_the_wait_stays_within_its_bounds_and_grows_with_the_need(
    ends: list[tuple[int, int]], n: float, later_ms: int
) -> None:
    drain, now_ms = Drain(), START_MS
    for ms, ended in ends:
        now_ms += ms
        drain.ended(ended, now_ms)
        assert drain.per_s(now_ms) >= ended / TAU_S
    waits = [drain.wait_s(need, now_ms + later_ms) for need in (n, n + 1, 2 * n + 1)]
    assert all(LEAST_WAIT_S <= wait <= MOST_WAIT_S for wait in waits)
    assert all(one <= other for one, other in pairwise(waits))


def test_each_lane_has_its_own_and_the_soonest_is_told() -> None:
    drains = Drains()
    drains.ended(NORMAL, 200, START_MS)  # 100 a second, for now
    assert drains.wait_s({}, START_MS) == 0.0
    assert drains.wait_s({NORMAL: 50.0}, START_MS) == pytest.approx(0.5)
    assert drains.wait_s({BULK: 50.0}, START_MS) == MOST_WAIT_S
    assert drains.wait_s({BULK: 50.0, NORMAL: 300.0}, START_MS) == pytest.approx(3.0)
    assert drains.wait_s({NORMAL: float("inf")}, START_MS) == MOST_WAIT_S
