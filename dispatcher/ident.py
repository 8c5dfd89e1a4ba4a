"""Stable hashes and ids: which partition a user lives in, a trigger's key, a message's id.

Message ids have the look and the order of ULIDs (github.com/ulid/spec: Crockford base32, 48 bits of milliseconds first)
but are derived from the trigger, so that a repeated decision gives the same id and a duplicate's answer needs no
stored ids. The last three characters name partition and channel, so a message can be found by its id alone.
"""

from hashlib import blake2b
from struct import Struct as Layout
from typing import Final
from zlib import crc32

from dispatcher.kinds import CHANNELS

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Each byte of a digest gives one character (5 of its 8 bits): one C call instead of a base-32 loop.
_FROM_BYTE: Final = bytes(ord(_CROCKFORD[i & 31]) for i in range(256))
_KEY_AND_SALT: Final = Layout("<Q13s")
_KEY_MASK: Final = (1 << 48) - 1
MAX_PARTITIONS: Final = 1024
_PARTITION: Final = tuple(_CROCKFORD[p >> 5] + _CROCKFORD[p & 31] for p in range(MAX_PARTITIONS))
_CHANNEL: Final = {channel: _CROCKFORD[i] for i, channel in enumerate(CHANNELS)}


def partition_of(identity: str, partitions: int) -> int:
    """The partition that holds this user's state; fixed for life."""
    return crc32(identity.encode()) % partitions


def trigger_key(line: str, trigger: str, identity: str) -> tuple[int, str]:
    """`(key, salt)` of a trigger: its 48-bit idempotency key, and 13 characters that make its message ids unique."""
    key, salt = _KEY_AND_SALT.unpack(blake2b(f"{line}\0{trigger}\0{identity}".encode(), digest_size=21).digest())
    return key & _KEY_MASK, salt.translate(_FROM_BYTE).decode("ascii")


def time_prefix(now_ms: int) -> str:
    """The first ten characters of a ULID made at `now_ms`."""
    text = ""
    for _ in range(10):
        text = _CROCKFORD[now_ms & 31] + text
        now_ms >>= 5
    return text


def message_id(prefix: str, salt: str, partition: int, channel: str) -> str:
    """26 characters: time (10), salt (13), partition (2), channel (1)."""
    return prefix + salt + _PARTITION[partition] + _CHANNEL[channel]


def device_id(message: str, to: str) -> str:
    """The id of the message that goes to another device than this one: its time and place are the same."""
    return message[:10] + trigger_key(message, to, "")[1] + message[23:]


def place_of(message: str) -> tuple[int, str] | None:
    """`(partition, channel)` a message id names, or None when it is not one of ours."""
    if len(message) != 26 or message.strip(_CROCKFORD):
        return None
    high, low, channel = (_CROCKFORD.find(c) for c in message[23:])
    if min(high, low, channel) < 0 or channel >= len(CHANNELS):
        return None
    return high << 5 | low, CHANNELS[channel]


def content_hash(content: bytes) -> int:
    """40 bits over a message's rendered fields."""
    return int.from_bytes(blake2b(content, digest_size=5).digest(), "little")
