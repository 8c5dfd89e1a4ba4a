"""What a gateway of kind `webhook` posts back: signed or refused, read or passed over, never an exception."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from channels.kind import Callback, Heard, NotTrue
from channels.secret import Secret
from channels.standard_webhooks import sign, signing_key
from channels.webhook import KIND, WebhookOptions
from dispatcher.ident import message_id, place_of, time_prefix
from dispatcher.report import RANKS, Report, Uplink

ID = message_id(time_prefix(1_764_000_000_000), "0" * 13, 3, "sms")
SECRET = "whsec_c2hhbGxub3RiZXNlZW4="
NOW_S = 1_800_000_000.0
OPEN = WebhookOptions(url="https://x")
SIGNED = WebhookOptions(url="https://x", secret=Secret(SECRET))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
items = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([ID, ID[:-1], ID.lower()]) | values,
        "ref": st.text(max_size=3) | values,
        "status": st.sampled_from([*RANKS, "read"]) | values,
        "at": st.sampled_from(["2026-11-24T10:00:00Z", "0001-01-01", "9999-12-31T23:59:59-23:59"]) | values,
        "segments": st.integers(-1, 3) | values,
        "price": st.floats(-1, 1) | values,
        "code": values,
        "dead": values,
        "from": st.just("+8613800000000") | values,
        "text": st.text(max_size=4) | values,
        "to": values,
    },
)
bodies = (
    st.binary(max_size=64)
    | st.builds(msgspec.json.encode, values)
    | st.builds(msgspec.json.encode, st.lists(items | values, max_size=4))
    | st.sampled_from([b"", b"[" * 100_000, b'[{"id":"\\ud800","status":"sent"}]', b"[" + b"9" * 400 + b"]"])
)
signatures = st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text())


def heard(what: str, body: bytes, options: WebhookOptions = OPEN, headers: dict[str, str] | None = None) -> Heard:
    assert KIND.callbacks is not None
    call = Callback("POST", "https://me/v1", {}, headers or {}, body, NOW_S)
    return KIND.callbacks.reports("p", call, options) if what == "reports" else KIND.callbacks.uplinks(
        "p", call, options
    )


@given(bodies)
def test_whatever_is_posted_is_answered_and_can_travel(body: bytes) -> None:
    for what in ("reports", "uplinks"):
        check_told(what, heard(what, body))


def check_told(what: str, told: Heard) -> None:
    assert told.status in (200, 400)
    assert not (told.status == 400 and told.items)
    for item in told.items:
        assert item.provider == "p"
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=type(item)) == item
        assert isinstance(item, Report) == (what == "reports")
        if isinstance(item, Report):
            assert item.status in RANKS
            assert item.find if item.id is None else place_of(item.id) is not None
    if told.status == 200:
        assert msgspec.json.decode(told.body)["taken"] == len(told.items)


@given(bodies, signatures)
def test_nothing_unsigned_is_heard(body: bytes, headers: dict[str, str]) -> None:
    for what in ("reports", "uplinks"):
        with pytest.raises(NotTrue):
            heard(what, body, SIGNED, headers)


def test_what_is_signed_is_heard_within_its_time() -> None:
    body = msgspec.json.encode([{"id": ID, "status": "delivered"}])
    for age_s, true in ((0, True), (299, True), (-299, True), (301, False), (-301, False)):
        headers = sign(signing_key(SECRET), "m1", int(NOW_S) - age_s, body)
        if true:
            assert heard("reports", body, SIGNED, headers).items == [Report("p", "delivered", ID)]
        else:
            with pytest.raises(NotTrue):
                heard("reports", body, SIGNED, headers)
    headers = sign(signing_key(SECRET), "m1", int(NOW_S), body)
    with pytest.raises(NotTrue):
        heard("reports", body + b" ", SIGNED, headers)


@pytest.mark.parametrize(
    ("item", "report"),
    [
        ({"id": ID, "status": "sent"}, Report("p", "sent", ID)),
        ({"ref": "r1", "status": "delivered"}, Report("p", "delivered", None, "r1")),
        ({"id": "mine", "ref": 7, "status": "undelivered", "code": 5},
         Report("p", "undelivered", None, "7", code="5")),
        ({"id": ID, "ref": "r1", "status": "delivered", "code": "DELIVRD", "at": "2026-11-24T10:00:00+08:00",
          "segments": 2, "price": 0.09},
         Report("p", "delivered", ID, "r1", None, "DELIVRD", 1_795_485_600_000, 2, 0.09)),
        ({"id": ID, "status": "undelivered", "dead": True, "at": "1.1.2026", "segments": 0, "price": -1},
         Report("p", "undelivered", ID, dead=True)),
        ({"id": "mine", "status": "delivered"}, None),
        ({"id": " " * 23 + ID[23:], "status": "delivered"}, None),
        ({"status": "delivered"}, None),
        ({"id": ID, "status": "read"}, None),
        ({"id": ID}, None),
        ({"id": ID, "status": []}, None),
    ],
)  # fmt: skip
def test_a_report_is_read(item: dict[str, Any], report: Report | None) -> None:
    told = heard("reports", msgspec.json.encode([item, 7]))
    assert list(told.items) == ([report] if report is not None else [])
    assert msgspec.json.decode(told.body) == {"taken": len(told.items), "passed_over": 2 - len(told.items)}


def test_an_uplink_is_read() -> None:
    body = [
        {"from": "+8613800000000", "to": "1069", "text": " TD ", "at": "2026-11-24T02:00:00Z", "id": "u1"},
        {"from": "+8613800000000"},
        {"text": "TD"},
    ]
    told = heard("uplinks", msgspec.json.encode(body))
    assert told.items == [Uplink("p", "", "+8613800000000", " TD ", "1069", 1_795_485_600_000, "u1")]
