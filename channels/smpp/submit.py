"""A message as the bodies of its submit_sm. Pure.

Long texts are split with a user data header of an 8-bit reference, the form that every centre knows (3GPP TS 23.040,
9.2.3.24.1; design page `wire.md`, section 6).
"""

from typing import Final
from zlib import crc32

from channels.smpp.alphabet import DEFAULT, UCS_2, encode
from channels.smpp.pdu import UDHI, PduError, ShortMessage
from dispatcher.message import Message
from dispatcher.segments import is_gsm, signed, split

#: A delivery receipt is asked for, whatever the outcome (SMPP 3.4, 5.2.17).
_RECEIPT: Final = 1
#: Numbers of so few digits are short codes.
_SHORT_CODE_DIGITS: Final = 8
_MOST_PARTS: Final = 255


def bodies(message: Message, source_addr: str) -> list[bytes]:
    """One for each part. The same message has the same reference whenever it is sent, so that a phone that has a part
    of an earlier attempt puts the two together. Raises PduError."""
    text = signed(message.fields["text"], message.fields.get("signature"), message.region)
    coding = DEFAULT if is_gsm(text) else UCS_2
    parts = split(text)
    if len(parts) > _MOST_PARTS:
        raise PduError(f"a text of {len(parts)} parts")
    if len(parts) == 1:
        return [_body(message.to, source_addr, encode(text, coding), 0, coding)]
    reference = crc32(message.id.encode()) & 0xFF
    return [
        _body(
            message.to,
            source_addr,
            bytes((5, 0, 3, reference, len(parts), place)) + encode(part, coding),
            UDHI,
            coding,
        )
        for place, part in enumerate(parts, 1)
    ]


def address(number: str) -> tuple[int, int, str]:
    """`(type of number, numbering plan, digits)` of a sender: international, short code or a name; empty: unknown."""
    digits = number.removeprefix("+")
    if not digits:
        return 0, 0, ""
    if not (digits.isascii() and digits.isdecimal()):
        return 5, 0, number
    if number == digits and len(digits) <= _SHORT_CODE_DIGITS:
        return 3, 0, digits
    return 1, 1, digits


def international(ton: int, number: str) -> str:
    """The number as messages have it, when its type is told; else as it came."""
    return f"+{number}" if ton == 1 and number.isdecimal() else number


def _body(to: str, source_addr: str, text: bytes, esm_class: int, coding: int) -> bytes:
    source_ton, source_npi, source = address(source_addr)
    return ShortMessage(
        source=source,
        to=to.removeprefix("+"),
        text=text,
        source_ton=source_ton,
        source_npi=source_npi,
        to_ton=1,
        to_npi=1,
        esm_class=esm_class,
        registered=_RECEIPT,
        coding=coding,
    ).encode()
