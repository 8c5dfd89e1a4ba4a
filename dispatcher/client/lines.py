"""Triggers as lines: one JSON object each, every one with an id."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from random import Random
from typing import Any, Final

import msgspec
from msgspec import Struct

from dispatcher.trigger import MAX_TRIGGER_BYTES, NumberText, Trigger

#: A trigger as a caller may give it. Bytes are one JSON object, sent as written (`12.00` stays `12.00`).
AnyTrigger = Trigger | Mapping[str, Any] | bytes
#: What makes two triggers the same one: line, id, user or address.
Key = tuple[str, str, str]


class Line(Struct, frozen=True, gc=False):
    """One trigger ready to send; `data` ends with a line feed."""

    id: str
    key: Key
    data: bytes


class Named(Struct):
    """The fields of a trigger that say which one it is."""

    id: Any = None
    user: Any = None
    line: Any = None
    to: msgspec.Raw = msgspec.Raw(b"")


def _encode_number(value: Any) -> Any:
    if isinstance(value, NumberText):
        return str(value)
    raise TypeError(f"a trigger cannot hold a {type(value).__name__}")


_encode: Final = msgspec.json.Encoder(enc_hook=_encode_number).encode
_read_names: Final = msgspec.json.Decoder(Named).decode


async def in_chunks(lines: AsyncIterable[bytes], size_bytes: int = 64 * 1024) -> AsyncIterator[bytes]:
    """Lines without their ends, as pieces of a body of about this size."""
    held: list[bytes] = []
    held_bytes = 0
    async for line in lines:
        held.append(line)
        held_bytes += len(line) + 1
        if held_bytes >= size_bytes:
            yield b"\n".join(held) + b"\n"
            held, held_bytes = [], 0
    if held:
        yield b"\n".join(held) + b"\n"


class Ids:
    """New trigger ids: 96 random bits for each instance, then a count."""

    def __init__(self, rng: Random) -> None:
        self._prefix = f"c-{rng.getrandbits(96):024x}-"
        self._count = 0

    def new(self) -> str:
        """An id that was not used before."""
        self._count += 1
        return f"{self._prefix}{self._count}"


def encode_line(trigger: AnyTrigger, ids: Ids) -> Line:
    """The line of a trigger. Raises TypeError, ValueError or msgspec.MsgspecError for what cannot be one."""
    data = _as_json(trigger)
    if len(data) > MAX_TRIGGER_BYTES:
        raise ValueError(f"longer than {MAX_TRIGGER_BYTES} bytes")
    names = _read_names(data)
    if names.id is None:
        names.id = ids.new()
        data = _with_id(data, names.id)
    key = (str(names.line), str(names.id), str(names.user) if names.user is not None else bytes(names.to).decode())
    return Line(str(names.id), key, data + b"\n")


def _as_json(trigger: AnyTrigger) -> bytes:
    if isinstance(trigger, bytes):
        # Line breaks inside a JSON object are white space, but would end an NDJSON line.
        return trigger.strip().replace(b"\r", b" ").replace(b"\n", b" ")
    if isinstance(trigger, Trigger):
        return _encode({name: value for name, value in msgspec.structs.asdict(trigger).items() if value is not None})
    if isinstance(trigger, Mapping):
        return _encode({name: value for name, value in trigger.items() if name != "id" or value is not None})
    raise TypeError(f"a trigger is a dict, a Trigger or bytes, not a {type(trigger).__name__}")


def _with_id(data: bytes, new_id: str) -> bytes:
    if b'"id"' in data:  # an explicit null; a second `id` would be a repeated field
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return _encode({**fields, "id": new_id})
    rest = data[1:].lstrip()
    return b'{"id":"%b"%b%b' % (new_id.encode(), b"" if rest.startswith(b"}") else b",", rest)
