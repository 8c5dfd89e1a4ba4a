"""Addresses: one spelling for each, whatever was written."""

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from dispatcher.address import normalise, region_of
from dispatcher.kinds import CHANNELS

phones = st.one_of(
    st.from_regex(r"\A\+?[0-9() .-]{3,20}\Z"),
    st.from_regex(r"\A(\+86 ?|0086|86)?1[3-9][0-9 -]{9,12}\Z"),
    st.from_regex(r"\A\+(1|44|49|852|91|54|39|52)[0-9]{6,12}( ?(ext|x) ?[0-9]{1,4})?\Z"),
    st.from_regex(r"\A\+861[3-9]\d{9}\Z"),  # \d: digits of any script
)
texts = st.one_of(
    phones, st.emails(), st.text(max_size=40), st.from_regex(r"\Ahttps?://[^\s]{1,40}\Z"),
    st.from_regex(r"\A ?[^@\s]{1,10}@[^@\s]{1,10} ?\Z"),
)  # fmt: skip


@given(st.sampled_from(CHANNELS), texts)
@example("sms", "+8613８00000000")
@example("email", "A@BÜCHER.Example")
def test_a_normalised_address_stays_as_it_is(channel: str, text: str) -> None:
    found = normalise(channel, text)
    if found is not None:
        assert normalise(channel, found) == found
        assert normalise(channel, found, "US") == found  # nothing is left for the region to say


@given(phones)
def test_a_phone_number_is_e164_in_ascii(text: str) -> None:
    found = normalise("sms", text)
    if found is not None:
        assert found[0] == "+"
        assert found.isascii()
        assert found[1:].isdigit()
        assert 8 <= len(found) <= 16
        region = region_of("sms", found)
        assert region is None or len(region) == 2 or region == "001"


@pytest.mark.parametrize(
    "text",
    ["+8613800000000", "13800000000", "138 0000 0000", "+86 138-0000-0000", "008613800000000", "+86１３８00000000",
     "+8613８００００００００", "(+86)13800000000"],
)  # fmt: skip
def test_all_spellings_of_a_number_are_one_person(text: str) -> None:
    assert normalise("sms", text) == "+8613800000000"


@pytest.mark.parametrize(
    ("text", "region", "expected", "of"),
    [
        ("+1 650-253-0000", "CN", "+16502530000", "US"),
        ("(650) 253-0000", "US", "+16502530000", "US"),
        ("+852 6123 4567", "CN", "+85261234567", "HK"),
        ("030 901820", "DE", "+4930901820", "DE"),
    ],
)
def test_foreign_numbers(text: str, region: str, expected: str, of: str) -> None:
    assert normalise("sms", text, region) == expected
    assert region_of("sms", expected) == of


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        ("sms", ""), ("sms", "12"), ("sms", "+8612800000000"), ("sms", "+86138000000001"), ("sms", "phone"),
        ("sms", "+8613800000000\n1"), ("email", "a"), ("email", "a@"), ("email", "@b"), ("email", "a@b@c"),
        ("email", "a b@c"), ("email", "a@b\x00"), ("push", ""), ("push", "a b"), ("push", "é"), ("push", "x" * 4097),
        ("webhook", "ftp://x"), ("webhook", "http://"), ("webhook", "http://a b"), ("wechat", "a\tb"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_address(channel: str, text: str) -> None:
    assert normalise(channel, text) is None


def test_only_the_domain_of_an_email_loses_its_case() -> None:
    assert normalise("email", " Some.One@Example.COM ") == "Some.One@example.com"
    assert normalise("push", " Token ") == "Token"
    assert normalise("webhook", "https://Example.com/Path") == "https://Example.com/Path"
    assert region_of("email", "a@b") is None
