"""Dead letters as nouns: what a filter sees, what people are shown, what is sent again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.deadletter import (
    START,
    Letter,
    LetterFilter,
    again,
    decode_letter,
    encode_letter,
    letter_place,
    masked,
    shown,
)
from dispatcher.entries import End
from dispatcher.ident import message_id, place_of, time_prefix, trigger_key
from dispatcher.message import Message

BEFORE_MS = 1_764_000_000_000
ENDED_MS = BEFORE_MS + 5_000
FIELDS: dict[str, Any] = {
    "line": "wallet", "type": "notice", "channel": "sms", "template": "pay_ok", "provider": "p1", "code": "E1",
    "outcome": "failed", "user": "u1",
}  # fmt: skip


def letter(n: int = 1, **more: Any) -> Letter:
    """A letter, with another value wherever one is given."""
    ended = {"outcome": "failed", "provider": "p1", "code": "E1", **{k: more.pop(k) for k in (
        "outcome", "provider", "code", "at_ms") if k in more}}  # fmt: skip
    at_ms = ended.pop("at_ms", ENDED_MS)
    message = {
        "id": message_id(time_prefix(BEFORE_MS), f"{n:013d}", 3, "sms"), "trigger": "t1", "identity": "u1",
        "channel": "sms", "to": "+8613800001234", "type": "notice", "level": 2, "lane": 1, "line": "wallet",
        "template": "pay_ok", "fields": {"text": "paid 12.00"}, "params": {"amount": "12.00"},
        "admitted_ms": BEFORE_MS, "due_ms": BEFORE_MS, "expires_ms": BEFORE_MS + 60_000, "user": "u1", **more,
    }  # fmt: skip
    return Letter(at_ms, attempts=2, message=Message(**message), **ended)


def moment(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def test_a_letter_reads_as_it_was_written() -> None:
    wanted = letter()
    end = End(wanted.message.id, "failed", True, "p1", "ref", "E1", 2)
    assert decode_letter(encode_letter(ENDED_MS, end, msgspec.msgpack.encode(wanted.message))) == wanted


@given(st.lists(st.tuples(st.integers(0, 2**45), st.integers(0, 2**45)), min_size=2))
def test_places_are_in_the_order_of_their_times(times: list[tuple[int, int]]) -> None:
    ids = [(at_ms, message_id(time_prefix(sent_ms), "0" * 13, 1, "sms")) for at_ms, sent_ms in times]
    assert sorted(ids) == sorted(ids, key=lambda pair: letter_place(*pair))
    assert all(len(letter_place(*pair)) == len(START) and letter_place(*pair) < START for pair in ids)


@pytest.mark.parametrize(("name", "other"), [
    ("line", "loan"), ("type", "repayment"), ("channel", "push"), ("template", "other"), ("provider", "p2"),
    ("code", "E2"), ("code", None), ("outcome", "expired"), ("user", "u2"), ("user", None),
])  # fmt: skip
def test_a_filter_sees_what_is_all_of_what_it_says(name: str, other: str | None) -> None:
    assert LetterFilter().sees(letter())
    assert LetterFilter(**FIELDS).sees(letter())
    assert LetterFilter(**{name: FIELDS[name]}).sees(letter())
    assert not LetterFilter(**FIELDS).sees(letter(**{name: other}))
    assert not LetterFilter(**{name: FIELDS[name]}).sees(letter(**{name: other}))


@given(st.integers(-2, 2), st.integers(-2, 2))
def test_since_is_the_first_moment_and_until_the_first_one_after(since: int, until: int) -> None:
    wanted = LetterFilter(since=moment(ENDED_MS + since), until=moment(ENDED_MS + until))
    assert wanted.sees(letter()) == (since <= 0 < until)
    assert LetterFilter(since=moment(ENDED_MS + since)).sees(letter()) == (since <= 0)
    assert LetterFilter(until=moment(ENDED_MS + until)).sees(letter()) == (until > 0)


@given(st.integers(0, 2**42), st.none() | st.integers(1, 10**9))
def test_the_same_letter_is_the_same_new_trigger_whenever_it_is_sent_again(now_ms: int, ttl_ms: int | None) -> None:
    old = letter()
    new = again(old, now_ms, ttl_ms)
    assert new.key == again(old, 0, None).key
    assert new.key not in (again(letter(2), now_ms, ttl_ms).key, trigger_key("wallet", "t1", "u1")[0])
    assert new.id != old.message.id
    assert place_of(new.id) == place_of(old.message.id)
    assert new.id[:10] == time_prefix(now_ms)
    assert (new.admitted_ms, new.due_ms, new.expires_ms) == (now_ms, now_ms, now_ms + (ttl_ms or 60_000))
    assert (new.fan, new.slot) == ([], True)  # to that address alone
    changed = {"id", "key", "admitted_ms", "due_ms", "expires_ms", "fan", "slot"}
    for name in set(Message.__struct_fields__) - changed:
        assert getattr(new, name) == getattr(old.message, name)


@pytest.mark.parametrize(("due", "expires", "own"), [(0, 60, 60), (600, 660, 60), (60, 60, 60), (90, 60, 60)])
def test_its_own_time_to_live_is_never_nothing(due: int, expires: int, own: int) -> None:
    old = letter(due_ms=BEFORE_MS + due, expires_ms=BEFORE_MS + expires)
    assert again(old, ENDED_MS, None).expires_ms == ENDED_MS + own


@pytest.mark.parametrize(("channel", "to", "wanted"), [
    ("sms", "+8613800001234", "+86138****1234"), ("sms", "12345", "****"),
    ("email", "ann@example.com", "a****@example.com"), ("email", "@x", "****@x"),
    ("webhook", "https://u:secret@example.com:1/path?token=1", "example.com:1/****"),
    ("webhook", "https://example.com?token=1", "example.com/****"), ("webhook", "x", "/****"),
    ("push", "abcdefghijklmnop", "****mnop"), ("wechat", "short", "****"),
])  # fmt: skip
def test_addresses_are_masked(channel: str, to: str, wanted: str) -> None:
    assert masked(channel, to) == wanted


def test_what_is_shown_says_who_when_and_why_but_not_what() -> None:
    told = msgspec.json.encode(shown(letter()))
    assert b"12.00" not in told
    assert b"0001234" not in told
    assert msgspec.json.decode(told) == {
        "message": letter().message.id, "at": "2025-11-24T16:00:05Z", "outcome": "failed", "provider": "p1",
        "code": "E1", "attempts": 2, "trigger": "t1", "user": "u1", "to": "+86138****1234", "line": "wallet",
        "type": "notice", "channel": "sms", "template": "pay_ok", "admitted_at": "2025-11-24T16:00:00Z",
        "expires_at": "2025-11-24T16:01:00Z",
    }  # fmt: skip
    assert shown(letter(provider="")).provider is None
