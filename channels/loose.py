"""Reading what vendors send without believing it: nothing here raises, whatever it is given."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

BEIJING: Final = timezone(timedelta(hours=8))
_LONGEST_FIELD: Final = 4096
_MOST_FIELDS: Final = 256
_decode: Final = msgspec.json.Decoder().decode


def json_of(body: bytes) -> Any:
    """The JSON document, None when it is none."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def items_of(document: Any) -> list[dict[str, Any]]:
    """The objects of a list; everything else in it is left out."""
    return [item for item in document if isinstance(item, dict)] if isinstance(document, list) else []


def word(value: Any, longest: int = 256) -> str | None:
    """A text, or a number as text; None for anything else and for the empty text. Cut at `longest` characters."""
    if isinstance(value, str):
        return value[:longest] or None
    return str(value)[:longest] if isinstance(value, int | float) and not isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    """A number from 0 to a million, written as number or text."""
    text = word(value)
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 7:
        return None
    return int(text)


def form_of(body: bytes) -> dict[str, str]:
    """The fields of `application/x-www-form-urlencoded`; of a name that is repeated the first counts."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
    return {name: value[:_LONGEST_FIELD] for name, value in reversed(pairs)}


def time_ms(value: Any, zone: timezone = UTC) -> int:
    """Epoch milliseconds of `YYYY-MM-DD hh:mm:ss`, RFC 3339 or epoch seconds; a time without a zone is in `zone`.

    0 for anything else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value * 1000) if 0 < value < 1e11 else 0
    try:
        at = datetime.fromisoformat(value)
        return max(0, int((at if at.tzinfo is not None else at.replace(tzinfo=zone)).timestamp() * 1000))
    except (ValueError, TypeError, OverflowError):
        return 0
