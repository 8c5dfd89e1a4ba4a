"""Results as the caller reads them: hand-made JSON that every parser reads as what was meant."""

import json
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from dispatcher.answers import STATUS_NUMBER, STATUSES, Answers, First, Result, ResultMessage, SubmitCall, body
from dispatcher.ident import message_id, time_prefix, trigger_key
from dispatcher.kinds import CHANNELS
from dispatcher.trigger import Order

texts = st.text(max_size=12)
statuses = st.sampled_from(STATUSES)
ids = st.builds(
    lambda n, channel: message_id(time_prefix(n), trigger_key("l", str(n), "u")[1], 3, channel),
    st.integers(0, 2**40),
    st.sampled_from(CHANNELS),
)
messages = st.builds(
    ResultMessage, st.none() | ids, st.sampled_from(CHANNELS), statuses, st.none() | texts,
    st.none() | st.integers(0, 4_000_000_000_000),
)  # fmt: skip
firsts = st.none() | st.builds(First, statuses, st.none() | texts)
results = st.builds(Result, texts, statuses, st.none() | texts, st.lists(messages, max_size=3), firsts)


@given(results)
def test_a_body_is_the_members_of_one_json_object(result: Result) -> None:
    found = json.loads(b'{"seq":7,' + body(result) + b"}")
    expected: dict[str, Any] = {"seq": 7, "id": result.id, "status": result.status, "reason": result.reason}
    if result.first is not None:
        expected["first"] = {"status": result.first.status, "reason": result.first.reason}
    told = found.pop("messages")
    assert found == expected
    assert b"\n" not in body(result)
    for one, message in zip(told, result.messages, strict=True):
        due = one.pop("due")
        assert one == {
            "message": message.message, "channel": message.channel, "status": message.status, "reason": message.reason,
        }  # fmt: skip
        if message.due_ms is None:
            assert due is None
        else:
            assert datetime.fromisoformat(due) == datetime.fromtimestamp(message.due_ms / 1000, UTC)


def test_statuses_are_numbered_for_ever() -> None:
    assert STATUSES == ("accepted", "filtered", "intercepted", "rejected", "duplicate", "overloaded")
    assert [STATUS_NUMBER[status] for status in STATUSES] == list(range(6))


def test_calls_and_answers_travel_whole() -> None:
    call = SubmitCall([[Order("a", "u", None, "l", "t", {})], []], 2, True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(call), type=SubmitCall) == call
    answers = [Answers(b"\0\5", [None, b'"id":"x"'], {"why": 1}, 1.5)]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answers), type=list[Answers]) == answers
