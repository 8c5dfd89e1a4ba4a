"""Unsubscribe words and keywords: what a text asks for, and of whom."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.blacklist import BlacklistIndex
from dispatcher.documents import Line, LineUplinks, Provider, Template, UnsubscribeAnswer
from dispatcher.report import Uplink
from dispatcher.uplink import (
    UNSUBSCRIBE_WORDS,
    answer_faults,
    answer_order,
    identity,
    keyword_faults,
    owner_of,
    unsubscribes,
    unsubscription,
    wait_ms,
)

NUMBER = "+8613800000000"


def line(*keywords: str, name: str = "") -> Line:
    return Line(name, uplinks=LineUplinks(list(keywords), "https://example.com", "env:S") if keywords else None)


@pytest.mark.parametrize("text", ["TD", " td\r\n", "ＴＤ", "t", "退订", "Stop", "unsubscribe"])
def test_a_word_unsubscribes(text: str) -> None:
    assert unsubscribes(text, UNSUBSCRIBE_WORDS)


@pytest.mark.parametrize("text", ["", " ", "TD please", "T D", "不退订", "Y", "TDD"])
def test_other_texts_do_not(text: str) -> None:
    assert not unsubscribes(text, UNSUBSCRIBE_WORDS)
    assert not unsubscribes(text, ["", " "])


@given(st.sampled_from(UNSUBSCRIBE_WORDS), st.text(max_size=3))
def test_only_the_whole_text_counts(word: str, more: str) -> None:
    assert unsubscribes(word + more, [word]) == unsubscribes(more + word, [word]) == (not more.strip())


def test_the_sender_is_spared_marketing_on_that_channel() -> None:
    blacklist = BlacklistIndex()
    for entry in unsubscription(Uplink("sms-a", "sms", "13800000000", " td"), "CN"):
        blacklist.put(entry)
    found = blacklist.find(None, NUMBER, "sms", "marketing", "wallet", 0)
    assert found is not None
    assert found.why == "unsubscribed at sms-a: td"
    assert blacklist.find("u", NUMBER, "sms", "notice_marketing", "loan", 0) is not None
    for type_ in ("verification", "notice", "repayment"):
        assert blacklist.find(None, NUMBER, "sms", type_, "wallet", 0) is None
    assert blacklist.find(None, NUMBER, "push", "marketing", "wallet", 0) is None
    assert unsubscription(Uplink("sms-a", "sms", "BANK", "TD"), "CN") == []


LINES: Mapping[str, Line] = {"a": line("CX", "查"), "b": line("cxye"), "c": line(), "d": line("查询")}


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("CX", ("a", "CX")),
        ("  cx 2026", ("a", "CX")),
        ("ＣＸＹＥ", ("b", "cxye")),  # the longest
        ("查余额", ("a", "查")),
        ("查询余额", ("d", "查询")),
        ("I CX", None),
        ("C", None),
        ("", None),
    ],
)
def test_the_text_begins_with_the_keyword_of_its_owner(text: str, owner: tuple[str, str] | None) -> None:
    assert owner_of(text, LINES) == owner


def test_of_two_owners_the_lower_id_has_it() -> None:
    assert owner_of("x", {"b": line("X"), "a": line("x")}) == ("a", "x")


def test_a_keyword_has_one_owner() -> None:
    others = {"a": line("CX", name="Wallet"), "b": line("B"), "me": line("CX", "B")}
    assert keyword_faults("me", line("ＣＸ", "ok", "b", "OK", " "), others) == [
        ("uplinks.keywords[0]", "belongs to the line 'a' (Wallet)"),
        ("uplinks.keywords[2]", "belongs to the line 'b'"),
        ("uplinks.keywords[3]", "is listed twice"),
        ("uplinks.keywords[4]", "must not be blank"),
    ]
    assert keyword_faults("a", line("CX", "CXYE"), {"a": line("CX")}) == []
    assert keyword_faults("a", line(), others) == []


def test_repeated_deliveries_are_told_from_others() -> None:
    keyed = Uplink("p", "sms", NUMBER, "CX", "1069", 7, "k")
    again = Uplink("p", "sms", NUMBER, "CX ", "1069", 9, "k")  # a vendor may count the time of each delivery
    assert identity(keyed) == identity(again) is not None
    timed = [Uplink("p", "sms", NUMBER, "CX", "1069", at_ms) for at_ms in (7, 8)]
    others = [Uplink("q", "sms", NUMBER, "CX", "1069", 7, "k"), Uplink("p", "sms", NUMBER, "CY", "1069", 7)]
    assert len({identity(uplink) for uplink in (keyed, *timed, *others)}) == 5
    assert identity(Uplink("p", "sms", NUMBER, "CX")) is None


def test_a_webhook_is_left_alone_longer_and_longer() -> None:
    assert [wait_ms(n) for n in (0, 1, 2, 3, 9, 10, 10**9)] == [0, 1000, 2000, 4000, 256_000, 300_000, 300_000]


# -- the text back

FAREWELL: dict[str, Any] = {"type": "notice", "channels": [{"channel": "sms", "text": "{{bye}}"}]}
IN_CODE = {"aliyun": {"code": "SMS_1", "params": ["name"]}}


def test_a_number_has_one_answer_of_a_provider_whatever_it_says() -> None:
    answer = UnsubscribeAnswer("bye", "wallet")
    said = [Uplink("p", "sms", "13800000000", "TD", key="1"), Uplink("p", "sms", NUMBER, "退订", at_ms=5)]
    first, second = (answer_order(uplink, answer, "CN") for uplink in said)
    assert first == second
    assert first is not None
    assert (first.line, first.template, first.to, first.identity) == ("wallet", "bye", {"sms": NUMBER}, NUMBER)
    other = answer_order(Uplink("q", "sms", NUMBER, "TD"), answer, "CN")
    assert other is not None
    assert other.id != first.id
    assert answer_order(Uplink("p", "sms", "10690", "TD"), answer, "CN") is None


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"line": "wallet"}, []),
        ({"line": "loan"}, [("line", "is for the line 'loan' only")]),
        ({"type": "marketing"}, [("template", "is of type `marketing`")]),
        ({"status": "draft"}, [("template", "is draft")]),
        ({"channels": [{"channel": "push", "title": "a", "body": "b"}]}, [("template", "has nothing for channel")]),
        ({"channels": [{"channel": "sms", "text": "{name}"}]}, [("template", "wants the parameter 'name'")]),
        ({"vendor": IN_CODE}, [("template", "wants the parameter 'name'")]),
    ],
)
def test_a_template_that_cannot_answer_is_named(changes: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    provider = Provider("webhook", "sms", unsubscribe_answer=UnsubscribeAnswer("bye", "wallet"))
    template = msgspec.convert({**FAREWELL, **changes}, Template)
    found = answer_faults(provider, {"bye": template})
    assert len(found) == len(faults)
    for (at, what), (path, words) in zip(found, faults, strict=True):
        assert at == f"unsubscribe_answer.{path}"
        assert what.startswith(f"'bye' {words}")


def test_only_texts_are_answered() -> None:
    template = msgspec.convert(FAREWELL, Template)
    provider = Provider("wechat", "wechat", unsubscribe_answer=UnsubscribeAnswer("bye"))
    assert [path for path, _ in answer_faults(provider, {"bye": template})] == ["unsubscribe_answer"]
    assert answer_faults(Provider("wechat", "wechat"), {"bye": template}) == []
