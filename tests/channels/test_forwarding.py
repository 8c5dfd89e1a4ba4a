"""What a line's webhook is sent, and which webhooks can be."""

import msgspec
import pytest

from channels.forwarding import check_line, forward_request
from channels.standard_webhooks import is_signed, signing_key
from dispatcher.documents import Line, LineUplinks
from dispatcher.report import Uplink
from dispatcher.uplink import Forward

SECRET = "whsec_c2hhbGxub3RiZXNlZW4="
WAY = LineUplinks(["CX"], "https://wallet.example.com/uplinks", "env:S")
FORWARD = Forward("uplink_1", "wallet", "CX", 1_800_000_000_000, Uplink("p", "sms", "+8613800000000", "cx 5", "1069"))


def test_a_request_says_all_and_is_signed() -> None:
    request = forward_request(WAY, FORWARD, {"S": SECRET}, 1_800_000_005.5)
    assert (request.method, request.url) == ("POST", WAY.url)
    assert request.headers["webhook-id"] == "uplink_1"
    assert is_signed(signing_key(SECRET), request.headers, request.body, 1_800_000_005)
    assert msgspec.json.decode(request.body) == {
        "type": "uplink.received",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {
            "line": "wallet", "keyword": "CX", "provider": "p", "channel": "sms", "from": "+8613800000000",
            "to": "1069", "text": "cx 5", "at": "2027-01-15T08:00:00.000Z",
        },
    }  # fmt: skip


@pytest.mark.parametrize(("at_ms", "at"), [(1, "1970-01-01T00:00:00.001Z"), (10**17, "1970-01-01T00:00:00.000Z")])
def test_the_vendors_time_counts(at_ms: int, at: str) -> None:
    forward = msgspec.structs.replace(FORWARD, uplink=msgspec.structs.replace(FORWARD.uplink, at_ms=at_ms))
    assert msgspec.json.decode(forward_request(WAY, forward, {"S": SECRET}, 0).body)["data"]["at"] == at


@pytest.mark.parametrize("environ", [{}, {"S": "no base64!"}])
def test_a_secret_that_cannot_be_used_is_not_shown(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"is not set|must hold") as caught:
        forward_request(WAY, FORWARD, environ, 0)
    assert "no base64!" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, None),
        ({"secret": SECRET}, "uplinks.secret"),
        ({"secret": "env:"}, "uplinks.secret"),
        ({"url": "ftp://x"}, "uplinks.url"),
        ({"url": "http://127.0.0.1/"}, "uplinks.url"),
        ({"url": "http://127.0.0.1/", "allow_private": True}, None),
    ],
)
def test_a_webhook_that_cannot_be_is_named(changes: dict[str, str], path: str | None) -> None:
    errors = check_line(Line(uplinks=msgspec.structs.replace(WAY, **changes)))
    assert [where for where, _ in errors] == ([path] if path else [])
    assert SECRET not in str(errors)
    assert check_line(Line()) == []
