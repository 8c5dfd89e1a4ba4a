"""What a provider of kind `webhook` posts back: delivery reports and uplinks, arrays of JSON objects (design page
`api.md`, "The provider kind `webhook`"). Where the provider has a secret they are signed as our requests are.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, TypeVar, cast

import msgspec

from channels.answers import LONGEST_WORD
from channels.kind import Callback, Heard, NotTrue
from channels.options import Options
from channels.secret import Secret
from channels.standard_webhooks import is_signed, signing_key
from dispatcher.ident import place_of
from dispatcher.report import RANKS, Report, ReportStatus, Uplink

LONGEST_TEXT: Final = 4_096
MOST_SEGMENTS: Final = 1_000
_REFUSED: Final = Heard(body=b'{"error":"not an array of objects"}', status=400)
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_decode: Final = msgspec.json.Decoder().decode
Item = TypeVar("Item", Report, Uplink)


class WebhookCallbacks:
    """An object that cannot be understood is passed over and counted in the answer; the others count."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        """`[{"id" or "ref", "status", "code", "at", "segments", "price"}]`; status also `sent`."""
        return _heard(call, options, lambda item: _report(provider, item))

    def uplinks(self, provider: str, call: Callback, options: Options) -> Heard:
        """`[{"from", "to", "text", "at"}]`, with an `id` where repeated deliveries are to be told."""
        return _heard(call, options, lambda item: _uplink(provider, item))


def _heard(call: Callback, options: Options, read: Callable[[dict[str, Any]], Item | None]) -> Heard:
    secret = getattr(options, "secret", None)
    if isinstance(secret, Secret) and not is_signed(signing_key(secret.reveal()), call.headers, call.body, call.now_s):
        raise NotTrue
    try:
        found = _decode(call.body)
    except _UNREADABLE:
        return _REFUSED
    if not isinstance(found, list):
        return _REFUSED
    items = [item for item in (read(one) for one in found if isinstance(one, dict)) if item is not None]
    return Heard(items, msgspec.json.encode({"taken": len(items), "passed_over": len(found) - len(items)}))


def _report(provider: str, item: dict[str, Any]) -> Report | None:
    status, id_, ref = _word(item.get("status")), _word(item.get("id")), _word(item.get("ref"))
    if id_ is None or place_of(id_) is None:  # a gateway may put an id of its own there
        id_ = None
    if status not in RANKS or (id_ or ref) is None:
        return None
    return Report(
        provider, cast(ReportStatus, status), id_, ref, code=_word(item.get("code")), at_ms=_moment_ms(item.get("at")),
        segments=_segments(item.get("segments")), price=_price(item.get("price")), dead=item.get("dead") is True,
    )  # fmt: skip


def _uplink(provider: str, item: dict[str, Any]) -> Uplink | None:
    sender, text = _word(item.get("from")), item.get("text")
    if sender is None or not isinstance(text, str):
        return None
    at_ms = _moment_ms(item.get("at"))
    return Uplink(
        provider, "", sender, text[:LONGEST_TEXT], _word(item.get("to")) or "", at_ms, _word(item.get("id")) or ""
    )


def _word(value: Any) -> str | None:
    if isinstance(value, str):
        return value[:LONGEST_WORD] or None
    return str(value)[:LONGEST_WORD] if isinstance(value, int) and not isinstance(value, bool) else None


def _moment_ms(value: Any) -> int:
    """RFC 3339; a time without a zone is UTC. 0 when there is none."""
    if not isinstance(value, str):
        return 0
    try:
        at = datetime.fromisoformat(value)
        return max(0, round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        return 0


def _segments(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_SEGMENTS else None


def _price(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        price = float(value)
    except OverflowError:
        return None
    return price if isfinite(price) and price >= 0 else None
