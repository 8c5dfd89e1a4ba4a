"""A user's packed events against a plain list of them."""

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from dispatcher.calendar import calendar_of
from dispatcher.message import Message
from dispatcher.rules.company_cap import CompanyCap
from dispatcher.rules.line_cap import LineCap
from dispatcher.rules.task_frequency import TaskFrequency
from dispatcher.user import (
    COUNTED,
    EPOCH_MS,
    EVENT,
    REFUNDED,
    TASK,
    Event,
    Kind,
    UserView,
    bare,
    events_of,
    instance,
    joined,
    known,
    pack,
    padded,
    refund,
    task_hash,
)
from tests.scenes import MINE, TASK_NAME, message_at
from tests.worlds import ZONE

#: Few values, so that equal ones meet; and keys whose bytes could be mistaken for parts of another event.
NOW_MS = EPOCH_MS + 200_000_000_000
keys = st.one_of(
    st.integers(0, 3),
    st.sampled_from([2**48 - 1, 1 << 32, 256, 0x010101010101]),
    st.integers(0, 2**48 - 1),
)
times = st.one_of(st.integers(EPOCH_MS + 1, EPOCH_MS + 5), st.integers(EPOCH_MS + 1, EPOCH_MS + 2**40 - 1))
events = st.builds(
    Event, keys, times, st.one_of(st.integers(0, 2), st.integers(0, 2**21 - 1)),
    st.one_of(st.integers(0, 2), st.integers(0, 2**40 - 1)), st.integers(0, 4),
)  # fmt: skip
histories = st.lists(events, max_size=12).map(lambda found: sorted(found, key=lambda event: event.at_ms))


def packed_of(history: list[Event]) -> bytes:
    return b"".join(pack(*event) for event in history)


def sent(key: int, at_ms: int) -> Message:
    """A message that was decided at once."""
    return msgspec.structs.replace(message_at(at_ms), key=key)


@given(histories)
def test_what_is_packed_comes_back(history: list[Event]) -> None:
    packed = packed_of(history)
    assert len(packed) == 20 * len(history)
    assert events_of(packed) == history


@given(histories, keys, times)
def test_known_is_whether_the_key_is_in_the_list(history: list[Event], key: int, after_ms: int) -> None:
    for wanted in {key, *(event.key for event in history)}:
        for after in {after_ms, *(event.at_ms for event in history), *(event.at_ms - 1 for event in history)}:
            assert known(packed_of(history), wanted, after) == any(
                event.key == wanted and event.at_ms > after for event in history
            )


@given(histories, keys, st.integers(0, 2))
def test_refund_turns_the_counted_event_of_the_message_and_nothing_else(
    history: list[Event], key: int, kind: int
) -> None:
    for wanted, at_ms in {(key, NOW_MS), *((event.key, event.at_ms) for event in history)}:
        expected = [
            e._replace(state=REFUNDED)
            if (e.key, e.at_ms, e.state) == (wanted, at_ms, COUNTED) and e.kind <= kind
            else e
            for e in history
        ]
        after = refund(packed_of(history), sent(wanted, at_ms), lambda number: number <= kind)
        assert events_of(after) == expected


@given(histories, times)
def test_a_view_counts_what_the_list_holds(history: list[Event], since_ms: int) -> None:
    kinds = [Kind("sms", "notice", 3, line, "t") for line in ("a", "b", "a")]
    history = [event._replace(kind=event.kind % 3) for event in history]
    rule = LineCap(name="cap")
    view = UserView(packed_of(history), kinds[0], kinds, {}, None, calendar_of(ZONE), None, {})
    counted = [e for e in history if e.state == COUNTED]
    for since in {since_ms, *(event.at_ms for event in history)}:
        mine = [event.at_ms for event in counted if event.kind != 1 and event.at_ms >= since]
        assert view.times(rule, since) == mine


def test_a_user_without_events_is_empty() -> None:
    view = UserView(None, Kind("sms", "notice", 3, "a", "t"), [], {}, None, calendar_of(ZONE), None, {})
    assert (view.most, view.times(LineCap(name="cap"), 0)) == (0, [])
    assert known(b"", 0, 0) is False
    assert refund(b"", sent(0, EPOCH_MS), lambda _: True) == b""
    assert EVENT.size == 20


#: Sends of campaigns: when, trigger, campaign, and whether the send was refunded afterwards.
campaigns = st.lists(
    st.tuples(
        st.integers(EPOCH_MS + 1, EPOCH_MS + 9),
        st.integers(0, 3),
        st.sampled_from([TASK_NAME, "b", None]),
        st.booleans(),
    ),
    max_size=12,
).map(lambda found: sorted(found, key=lambda send: send[0]))


@given(campaigns, st.integers(EPOCH_MS + 1, EPOCH_MS + 9))
def test_a_view_counts_other_triggers_of_a_task(sends: list[tuple[int, int, str | None, bool]], since_ms: int) -> None:
    packed, left = b"", []
    for at_ms, key, task, refunded in sends:
        packed += pack(key, at_ms, 0, 5, COUNTED)
        if task is not None:
            packed += pack(instance(sent(key, at_ms)), at_ms, 0, task_hash(task), TASK)
        left.append((at_ms, key, task))
        if refunded:
            packed = refund(packed, sent(key, at_ms), lambda _: True)
            left = [send for send in left if send[:2] != (at_ms, key)]
    last: dict[tuple[int, int], int] = {}
    for at_ms, key, task in left:
        if task == TASK_NAME and at_ms >= since_ms:
            last[key, at_ms] = at_ms
    view = UserView(packed, MINE, [MINE], {}, None, calendar_of(ZONE), None, {})
    assert view.task_times(TaskFrequency(name="task"), message_at(0), since_ms) == sorted(last.values())
    assert len(view.times(CompanyCap(name="all"), 0)) == len(left)


def test_a_refund_takes_the_task_with_it_and_only_its_own() -> None:
    one, two = (
        pack(key, NOW_MS, 0, 5, COUNTED) + pack(instance(sent(key, NOW_MS)), NOW_MS, 0, task_hash("a"), TASK)
        for key in (1, 2)
    )
    assert events_of(refund(one + two, sent(1, NOW_MS), lambda _: True)) == [
        Event(1, NOW_MS, 0, 5, REFUNDED), *events_of(two),
    ]  # fmt: skip
    assert events_of(refund(one + two, sent(2, NOW_MS), lambda _: True)) == [
        *events_of(one), Event(2, NOW_MS, 0, 5, REFUNDED),
    ]  # fmt: skip
    task_only = one[EVENT.size :]  # its send has been dropped before
    assert refund(task_only, sent(1, NOW_MS), lambda _: True) == b""


def test_a_message_decided_after_its_answer_is_no_answer_and_is_refunded_alone() -> None:
    """An id is used again while a message of its first use, decided when due, is still on its way."""
    later = msgspec.structs.replace(sent(1, NOW_MS), due_ms=NOW_MS + 5)
    first = pack(instance(later), NOW_MS + 9, 0, 5, COUNTED)
    second = pack(1, NOW_MS + 10, 0, 5, COUNTED)
    assert not known(first, 1, NOW_MS)
    assert known(first + second, 1, NOW_MS)
    after = events_of(refund(first + second, later, lambda _: True))
    assert [event.state for event in after] == [REFUNDED, COUNTED]


@given(histories)
def test_blank_records_are_nothing(history: list[Event]) -> None:
    """Whoever has less than three records has blank ones in front, which nobody sees and a new record replaces."""
    packed = b""
    for event in history:
        record = pack(*event)
        packed = joined(packed, record) if packed else padded(record)
        assert len(packed) >= 3 * EVENT.size
    assert events_of(packed) == history
    assert bare(packed) == packed_of(history)
    assert padded(bare(packed)) == packed
    view = UserView(packed, MINE, [MINE] * 3, {}, None, calendar_of(ZONE), None, {})
    if all(event.kind < 3 for event in history):
        counted = sorted(event.at_ms for event in history if event.state == COUNTED)
        assert view.times(CompanyCap(name="all"), -(10**15)) == counted, "from long before 2020 on"
