"""What a deliver_sm says: a receipt for a message of ours, a user's text, or a part of one. Pure.

Source: SMPP 3.4, 5.2.12 (esm_class), 5.3.2 (TLVs), appendix B (receipt text); 3GPP TS 23.040, 9.2.3.24 (header);
design page `wire.md`, section 6.
"""

import re
from typing import Final

from msgspec import Struct

from channels.smpp.pdu import (
    MESSAGE_STATE,
    NETWORK_ERROR,
    RECEIPTED_MESSAGE_ID,
    SAR_PLACE,
    SAR_REFERENCE,
    SAR_TOTAL,
    UDHI,
    ShortMessage,
)
from dispatcher.report import ReportStatus

_KIND: Final = 0x3C  # bits of esm_class that tell what it is
_RECEIPT: Final = 0x04
_INTERMEDIATE: Final = 0x20

#: message_state -> the word that receipt texts have for it.
_STATES: Final = {
    0: "SCHEDULED", 1: "ENROUTE", 2: "DELIVRD", 3: "EXPIRED", 4: "DELETED", 5: "UNDELIV", 6: "ACCEPTD", 7: "UNKNOWN",
    8: "REJECTD", 9: "SKIPPED",
}  # fmt: skip
_STATUSES: Final[dict[ReportStatus, str]] = {
    "delivered": "DELIVRD DELIVERED",
    "undelivered": "EXPIRED DELETED UNDELIV UNDELIVERABLE REJECTD REJECTED SKIPPED",
    "sent": "SCHEDULED ENROUTE ACCEPTD ACCEPTED UNKNOWN",  # not final
}
_BY_WORD: Final = {word: status for status, words in _STATUSES.items() for word in words.split()}
_KEYS: Final = re.compile(r"(?<![a-z])(id|sub|dlvrd|submit date|done date|stat|err|text) ?:", re.IGNORECASE)
_LONGEST_WORD: Final = 65


class Outcome(Struct, frozen=True):
    """A receipt: `id` as the centre wrote it; `code` is its word and the network's error, if any."""

    id: str
    status: ReportStatus
    code: str


class Part(Struct, frozen=True):
    """A piece of a text; a whole one is the first of one."""

    coding: int
    raw: bytes
    reference: int = 0
    total: int = 1
    place: int = 1


def outcome_of(message: ShortMessage) -> Outcome | None:
    """The receipt in it, the TLVs' word before the text's; None when there is none that could be understood."""
    words = _words(message.content)
    id_ = message.tlvs.get(RECEIPTED_MESSAGE_ID, b"").split(b"\0")[0].decode("latin-1") or words.get("id", "")
    state = _STATES.get(int.from_bytes(message.tlvs.get(MESSAGE_STATE, b"")[:1] or b"\xff"), "")
    state = state or words.get("stat", "").upper()
    status = _BY_WORD.get(state)
    if not id_ or status is None:
        return None
    error = _network_error(message.tlvs.get(NETWORK_ERROR, b"")) or words.get("err", "")
    code = f"{state} {error}" if error.strip("0") else state
    return Outcome(id_, status, code[:_LONGEST_WORD])


def is_outcome(message: ShortMessage) -> bool:
    """Whether it is about a message of ours, by esm_class, or by a TLV where a centre forgets that."""
    return message.esm_class & _KIND in (_RECEIPT, _INTERMEDIATE) or RECEIPTED_MESSAGE_ID in message.tlvs


def part_of(message: ShortMessage) -> Part:
    """The piece of a text in it. A header that cannot be read, or numbers that make no sense, give a whole text."""
    raw, tlvs = message.content, message.tlvs
    header: tuple[int, int, int] | None = None
    if message.esm_class & UDHI and raw:
        length = raw[0] + 1
        header, raw = _concatenation(raw[1:length]), raw[length:]
    elif SAR_REFERENCE in tlvs:
        # SAR references are apart from those of headers, as 8-bit ones are from 16-bit ones.
        numbers = [int.from_bytes(tlvs.get(tag, b"")[-2:]) for tag in (SAR_REFERENCE, SAR_TOTAL, SAR_PLACE)]
        header = (numbers[0] | 0x2_0000, numbers[1], numbers[2])
    if header is None or not 1 <= header[2] <= header[1] <= 255:
        return Part(message.coding, raw)
    return Part(message.coding, raw, *header)


def _concatenation(header: bytes) -> tuple[int, int, int] | None:
    """Reference, total and place of the elements 0x00 (8-bit reference) or 0x08 (16-bit)."""
    at = 0
    while at + 2 <= len(header):
        element, length = header[at], header[at + 1]
        value = header[at + 2 : at + 2 + length]
        if element == 0x00 and len(value) == 3:
            return value[0], value[1], value[2]
        if element == 0x08 and len(value) == 4:
            return int.from_bytes(value[:2]) | 0x1_0000, value[2], value[3]
        at += 2 + length
    return None


def _words(text: bytes) -> dict[str, str]:
    """The receipt's fields by lower-case key; of a repeated one the first, since `text` comes last and is free."""
    read = text.decode("latin-1")
    found = list(_KEYS.finditer(read))
    words: dict[str, str] = {}
    ends = [*(after.start() for after in found[1:]), len(read)]
    for this, end in zip(found, ends, strict=False):  # one end more where there is no key
        words.setdefault(this[1].lower(), read[this.end() : end].strip())
    return words


def _network_error(value: bytes) -> str:
    """Network type (one byte) and error (two): the error alone, as receipts' texts have it."""
    return f"{int.from_bytes(value[1:3]):03d}" if len(value) == 3 else ""
