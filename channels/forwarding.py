"""How a line's webhook is told of an uplink: JSON as Standard Webhooks 1.0.0 recommends it, and signed so."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from channels.adapter import Request
from channels.options import url_faults
from channels.secret import Unresolved, is_reference, resolve
from channels.standard_webhooks import sign, signing_key
from dispatcher.documents import Line, LineUplinks
from dispatcher.uplink import Forward


def check_line(line: Line) -> list[tuple[str, str]]:
    """`(path, message)` for what the types cannot say. Opens no reference."""
    way = line.uplinks
    if way is None:
        return []
    errors = [("uplinks.url", what) for what in url_faults(way.url, way.allow_private)]
    if not is_reference(way.secret) or way.secret in ("env:", "file:"):
        errors.append(("uplinks.secret", "is a secret: write it as `env:NAME` or `file:NAME`"))
    return errors


def forward_request(way: LineUplinks, forward: Forward, environ: Mapping[str, str], now_s: float) -> Request:
    """One uplink for a line. Raises ValueError, which does not show the secret, when that cannot be used."""
    try:
        key = signing_key(resolve(way.secret, environ))
    except Unresolved as error:
        raise ValueError(str(error)) from None
    uplink = forward.uplink
    data = {
        "line": forward.line,
        "keyword": forward.keyword,
        "provider": uplink.provider,
        "channel": uplink.channel,
        "from": uplink.sender,
        "to": uplink.to,
        "text": uplink.text,
        "at": _moment(uplink.at_ms or forward.taken_ms),
    }
    body = msgspec.json.encode({"type": "uplink.received", "timestamp": _moment(forward.taken_ms), "data": data})
    headers = {"content-type": "application/json", "user-agent": "dispatcher"}
    return Request("POST", way.url, headers | sign(key, forward.id, int(now_s), body), body)


def _moment(at_ms: int) -> str:
    """RFC 3339 in UTC; a vendor's time beyond the year 9999 is the first of all times."""
    try:
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.fromtimestamp(0, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
