"""Texts as bytes and back: the GSM default alphabet in octets, and UCS-2.

Source: 3GPP TS 23.038, section 6.2.1 (alphabet, extension table) and section 4 (data coding); SMPP 3.4, 5.2.19.
"""

from typing import Final

from dispatcher.segments import BASIC, EXTENDED

DEFAULT: Final = 0
ASCII: Final = 1
LATIN_1: Final = 3
UCS_2: Final = 8

_ESCAPE: Final = 0x1B
_TO_OCTETS: Final = {ord(char): chr(code) for code, char in enumerate(BASIC) if code != _ESCAPE} | {
    ord(char): chr(_ESCAPE) + chr(code) for char, code in EXTENDED.items()
}
_EXTENSION: Final = {code: char for char, code in EXTENDED.items()}


def encode(text: str, coding: int) -> bytes:
    """The bytes under DEFAULT, one septet in each octet, which must have every character, or under UCS_2."""
    if coding == DEFAULT:
        return text.translate(_TO_OCTETS).encode("latin-1")
    return text.encode("utf-16-be", "surrogatepass")


def decode(coding: int, raw: bytes) -> str:
    """The text; what cannot be read becomes U+FFFD, and bytes of no known coding are read as Latin-1."""
    if coding & 0xF0 == 0xF0:  # a message class: bit 2 tells 8-bit data
        coding = LATIN_1 if coding & 0x04 else DEFAULT
    if coding == DEFAULT:
        return _from_octets(raw)
    if coding == UCS_2:
        return raw.decode("utf-16-be", "replace")
    if coding == ASCII:
        return raw.decode("ascii", "replace")
    return raw.decode("latin-1")


def _from_octets(raw: bytes) -> str:
    chars: list[str] = []
    escaped = False
    for code in raw:
        if code > 0x7F:
            chars.append("\ufffd")
        elif escaped:  # an unknown extension reads as the basic character (TS 23.038, 6.2.1.1)
            chars.append(_EXTENSION.get(code, BASIC[code]))
        elif code != _ESCAPE:
            chars.append(BASIC[code])
        escaped = code == _ESCAPE and not escaped
    return "".join(chars)
