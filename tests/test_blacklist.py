"""The blacklist's index against walking the whole list."""

from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.blacklist import BlacklistIndex
from dispatcher.documents import BlacklistEntry

NOW_MS = 1_800_000_000_000


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp((NOW_MS + ms) / 1000, UTC)


maybe = st.one_of(st.none(), st.integers(-2, 2))
who = st.one_of(
    st.tuples(st.sampled_from(["u1", "u2", "a"]), st.none()), st.tuples(st.none(), st.sampled_from(["a1", "u1"]))
)
entries = st.builds(
    lambda who_, channel, type_, line, ends: BlacklistEntry(
        who_[0], who_[1], channel, type_, line, None if ends is None else moment(ends)
    ),
    who,
    st.sampled_from([None, "sms", "push"]),
    st.sampled_from([None, "marketing", "verification"]),
    st.sampled_from([None, "wallet"]),
    maybe,
)
edits = st.lists(st.tuples(st.sampled_from("1234"), st.one_of(st.none(), entries)), max_size=20)
messages = st.tuples(
    st.sampled_from([None, "u1", "u2"]), st.sampled_from(["a1", "u1", "a"]), st.sampled_from(["sms", "push"]),
    st.sampled_from(["marketing", "verification", "notice"]), st.sampled_from(["wallet", "loan"]),
)  # fmt: skip


def blocks(entry: BlacklistEntry, user: str | None, to: str, channel: str, type_: str, line: str) -> bool:
    mine = entry.user == user if entry.user is not None else entry.address == to
    typed = type_ != "verification" if entry.type is None else entry.type == type_
    there = entry.expires_at is None or entry.expires_at > moment(0)
    return mine and typed and there and entry.channel in (None, channel) and entry.line in (None, line)


@given(edits, st.lists(messages, max_size=8))
def test_the_index_finds_what_the_list_holds(
    steps: list[tuple[str, BlacklistEntry | None]], asked: list[tuple[str | None, str, str, str, str]]
) -> None:
    index, listed = BlacklistIndex(), dict[str, BlacklistEntry]()
    for id_, entry in steps:
        if entry is None:
            index.remove(id_)
            listed.pop(id_, None)
        else:
            index.put(id_, entry)
            listed[id_] = entry
    assert len(index) == len(listed)
    for message in asked:
        found = index.find(*message, NOW_MS)
        assert (found is not None) == any(blocks(entry, *message) for entry in listed.values())
        assert found is None or (found in listed.values() and blocks(found, *message))


@pytest.mark.parametrize(("ms", "found"), [(-1, False), (0, False), (1, True)])
def test_an_entry_ends_at_its_moment(ms: int, found: bool) -> None:
    index = BlacklistIndex()
    index.put("1", BlacklistEntry(user="u", expires_at=moment(ms)))
    assert (index.find("u", "x", "sms", "notice", "l", NOW_MS) is not None) == found


def test_a_code_is_blocked_only_by_name() -> None:
    index = BlacklistIndex()
    index.put("1", BlacklistEntry(address="a"))
    assert index.find(None, "a", "sms", "notice", "l", NOW_MS) is not None
    assert index.find(None, "a", "sms", "verification", "l", NOW_MS) is None
    index.put("2", BlacklistEntry(address="a", type="verification"))
    assert index.find(None, "a", "sms", "verification", "l", NOW_MS) is not None
