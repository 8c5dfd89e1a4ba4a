"""The window of a queue: bounded, follows what is taken, recovers."""

import hypothesis.strategies as st
from hypothesis import given

from dispatcher.limit import AHEAD_S, MOST_AHEAD, carried
from dispatcher.window import LEAST, Window

calls = st.lists(st.tuples(st.integers(1, 800), st.floats(0, 1)), max_size=60)


@given(st.integers(1, 8_000), calls)
def test_it_stays_within_its_bounds(most: int, calls: list[tuple[int, float]]) -> None:
    window = Window(most)
    for n, share in calls:
        window.answered(n, round(n * share), n)
        assert min(LEAST, most) <= window.size <= most
        assert window.room(0) <= window.size
        assert window.room(window.size) <= 0


def test_it_shrinks_to_what_was_taken_and_grows_back() -> None:
    window = Window(4_000)
    window.answered(800, 700, 800)
    assert window.size == 100
    for _ in range(300):
        window.answered(window.room(0), 0, window.size)
    assert window.size == 4_000


def test_two_calls_fit_so_that_one_is_under_way_while_the_other_is_answered() -> None:
    window = Window(1_000)
    first = window.room(0)
    assert first == 500
    assert window.room(first) == 500


def test_a_sender_holds_more_where_requests_end_sooner_than_calls_come() -> None:
    assert carried(32, latency_s=1.0) == 32
    assert carried(32, latency_s=AHEAD_S / 4) == 128
    assert carried(32, latency_s=0.0) == 32 * MOST_AHEAD
