"""How many SMS segments a text needs, and its parts.

Source: GSM 03.38 (3GPP TS 23.038) alphabet; 140-byte payload, of which a concatenated part gives 6 or 7 to its header
(3GPP TS 23.040): 160/153 septets or 70/67 UTF-16 units. Mainland China: design page `wire.md`, section 17.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

#: In the order of their codes; 0x1B is the escape, and no character.
BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: Characters that are the escape and a code: two septets each.
EXTENDED: Final = {"\f": 0x0A, "^": 0x14, "{": 0x28, "}": 0x29, "\\": 0x2F, "[": 0x3C, "~": 0x3D, "]": 0x3E,
                   "|": 0x40, "€": 0x65}  # fmt: skip
_ESCAPED: Final = frozenset(EXTENDED)
_GSM: Final = frozenset(BASIC) - {"\x1b"} | _ESCAPED
#: Wherever mainland operators bill, every character is one of UCS-2 (Aliyun, message-rules), and the most is this.
MAINLAND: Final = "CN"
MOST_MAINLAND_UNITS: Final = 500


class _Alphabet(Struct, frozen=True):
    """Units that fit a message of one part, and each of several whose reference number takes one byte."""

    single: int
    part: int


_SEPTETS: Final = _Alphabet(160, 153)
_UNITS: Final = _Alphabet(70, 67)


def is_gsm(text: str) -> bool:
    """Whether the GSM 7-bit alphabet has every character; an escape of the text's own would change the next one."""
    return _GSM.issuperset(text)


def units(text: str) -> int:
    """UTF-16 units: two of a character beyond the basic plane."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def segments(text: str) -> int:
    """Segments of a text outside mainland China; at least 1."""
    if is_gsm(text):
        return _segments(text, len(text) + sum(text.count(c) for c in _ESCAPED.intersection(text)), _SEPTETS)
    return _segments(text, units(text), _UNITS)


def _segments(text: str, length: int, alphabet: _Alphabet) -> int:
    if length <= alphabet.single:
        return 1
    if length == len(text):
        return -(-length // alphabet.part)
    return sum(1 for _ in _parts(text, alphabet is _SEPTETS, alphabet.part))


def billed(text: str, signature: str | None, region: str | None) -> int:
    """Segments that are billed of a message to a number of `region`, signature included.

    In mainland China any text is UCS-2, and an emoji's units are counted, which its vendors' pages do not say.
    """
    if 2 * (len(text) + len(signature or "") + 2) <= _UNITS.single:  # nearly all; a character is two units at most
        return 1
    whole = signed(text, signature, region)
    return _segments(whole, units(whole), _UNITS) if region == MAINLAND else segments(whole)


def signed(text: str, signature: str | None, region: str | None) -> str:
    """The text as it arrives, its signature in the brackets of the region (Aliyun, message-rules)."""
    if not signature:
        return text
    return f"【{signature}】{text}" if region == MAINLAND else f"[{signature}]{text}"


def split(text: str, reference_bytes: int = 1) -> list[str]:
    """The texts of its parts, one when it fits a single message; no part ends within a surrogate or escape pair.

    `reference_bytes`: 1 or 2, of the number that parts of one message share.
    """
    gsm = is_gsm(text)
    alphabet = _SEPTETS if gsm else _UNITS
    length = sum(2 if c in _ESCAPED else 1 for c in text) if gsm else units(text)
    return [text] if length <= alphabet.single else list(_parts(text, gsm, alphabet.part - (reference_bytes - 1)))


def _parts(text: str, gsm: bool, most: int) -> Iterator[str]:
    start = length = 0
    for at, char in enumerate(text):
        size = 2 if (char in _ESCAPED if gsm else char > "\uffff") else 1
        if length + size > most:
            yield text[start:at]
            start, length = at, 0
        length += size
    yield text[start:]
