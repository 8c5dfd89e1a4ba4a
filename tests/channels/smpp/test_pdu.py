"""The codec: what is encoded is decoded, and no bytes raise anything but its own error."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.smpp import alphabet
from channels.smpp.delivery import is_outcome, outcome_of, part_of
from channels.smpp.pdu import (
    LONGEST_PDU_BYTES,
    Bind,
    Frames,
    Pdu,
    PduError,
    ShortMessage,
    centre_version,
    decode_bind,
    decode_short_message,
    decode_submit_response,
    decode_tlvs,
)
from channels.smpp.submit import address
from dispatcher.segments import BASIC, EXTENDED, is_gsm, split

_byte = st.integers(0, 255)


def _name(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=most)


_short_message = st.builds(
    ShortMessage,
    source=_name(20),
    to=_name(20),
    text=st.binary(max_size=254),
    source_ton=_byte,
    source_npi=_byte,
    to_ton=_byte,
    to_npi=_byte,
    esm_class=_byte,
    registered=_byte,
    coding=_byte,
    tlvs=st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=300), max_size=4),
    service_type=_name(5),
    protocol=_byte,
    priority=_byte,
    schedule=_name(16),
    validity=_name(16),
    replace=_byte,
    default=_byte,
)
_pdu = st.builds(Pdu, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), _byte, st.binary(max_size=80))


@given(_short_message)
def test_a_short_message_comes_back(message: ShortMessage) -> None:
    assert decode_short_message(message.encode()) == message


@given(_name(15), _name(8), _name(12), _byte)
def test_a_bind_comes_back_and_hides_its_password(system_id: str, password: str, type_: str, version: int) -> None:
    bind = Bind(system_id, password, type_, version)
    assert decode_bind(bind.encode()) == bind
    assert repr(bind) == f"Bind({system_id!r})"


@given(st.lists(_pdu, max_size=6), st.data())
def test_a_stream_is_cut_wherever_it_is_torn(pdus: list[Pdu], data: Any) -> None:
    stream = b"".join(pdu.encode() for pdu in pdus)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, found = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.feed(stream[start:end])
    assert found == pdus
    assert not frames.fault


@pytest.mark.parametrize("length", [0, 15, LONGEST_PDU_BYTES + 1, 2**32 - 1])
def test_a_length_that_cannot_be_ends_the_stream(length: int) -> None:
    good = Pdu(0x15, 0, 1)
    frames = Frames()
    assert frames.feed(good.encode() + length.to_bytes(4) + bytes(12)) == [good]
    assert frames.fault
    assert frames.feed(good.encode()) == []


_DECODERS: list[Callable[[bytes], Any]] = [
    decode_bind,
    decode_short_message,
    decode_submit_response,
    lambda body: decode_tlvs(body, 0),
]


_body = st.binary(max_size=400) | st.builds(ShortMessage.encode, _short_message)


@given(_body, st.integers(0, 400), st.binary(max_size=9))
def test_any_body_is_read_or_refused(body: bytes, at: int, change: bytes) -> None:
    torn = body[:at] + change + body[at + len(change) :]
    for candidate in (body, body[:at], torn):
        for decode in _DECODERS:
            try:
                decode(candidate)
            except PduError:
                continue


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"centre\0\x02\x10\0\x01\x50", "5.0"),
        (b"\0\x14\x01\0\x01x\x02\x10\0\x01\x34", "3.4"),
        (b"centre\0", ""),
        (b"centre", ""),
        (b"", ""),
        (b"centre\0\x02\x10\0\x02\x50\0", ""),
        (b"centre\0\x02\x10\0\x01", ""),
    ],
)
def test_a_centre_tells_its_version_or_not(body: bytes, told: str) -> None:
    assert centre_version(body) == told


@given(st.binary(max_size=200))
def test_any_stream_is_cut_or_refused(stream: bytes) -> None:
    frames = Frames()
    assert all(len(pdu.body) <= LONGEST_PDU_BYTES for pdu in frames.feed(stream))


_RECEIPT_WORDS = st.sampled_from(["id:", "ID :", "stat:", "err:", "text:", "DELIVRD", "7", " ", "submit date:", "\xff"])
_near_receipt = st.lists(_RECEIPT_WORDS | _name(5), max_size=12).map(lambda words: "".join(words).encode("latin-1"))


@given(_short_message, _near_receipt | st.binary(max_size=254))
def test_any_delivery_is_understood_somehow(message: ShortMessage, text: bytes) -> None:
    changed = ShortMessage(message.source, message.to, text, esm_class=message.esm_class, coding=message.coding,
                           tlvs=message.tlvs)  # fmt: skip
    for one in (message, changed):
        is_outcome(one)
        outcome_of(one)
        part = part_of(one)
        assert 1 <= part.place <= part.total <= 255
        alphabet.decode(part.coding, part.raw)


@pytest.mark.parametrize(
    "message",
    [
        ShortMessage("1" * 21, "2", b""),
        ShortMessage("1", "2", bytes(255)),
        ShortMessage("1\0", "2", b""),
        ShortMessage("示", "2", b""),
        ShortMessage("1", "2", b"", coding=256),
    ],
)
def test_what_fits_no_pdu_is_refused(message: ShortMessage) -> None:
    with pytest.raises(PduError):
        message.encode()


_gsm_text = st.text(st.sampled_from(sorted(set(BASIC) - {"\x1b"} | set(EXTENDED))), max_size=400)


@given(_gsm_text | st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_parts_of_a_text_decode_each_by_itself(text: str) -> None:
    coding = alphabet.DEFAULT if is_gsm(text) else alphabet.UCS_2
    parts = split(text)
    raws = [alphabet.encode(part, coding) for part in parts]
    assert [alphabet.decode(coding, raw) for raw in raws] == parts
    assert "".join(parts) == text
    most = (160 if coding == alphabet.DEFAULT else 140) if len(parts) == 1 else (153 if coding == 0 else 134)
    assert max(map(len, raws)) <= most


@pytest.mark.parametrize(
    ("coding", "raw", "text"),
    [
        (0, b"\x00\x1b\x65\x1b\x00", "@€@"),  # an unknown extension reads as the basic character
        (0, b"a\x1b", "a"),
        (0, b"\x80", "\ufffd"),
        (1, b"a@", "a@"),
        (3, "é".encode("latin-1"), "é"),
        (8, "你😀".encode("utf-16-be"), "你😀"),
        (8, b"\x4f", "\ufffd"),
        (0xF0, b"\x00", "@"),
        (0xF4, b"\x40", "@"),
    ],
)
def test_codings(coding: int, raw: bytes, text: str) -> None:
    assert alphabet.decode(coding, raw) == text


@pytest.mark.parametrize(
    ("number", "told"),
    [
        ("", (0, 0, "")),
        ("+8613800000000", (1, 1, "8613800000000")),
        ("8613800000000", (1, 1, "8613800000000")),
        ("10690", (3, 0, "10690")),
        ("Example", (5, 0, "Example")),
    ],
)
def test_addresses(number: str, told: tuple[int, int, str]) -> None:
    assert address(number) == told
