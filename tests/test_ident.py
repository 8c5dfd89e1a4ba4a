"""Ids: found again by their parts, in the order of time, never the same for two messages."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.ident import (
    MAX_PARTITIONS,
    content_hash,
    message_id,
    partition_of,
    place_of,
    time_prefix,
    trigger_key,
)
from dispatcher.kinds import CHANNELS

texts = st.text(max_size=20)
times = st.integers(0, 2**48 - 1)
partitions = st.integers(0, MAX_PARTITIONS - 1)
channels = st.sampled_from(CHANNELS)


@given(times, texts, partitions, channels)
def test_an_id_tells_its_place(now_ms: int, trigger: str, partition: int, channel: str) -> None:
    id_ = message_id(time_prefix(now_ms), trigger_key("l", trigger, "u")[1], partition, channel)
    assert len(id_) == 26
    assert set(id_) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert place_of(id_) == (partition, channel)


@given(times, times, texts, texts, partitions, partitions)
def test_ids_sort_by_time(a_ms: int, b_ms: int, a: str, b: str, p: int, q: int) -> None:
    if a_ms < b_ms:
        one = message_id(time_prefix(a_ms), trigger_key("l", a, "u")[1], p, "webhook")
        other = message_id(time_prefix(b_ms), trigger_key("l", b, "u")[1], q, "sms")
        assert one < other


def test_a_triggers_messages_never_share_an_id() -> None:
    _, salt = trigger_key("l", "t", "u")
    ids = {
        message_id(time_prefix(now_ms), salt, partition, channel)
        for now_ms in (0, 1, 2**48 - 1)
        for partition in range(MAX_PARTITIONS)
        for channel in CHANNELS
    }
    assert len(ids) == 3 * MAX_PARTITIONS * len(CHANNELS)


def test_many_triggers_of_one_millisecond_never_share_an_id_or_a_key() -> None:
    triggers = [trigger_key("l", f"t{i}", f"u{i % 7}") for i in range(100_000)]
    assert len({key for key, _ in triggers}) == len({salt for _, salt in triggers}) == 100_000


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_a_trigger_is_its_line_its_id_and_its_user(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    if not any("\0" in part for part in (*one, *other)):
        assert (trigger_key(*one) == trigger_key(*other)) == (one == other)
    assert 0 <= trigger_key(*one)[0] < 2**64


@pytest.mark.parametrize(
    "strange", ["", "x", "0" * 25, "0" * 27, "0" * 23 + "U00", "0" * 25 + "5", "0" * 25 + "Z", "é" * 26]
)
def test_what_is_no_id_of_ours_has_no_place(strange: str) -> None:
    assert place_of(strange) is None


@given(st.text(max_size=30))
def test_any_text_is_looked_at_without_harm(text: str) -> None:
    place = place_of(text)
    assert place is None or (0 <= place[0] < MAX_PARTITIONS and place[1] in CHANNELS)


@given(texts, st.integers(1, MAX_PARTITIONS))
def test_a_user_has_one_partition(identity: str, n: int) -> None:
    assert 0 <= partition_of(identity, n) < n
    assert partition_of(identity, n) == partition_of(identity, n)


def test_partitions_and_hashes_are_the_same_for_ever() -> None:
    """Users' state lies under these numbers: another function would lose it."""
    assert [partition_of(user, 64) for user in ("u1", "u2", "+8613800000000", "用户")] == PINNED_PARTITIONS
    assert trigger_key("wallet", "t1", "u1") == PINNED_KEY
    assert content_hash(b"text") == PINNED_CONTENT
    assert content_hash(b"x") < 2**40


PINNED_PARTITIONS = [54, 12, 19, 29]
PINNED_KEY = (149864151291058, "8A1BPSYQJNTJV")
PINNED_CONTENT = 808148177637
