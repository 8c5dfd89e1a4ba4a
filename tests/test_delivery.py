"""Delivery reports: what is news, what belongs to whom, and that memory ends where it is said to."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from dispatcher.delivery import Heard, LatelySent, by_partition, delivery_of, tallied
from dispatcher.entries import Delivery, Reported, decode_entry, encode_entry
from dispatcher.ident import message_id, time_prefix
from dispatcher.message import Message
from dispatcher.report import RANKS, Report
from tests.worlds import World

statuses = st.sampled_from(sorted(RANKS))


def id_of(partition: int, n: int = 0) -> str:
    return message_id(time_prefix(1_764_000_000_000), f"{n:013d}", partition, "sms")


@given(st.lists(st.tuples(st.integers(0, 3), statuses), max_size=40))
def test_of_a_message_only_more_is_news_and_the_first_final_one_is_the_last(said: list[tuple[int, str]]) -> None:
    heard = Heard()
    news: dict[int, list[str]] = {}
    for n, status in said:
        if heard.is_news(str(n), status):
            news.setdefault(n, []).append(status)
    for n in {n for n, _ in said}:
        of_it = [status for m, status in said if m == n]
        finals = [status for status in of_it if status != "sent"]
        assert news[n] == (["sent"] if of_it[0] == "sent" else []) + finals[:1]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 8))
def test_memory_is_bounded_and_the_newest_stays(messages: list[int], most: int) -> None:
    heard, sent = Heard(most), LatelySent(most)
    for n in messages:
        heard.is_news(str(n), "delivered")
        sent.add(str(n), None, "+86", n)
        assert len(heard) <= most
        assert len(sent) <= most
        assert sent.get(str(n)) == (None, "+86", n)
        assert not heard.is_news(str(n), "delivered")


def test_reports_go_where_their_message_is() -> None:
    own, other = Report("p", "delivered", id_of(3)), Report("p", "sent", id_of(0))
    strange = [Report("p", "sent", id_of(8)), Report("p", "sent", "x"), Report("p", "sent", find="k")]
    assert by_partition([own, *strange, other], 8) == ({3: [own], 0: [other]}, strange)


def test_final_reports_are_counted_by_provider() -> None:
    said = [("a", "delivered"), ("a", "sent"), ("a", "undelivered"), ("b", "undelivered"), ("c", "sent")]
    assert tallied([Report(p, s, "m") for p, s in said]) == {"a": (2, 1), "b": (1, 0)}  # type: ignore[arg-type]


def test_an_entry_tells_what_the_report_did_and_changes_no_state() -> None:
    report = Report("p", "delivered", id_of(1), "key", "+86", "DELIVRD", 5, 2, 0.09, dead=True)
    assert delivery_of(report) == Delivery(id_of(1), "delivered", "p", "DELIVRD", 5, 2, 0.09)
    with pytest.raises(ValueError, match="no message"):
        delivery_of(Report("p", "sent", find="key"))
    entry = Reported(7, [delivery_of(report)])
    assert decode_entry(encode_entry(entry)) == entry
    world = World([])
    world.submit(world.order("notice", params={"order": "1", "amount": "2"}))
    before = list(world.partition.slices(10))
    world.write(entry)
    assert list(world.partition.slices(10)) == before


def test_a_message_tells_how_vendors_know_its_template() -> None:
    vendor = {"aliyun": {"code": "SMS_1", "params": ["order", "amount"]}, "tencent": {"code": "7"}}
    document = {"type": "notice", "channels": [{"channel": "sms", "text": "{order} {amount}"}], "vendor": vendor}
    world = World([], {"paid": document, "plain": {**document, "vendor": {}}})
    for template in ("paid", "plain"):
        world.submit(world.order(template, params={"order": "1", "amount": template}))
    told, none = world.partition.in_flight.values()
    assert told.vendor == {"aliyun": ["SMS_1", ["order", "amount"]], "tencent": ["7", []]}
    assert none.vendor is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Message) == told


def test_messages_of_before_can_be_read() -> None:
    world = World([])
    world.submit(world.order("notice", params={"order": "1", "amount": "2"}))
    [message] = world.partition.in_flight.values()
    old = msgspec.to_builtins(message)[: Message.__struct_fields__.index("vendor")]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Message) == message
