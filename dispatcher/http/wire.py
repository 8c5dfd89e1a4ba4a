"""The two streamed forms of triggers and results: NDJSON and concatenated MessagePack maps."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from dispatcher.answers import First
from dispatcher.explanation import ChannelExplanation
from dispatcher.http.framing import Framer, FramingError
from dispatcher.http.lines import LineSplitter, each_line, may_hold_longer
from dispatcher.intake import TOO_LARGE, id_in, reason_of
from dispatcher.trigger import MAX_TRIGGER_BYTES, Trigger, trigger_decoder

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
MSGPACK: Final = "application/x-msgpack"

_msgpack_decoder: Final = msgspec.msgpack.Decoder(Trigger)
_msgpack_encoder: Final = msgspec.msgpack.Encoder()
_json_encoder: Final = msgspec.json.Encoder()
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Bad(Struct, gc=False):
    """What stands where a trigger should: the id it gave itself, if any, and why it is rejected."""

    id: str | None
    reason: str


class Summary(Struct):
    """What became of all triggers of a stream; `reasons` counts every reason given."""

    total: int = 0
    accepted: int = 0
    filtered: int = 0
    intercepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    overloaded: int = 0
    reasons: dict[str, int] = {}


class MessageResult(Struct):
    """What became of one channel; `due`: when a message for later will be decided (RFC 3339)."""

    message: str | None
    channel: str
    status: str
    reason: str | None
    due: str | None


class TriggerResult(Struct):
    """The answer to one trigger, as `results` writes it. `first`: what a duplicate was answered the first time.
    `explain`: of a dry run, one for each channel tried."""

    seq: int
    id: str | None
    status: Literal["accepted", "filtered", "intercepted", "rejected", "duplicate", "overloaded"]
    reason: str | None
    messages: list[MessageResult]
    first: First | None = None
    explain: list[ChannelExplanation] | None = None


class StreamSummary(Struct):
    """The last thing on a stream of results."""

    summary: Summary


class Wire(Protocol):
    """One streamed form. `failure`: why the rest of the stream cannot be read, once that is so."""

    content_type: str
    failure: str | None

    def feed(self, data: bytes) -> Sequence[Trigger | Bad]:
        """The triggers these bytes complete."""
        ...

    def finish(self) -> list[Trigger | Bad]:
        """What is left when the stream has ended."""
        ...

    def results(self, seqs: Iterable[int], bodies: Iterable[bytes | None]) -> bytes:
        """The results that have a body."""
        ...

    def summary(self, summary: Summary) -> bytes:
        """The last thing on the stream."""
        ...


def decode_trigger(line: bytes | msgspec.Raw) -> Trigger | Bad:
    """One JSON trigger."""
    if len(memoryview(line)) > MAX_TRIGGER_BYTES:
        return Bad(None, TOO_LARGE)
    try:
        return trigger_decoder.decode(line)
    except _UNREADABLE as error:
        return Bad(id_in(bytes(line)), reason_of(error, bytes(line)))


def decode_chunk(lines: bytes) -> Sequence[Trigger | Bad]:
    """The triggers of whole lines: at once when every line is one good trigger, else line by line."""
    if not may_hold_longer(lines, MAX_TRIGGER_BYTES):
        try:
            triggers = trigger_decoder.decode_lines(lines)
        except _UNREADABLE:
            pass
        else:
            if _one_a_line(lines, len(triggers)):
                return triggers
    return [decode_trigger(line) for line in each_line(lines)]


def _one_a_line(lines: bytes, n: int) -> bool:
    """Whether these n values stand on n lines. (The decoder also takes two values on one line, or one on two lines.)

    In JSON `}`, an end of line and `{` can follow each other only between two values, never inside one.
    """
    if lines.count(b"\n") != n or lines[:1] != b"{":
        return False
    return lines.count(b"}\n{") == n - 1 or lines.count(b"}\r\n{") == n - 1


def rejection(bad: Bad) -> bytes:
    """A result's body, as `answers.body` makes it, for what no shard has seen."""
    reason = _json_encoder.encode(bad.reason)
    return b'"id":%b,"status":"rejected","reason":%b,"messages":[]' % (_json_encoder.encode(bad.id), reason)


class NdjsonWire:
    """One JSON object a line."""

    content_type = NDJSON

    def __init__(self) -> None:
        self.failure: str | None = None
        self._lines = LineSplitter(MAX_TRIGGER_BYTES)

    def feed(self, data: bytes) -> Sequence[Trigger | Bad]:
        """The triggers these bytes complete."""
        lines, oversize = self._lines.feed(data)
        triggers = decode_chunk(lines) if lines else []
        return [*triggers, Bad(None, TOO_LARGE)] if oversize else triggers

    def finish(self) -> list[Trigger | Bad]:
        """The last line, when nothing ended it."""
        return [decode_trigger(line) for line in each_line(self._lines.finish())]

    def results(self, seqs: Iterable[int], bodies: Iterable[bytes | None]) -> bytes:
        """The results that have a body."""
        return b"".join(
            [b'{"seq":%d,%b}\n' % (seq, body) for seq, body in zip(seqs, bodies, strict=True) if body is not None]
        )

    def summary(self, summary: Summary) -> bytes:
        """The last line."""
        return _json_encoder.encode(StreamSummary(summary)) + b"\n"


class MsgpackWire:
    """MessagePack maps, one after another, with nothing between them."""

    content_type = MSGPACK

    def __init__(self) -> None:
        self.failure: str | None = None
        self._framer = Framer(MAX_TRIGGER_BYTES)

    def feed(self, data: bytes) -> list[Trigger | Bad]:
        """The triggers these bytes complete. A bad map costs itself, what is no MessagePack the rest of the stream."""
        objects, failure = self._framer.feed(data)
        if isinstance(failure, FramingError):
            self.failure = f"invalid: stream: {failure}; what follows was not read"
        return [_decode_map(item) for item in objects]

    def finish(self) -> list[Trigger | Bad]:
        """A trigger that was cut off."""
        return [Bad(None, "invalid: trigger: the stream ended inside it")] if self._framer.inside else []

    def results(self, seqs: Iterable[int], bodies: Iterable[bytes | None]) -> bytes:
        """The results that have a body, as maps."""
        return b"".join(
            [_result_map(seq, body) for seq, body in zip(seqs, bodies, strict=True) if body is not None]
        )

    def summary(self, summary: Summary) -> bytes:
        """The last map."""
        return _msgpack_encoder.encode(StreamSummary(summary))


def _decode_map(data: bytes | None) -> Trigger | Bad:
    if data is None:
        return Bad(None, TOO_LARGE)
    try:
        return _msgpack_decoder.decode(data)
    except _UNREADABLE as error:
        return Bad(id_in(data, msgpack=True), reason_of(error, data, msgpack=True))


def _result_map(seq: int, body: bytes) -> bytes:
    result: dict[str, Any] = msgspec.json.decode(b'{"seq":%d,%b}' % (seq, body))
    return _msgpack_encoder.encode(result)
