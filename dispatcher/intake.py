"""From a trigger on the wire to an order for a shard, or the reason why not. Pure.

What needs the catalog or the clock (unknown template, expiry, addresses of several channels) is the shard's to say.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from dispatcher.address import normalise
from dispatcher.kinds import CHANNELS
from dispatcher.trigger import MAX_META_BYTES, MAX_PARAMS, MAX_TRIGGER_BYTES, NumberText, Order, Trigger
from dispatcher.utf8 import not_utf8, said

DEFAULT_LINE: Final = "default"
#: A `ttl_s` beyond this can only be a mistake (milliseconds, an epoch), and would not fit the log's integers for ever.
MAX_TTL_S: Final = 366 * 86_400
#: The reasons an order may be `overloaded` for; every one of them passes by itself.
OVERLOAD_REASONS: Final = frozenset(
    {
        "outbox_full", "shed_level", "line_share", "moving", "draining", "starting", "store_unavailable",
        "shard_unavailable", "internal_error", "gateway_error",
    }
)  # fmt: skip
TOO_LARGE: Final = f"invalid: trigger: larger than {MAX_TRIGGER_BYTES} bytes"

_AT: Final = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_NO_CHANNEL: Final = re.compile(r"Invalid enum value '(.{1,64})'")
_MAX_REASON_CHARS: Final = 300

_json_encoder: Final = msgspec.json.Encoder()
_msgpack_encoder: Final = msgspec.msgpack.Encoder()


class _Named(msgspec.Struct):
    id: str | None = None


_named_json: Final = msgspec.json.Decoder(_Named)
_named_msgpack: Final = msgspec.msgpack.Decoder(_Named)


def fault_of(error: Exception, data: bytes = b"", msgpack: bool = False) -> tuple[str, str]:
    """`(path, what)` of an error raised while decoding `data`; the path is empty for the whole input."""
    if isinstance(error, UnicodeDecodeError):
        return not_utf8(data, msgpack) or ("", f"a text in it is {said(error)}")
    if isinstance(error, RecursionError):
        return "", "nested too deeply"
    text = str(error)
    match = _AT.search(text)
    path, what = ("", text) if match is None else (match.group(1), text[: match.start()])
    for pattern, verdict in ((_MISSING, "required field is missing"), (_UNKNOWN, "unknown field")):
        named = pattern.fullmatch(what)
        if named is not None:
            return (f"{path}.{named.group(1)}" if path else named.group(1)), verdict
    return path, what


def reason_of(error: Exception, data: bytes = b"", msgpack: bool = False) -> str:
    """The reason of a trigger that could not be read: `invalid: <path>: <what>`, or an unsupported channel's name."""
    path, what = fault_of(error, data, msgpack)
    if path == "to" or path.startswith("channels["):
        unsupported = _NO_CHANNEL.fullmatch(what)
        if unsupported is not None:
            return f"unsupported_channel:{unsupported.group(1)}"
    return f"invalid: {path or 'trigger'}: {what}"[:_MAX_REASON_CHARS]


def id_in(data: bytes, msgpack: bool = False) -> str | None:
    """The id in a trigger that is otherwise wrong, so that its result still names it."""
    try:
        found = (_named_msgpack if msgpack else _named_json).decode(data).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found[:128] if found else None


def order_of(trigger: Trigger, key_line: str | None, new_id: Callable[[], str], region: str) -> Order | str:
    """The order a trigger amounts to, or the reason it is rejected. `key_line`: the only line its caller may use."""
    line = trigger.line
    if key_line is not None:
        if line is not None and line != key_line:
            return "line_mismatch"
        line = key_line
    params: Any = trigger.params
    for value in params.values():
        if type(value) is not str:
            params = _texts(params)
            if type(params) is str:
                return params
            break
    if len(params) > MAX_PARAMS:
        return f"invalid: params: at most {MAX_PARAMS} are allowed"
    user, to = trigger.user, trigger.to
    identity = user or _identity(to, region)
    if identity is None:
        return _nobody(to)
    send_at_s = None
    if trigger.send_at is not None or trigger.channels is not None or trigger.meta is not None or trigger.ttl_s:
        reason = _rare_fault(trigger)
        if reason is not None:
            return reason
        send_at_s = None if trigger.send_at is None else trigger.send_at.timestamp()
    return Order(
        trigger.id or new_id(), identity, user, line or DEFAULT_LINE, trigger.template, params, to,  # type: ignore[arg-type]
        trigger.channels, trigger.task, trigger.ttl_s, send_at_s, trigger.lane, trigger.meta,  # type: ignore[arg-type]
    )  # fmt: skip


def _texts(params: dict[str, Any]) -> dict[str, str] | str:
    """Params with numbers as the text they were written as, or the reason they cannot be."""
    texts = {}
    for name, value in params.items():
        kind = type(value)
        if kind is str:
            texts[name] = value
        elif kind is NumberText or kind is int:
            texts[name] = str(value)
        elif kind is float:  # from msgpack, which keeps no digits: the shortest text that means the same
            texts[name] = repr(value)
        else:
            return f"invalid: params.{name}: expected a string or a number"[:_MAX_REASON_CHARS]
    return texts


def _identity(to: dict[Any, str] | None, region: str) -> str | None:
    """Who an address-only trigger is for: its first good address, in the fixed order of channels, so that the order
    in which a caller lists them makes no difference."""
    if not to:
        return None
    for channel in CHANNELS:
        text = to.get(channel)
        address = None if text is None else normalise(channel, text, region)
        if address is not None:
            return address
    return None


def _nobody(to: dict[Any, str] | None) -> str:
    if not to:
        return "invalid: user: one of `user` and `to` is required"
    return f"invalid_address:{next(iter(to))}"


def _rare_fault(trigger: Trigger) -> str | None:
    """What is wrong with the fields few triggers have. Turns `meta` into plain values."""
    if trigger.channels is not None and not trigger.channels:
        return "invalid: channels: must not be empty"
    if trigger.send_at is not None and trigger.send_at.tzinfo is None:
        return "invalid: send_at: needs an offset from UTC, such as Z or +08:00"
    if trigger.ttl_s is not None and trigger.ttl_s > MAX_TTL_S:
        return f"invalid: ttl_s: at most {MAX_TTL_S}"
    return None if trigger.meta is None else _meta_fault(trigger)


def _meta_fault(trigger: Trigger) -> str | None:
    trigger.meta = _plain(trigger.meta)
    try:
        size_bytes = len(_json_encoder.encode(trigger.meta))
        _msgpack_encoder.encode(trigger.meta)  # it travels so: integers have 64 bits there
    except (TypeError, ValueError, OverflowError, RecursionError):
        return "invalid: meta: holds something JSON cannot, or an integer beyond 64 bits"
    return f"invalid: meta: larger than {MAX_META_BYTES} bytes" if size_bytes > MAX_META_BYTES else None


def _plain(value: Any) -> Any:
    """Numbers kept as text become numbers again: only `params` are rendered."""
    if type(value) is NumberText:
        return float(value)
    if type(value) is dict:
        return {key: _plain(inner) for key, inner in value.items()}
    if type(value) is list:
        return [_plain(inner) for inner in value]
    return value
