"""A user's packed events against a plain list of them."""

import hypothesis.strategies as st
from hypothesis import given

from dispatcher.calendar import calendar_of
from dispatcher.rules import LineCap
from dispatcher.user import (
    COUNTED,
    EPOCH_MS,
    EVENT,
    REFUNDED,
    Event,
    Kind,
    UserView,
    events_of,
    known,
    pack,
    refund,
)
from tests.worlds import ZONE

#: Few values, so that equal ones meet; and keys whose bytes could be mistaken for parts of another event.
keys = st.one_of(
    st.integers(0, 3),
    st.sampled_from([2**64 - 1, 1 << 32, 256, 0x0101010101010101]),
    st.integers(0, 2**64 - 1),
)
times = st.one_of(st.integers(EPOCH_MS, EPOCH_MS + 5), st.integers(EPOCH_MS, EPOCH_MS + 2**40 - 1))
events = st.builds(
    Event, keys, times, st.one_of(st.integers(0, 2), st.integers(0, 2**24 - 1)),
    st.one_of(st.integers(0, 2), st.integers(0, 2**56 - 1)), st.integers(0, 4),
)  # fmt: skip
histories = st.lists(events, max_size=12).map(lambda found: sorted(found, key=lambda event: event.at_ms))


def packed_of(history: list[Event]) -> bytes:
    return b"".join(pack(*event) for event in history)


@given(histories)
def test_what_is_packed_comes_back(history: list[Event]) -> None:
    packed = packed_of(history)
    assert len(packed) == 24 * len(history)
    assert events_of(packed) == history


@given(histories, keys, times)
def test_known_is_whether_the_key_is_in_the_list(history: list[Event], key: int, after_ms: int) -> None:
    for wanted in {key, *(event.key for event in history)}:
        for after in {after_ms, *(event.at_ms for event in history), *(event.at_ms - 1 for event in history)}:
            assert known(packed_of(history), wanted, after) == any(
                event.key == wanted and event.at_ms > after for event in history
            )


@given(histories, keys, st.integers(0, 2))
def test_refund_turns_the_latest_counted_event_of_the_key_and_nothing_else(
    history: list[Event], key: int, kind: int
) -> None:
    for wanted in {key, *(event.key for event in history)}:
        fitting = [i for i, e in enumerate(history) if e.key == wanted and e.state == COUNTED and e.kind <= kind]
        expected = list(history)
        if fitting:
            expected[fitting[-1]] = expected[fitting[-1]]._replace(state=REFUNDED)
        packed = packed_of(history)
        after = refund(packed, wanted, lambda number: number <= kind)
        assert events_of(after) == expected
        if not fitting:
            assert after is packed


@given(histories, times)
def test_a_view_counts_what_the_list_holds(history: list[Event], since_ms: int) -> None:
    kinds = [Kind("sms", "notice", 3, line, "t", None) for line in ("a", "b", "a")]
    history = [event._replace(kind=event.kind % 3) for event in history]
    rule = LineCap(name="cap")
    view = UserView(packed_of(history), kinds[0], kinds, {}, None, calendar_of(ZONE))
    counted = [e for e in history if e.state == COUNTED]
    for since in {since_ms, *(event.at_ms for event in history)}:
        mine = [event.at_ms for event in counted if event.kind != 1 and event.at_ms >= since]
        assert view.times(rule, since) == mine
        assert view.count(rule, since) == len(mine)


def test_a_user_without_events_is_empty() -> None:
    view = UserView(None, Kind("sms", "notice", 3, "a", "t", None), [], {}, None, calendar_of(ZONE))
    assert (view.sends, view.count(LineCap(name="cap"), 0), view.times(LineCap(name="cap"), 0)) == ([], 0, [])
    assert known(b"", 0, 0) is False
    assert refund(b"", 0, lambda _: True) == b""
    assert EVENT.size == 24
