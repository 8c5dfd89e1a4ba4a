"""SMPP 3.4 and 5.0 on the wire: bytes to PDUs and back. Pure; whatever the bytes are, only PduError is raised.

Source: SMPP Protocol Specification 3.4 issue 1.2, sections 3 to 5; 5.0, sections 3 and 4; design page `wire.md`,
section 6. All numbers are big-endian; a C-octet string ends with a zero byte.
"""

from struct import Struct as Layout
from typing import Final

from msgspec import Struct

GENERIC_NACK: Final = 0x8000_0000
SUBMIT_SM: Final = 0x4
DELIVER_SM: Final = 0x5
UNBIND: Final = 0x6
BIND_TRANSCEIVER: Final = 0x9
ENQUIRE_LINK: Final = 0x15
ALERT_NOTIFICATION: Final = 0x102
#: A response's command is its request's with this bit.
RESPONSE: Final = 0x8000_0000

RECEIPTED_MESSAGE_ID: Final = 0x001E
SAR_REFERENCE: Final = 0x020C
SAR_TOTAL: Final = 0x020E
SAR_PLACE: Final = 0x020F
INTERFACE_VERSION: Final = 0x0210
NETWORK_ERROR: Final = 0x0423
MESSAGE_PAYLOAD: Final = 0x0424
MESSAGE_STATE: Final = 0x0427
CONGESTION_STATE: Final = 0x0428

UDHI: Final = 0x40  # of esm_class: the text begins with a user data header
LARGEST_SEQUENCE: Final = 0x7FFF_FFFF
#: A message_payload has up to 65,535 bytes; a PDU longer than this is no PDU.
LONGEST_PDU_BYTES: Final = 128 * 1024
LONGEST_TEXT_BYTES: Final = 254

_HEADER: Final = Layout(">IIII")
_TLV: Final = Layout(">HH")


class PduError(Exception):
    """Bytes that are not what they are taken for, or values that no PDU can carry."""


class Pdu(Struct, frozen=True, gc=False):
    """One PDU, its body still bytes."""

    command: int
    status: int
    sequence: int
    body: bytes = b""

    def encode(self) -> bytes:
        return _HEADER.pack(16 + len(self.body), self.command, self.status, self.sequence) + self.body


class Bind(Struct, frozen=True):
    """The body of a bind; `version` is 0x34 or 0x50."""

    system_id: str
    password: str
    system_type: str = ""
    version: int = 0x34

    def __repr__(self) -> str:
        return f"Bind({self.system_id!r})"

    def encode(self) -> bytes:
        return b"".join(
            (
                _c_string(self.system_id, 16),
                _c_string(self.password, 9),
                _c_string(self.system_type, 13),
                bytes((self.version, 0, 0, 0)),  # address type and plan unknown, no range of addresses
            )
        )


class ShortMessage(Struct, frozen=True, gc=False):
    """The body of a submit_sm or deliver_sm; `text` is as it travels, header of the user data included."""

    source: str
    to: str
    text: bytes
    source_ton: int = 0
    source_npi: int = 0
    to_ton: int = 0
    to_npi: int = 0
    esm_class: int = 0
    registered: int = 0
    coding: int = 0
    tlvs: dict[int, bytes] = {}
    service_type: str = ""
    protocol: int = 0
    priority: int = 0
    schedule: str = ""
    validity: str = ""
    replace: int = 0
    default: int = 0

    def encode(self) -> bytes:
        if len(self.text) > LONGEST_TEXT_BYTES:
            raise PduError(f"a text of {len(self.text)} bytes")
        try:
            parts = [
                _c_string(self.service_type, 6),
                bytes((self.source_ton, self.source_npi)),
                _c_string(self.source, 21),
                bytes((self.to_ton, self.to_npi)),
                _c_string(self.to, 21),
                bytes((self.esm_class, self.protocol, self.priority)),
                _c_string(self.schedule, 17),
                _c_string(self.validity, 17),
                bytes((self.registered, self.replace, self.coding, self.default, len(self.text))),
                self.text,
            ]
        except ValueError:
            raise PduError("a number that is no byte") from None
        for tag, value in self.tlvs.items():
            parts += (_TLV.pack(tag, len(value)), value)
        return b"".join(parts)

    @property
    def content(self) -> bytes:
        """The text, wherever it is."""
        return self.text or self.tlvs.get(MESSAGE_PAYLOAD, b"")


class Frames:
    """Cuts a stream into PDUs. After `fault` is set the stream cannot be followed any more."""

    def __init__(self) -> None:
        self._rest = b""
        self.fault = ""

    def feed(self, data: bytes) -> list[Pdu]:
        """The PDUs that are complete now."""
        if self.fault:
            return []
        buffer = self._rest + data if self._rest else data
        pdus: list[Pdu] = []
        at, end = 0, len(buffer)
        while end - at >= 16:
            length, command, status, sequence = _HEADER.unpack_from(buffer, at)
            if not 16 <= length <= LONGEST_PDU_BYTES:
                self.fault = f"a PDU of {length} bytes"
                break
            if end - at < length:
                break
            pdus.append(Pdu(command, status, sequence, buffer[at + 16 : at + length]))
            at += length
        self._rest = buffer[at:] if not self.fault else b""
        return pdus


def decode_bind(body: bytes) -> Bind:
    """Raises PduError."""
    system_id, at = _read_c_string(body, 0)
    password, at = _read_c_string(body, at)
    system_type, at = _read_c_string(body, at)
    version, _, _ = _read_bytes(body, at, 3)
    return Bind(system_id, password, system_type, version)


def decode_short_message(body: bytes) -> ShortMessage:
    """Raises PduError."""
    service_type, at = _read_c_string(body, 0)
    source_ton, source_npi = _read_bytes(body, at, 2)
    source, at = _read_c_string(body, at + 2)
    to_ton, to_npi = _read_bytes(body, at, 2)
    to, at = _read_c_string(body, at + 2)
    esm_class, protocol, priority = _read_bytes(body, at, 3)
    schedule, at = _read_c_string(body, at + 3)
    validity, at = _read_c_string(body, at)
    registered, replace, coding, default, length = _read_bytes(body, at, 5)
    text = _read_bytes(body, at + 5, length)
    return ShortMessage(
        source,
        to,
        text,
        source_ton,
        source_npi,
        to_ton,
        to_npi,
        esm_class,
        registered,
        coding,
        decode_tlvs(body, at + 5 + length),
        service_type,
        protocol,
        priority,
        schedule,
        validity,
        replace,
        default,
    )


def decode_tlvs(body: bytes, at: int) -> dict[int, bytes]:
    """The optional parameters from a place on; of a repeated one the first. Raises PduError."""
    tlvs: dict[int, bytes] = {}
    while at < len(body):
        tag, length = _TLV.unpack(_read_bytes(body, at, 4))
        tlvs.setdefault(tag, _read_bytes(body, at + 4, length))
        at += 4 + length
    return tlvs


def decode_submit_response(body: bytes) -> tuple[str, dict[int, bytes]]:
    """`(message_id, TLVs)`; an error's response may have no body. Raises PduError."""
    if not body:
        return "", {}
    message_id, at = _read_c_string(body, 0)
    return message_id, decode_tlvs(body, at)


def centre_version(body: bytes) -> str:
    """Of SMPP, as the response to a bind tells it: `5.0` for 0x50, empty where it tells none. Never raises."""
    try:
        _, at = _read_c_string(body, 0)
        told = decode_tlvs(body, at).get(INTERFACE_VERSION, b"")
    except PduError:
        return ""
    return f"{told[0] >> 4}.{told[0] & 0xF}" if len(told) == 1 else ""


def c_string(text: str) -> bytes:
    """A C-octet string of any length. Raises PduError."""
    return _c_string(text, LONGEST_PDU_BYTES)


def _c_string(text: str, most_bytes: int) -> bytes:
    try:
        raw = text.encode("latin-1")
    except UnicodeError:
        raise PduError("a name with characters beyond Latin-1") from None
    if len(raw) >= most_bytes:
        raise PduError(f"a name of {len(raw)} bytes where {most_bytes - 1} fit")
    if b"\0" in raw:
        raise PduError("a name with a zero byte")
    return raw + b"\0"


def _read_c_string(body: bytes, at: int) -> tuple[str, int]:
    """The string and the place after it. Longer ones than the specification has are taken: some centres send them."""
    end = body.find(b"\0", at)
    if end < 0:
        raise PduError("a string without an end")
    return body[at:end].decode("latin-1"), end + 1


def _read_bytes(body: bytes, at: int, count: int) -> bytes:
    found = body[at : at + count]
    if len(found) < count:
        raise PduError("the PDU ends too early")
    return found
