"""The blacklist's index against walking the whole list."""

from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.blacklist import MOST_SHARED, BlacklistIndex, Listed, entry_id
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
edits = st.lists(st.tuples(st.booleans(), entries), max_size=20)
messages = st.tuples(
    st.sampled_from([None, "u1", "u2"]), st.sampled_from(["a1", "u1", "a"]), st.sampled_from(["sms", "push"]),
    st.sampled_from(["marketing", "verification", "notice"]), st.sampled_from(["wallet", "loan"]),
)  # fmt: skip


def blocks(entry: BlacklistEntry, user: str | None, to: str, channel: str, type_: str, line: str) -> bool:
    mine = entry.user == user if entry.user is not None else entry.address == to
    typed = type_ != "verification" if entry.type is None else entry.type == type_
    there = entry.expires_at is None or entry.expires_at > moment(0)
    return mine and typed and there and entry.channel in (None, channel) and entry.line in (None, line)


def listed_of(entry: BlacklistEntry) -> Listed:
    ends_ms = None if entry.expires_at is None else round(entry.expires_at.timestamp() * 1000)
    return Listed(entry.channel, entry.type, entry.line, ends_ms, entry.why)


@given(edits, st.lists(messages, max_size=8))
def test_the_index_finds_what_the_list_holds(
    steps: list[tuple[bool, BlacklistEntry]], asked: list[tuple[str | None, str, str, str, str]]
) -> None:
    index, listed = BlacklistIndex(), dict[str, BlacklistEntry]()
    for put, entry in steps:
        if put:
            index.put(entry)
            listed[entry_id(entry)] = entry
        else:
            index.remove(entry)
            listed.pop(entry_id(entry), None)
    assert len(index) == len(listed)
    for user, address in (("u1", None), (None, "u1"), ("a", "a1"), ("x", "y"), (None, None)):
        mine = {i for i, e in listed.items() if user is not None and e.user == user}
        assert set(index.ids(user, address)) == mine | {
            i for i, e in listed.items() if address is not None and e.address == address
        }
    for message in asked * 2:  # what has ended is forgotten on the first occasion, and changes no answer
        found = index.find(*message, NOW_MS)
        matching = [listed_of(entry) for entry in listed.values() if blocks(entry, *message)]
        assert found in matching if matching else found is None
    live = sum(entry.expires_at is None or entry.expires_at > moment(0) for entry in listed.values())
    assert live <= len(index) <= len(listed)


def test_what_has_ended_is_forgotten_when_it_is_met() -> None:
    index = BlacklistIndex()
    for n in range(3):
        index.put(BlacklistEntry(user="u", line=f"l{n}", expires_at=moment(n)))
    assert index.find("u", "x", "sms", "notice", "l0", NOW_MS) is None
    assert (len(index), len(index.ids("u", None))) == (2, 2)
    assert index.find("u", "x", "sms", "notice", "l1", NOW_MS + 5) is None
    assert (len(index), index.ids("u", None)) == (0, [])


def test_an_entry_of_the_same_whom_and_what_replaces() -> None:
    index = BlacklistIndex()
    for why in ("first", "second"):
        index.put(BlacklistEntry(address="a", channel="sms", why=why))
    index.put(BlacklistEntry(address="a", channel="push", why="third"))
    found = index.find(None, "a", "sms", "notice", "l", NOW_MS)
    assert found is not None
    assert found.why == "second"
    assert len(index) == 2
    index.remove(BlacklistEntry(address="a", channel="sms", why="whatever"))
    index.remove(BlacklistEntry(address="b"))
    assert index.find(None, "a", "sms", "notice", "l", NOW_MS) is None
    assert len(index) == 1


def test_what_entries_say_is_shared_while_they_say_little() -> None:
    index = BlacklistIndex()
    for n in range(MOST_SHARED * 3):
        index.put(BlacklistEntry(user=f"u{n}", type="notice", why="asked"))
        index.put(BlacklistEntry(address=f"a{n}", why=f"reason {n}"))
    first, last = (index.find(f"u{n}", "", "sms", "notice", "l", NOW_MS) for n in (0, 10))
    assert first is last
    assert len(index._shared) <= MOST_SHARED
    assert index.find(None, "a7", "sms", "notice", "l", NOW_MS) == Listed(why="reason 7")


@pytest.mark.parametrize(("ms", "found"), [(-1, False), (0, False), (1, True)])
def test_an_entry_ends_at_its_moment(ms: int, found: bool) -> None:
    index = BlacklistIndex()
    index.put(BlacklistEntry(user="u", expires_at=moment(ms)))
    assert (index.find("u", "x", "sms", "notice", "l", NOW_MS) is not None) == found


def test_a_code_is_blocked_only_by_name() -> None:
    index = BlacklistIndex()
    index.put(BlacklistEntry(address="a"))
    assert index.find(None, "a", "sms", "notice", "l", NOW_MS) is not None
    assert index.find(None, "a", "sms", "verification", "l", NOW_MS) is None
    index.put(BlacklistEntry(address="a", type="verification"))
    assert index.find(None, "a", "sms", "verification", "l", NOW_MS) is not None
