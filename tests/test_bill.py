"""What a text message is billed when it is sent."""

from typing import Any

import msgspec
import pytest

from dispatcher.bill import bill
from dispatcher.documents import Provider
from dispatcher.entries import End, Settle, decode_entry, encode_entry
from dispatcher.receipt import Receipt
from tests.channels.messages import message

PRICES = {"CN": 0.045, "US": 0.0079}


def billed(to: str | None, text: str, segments: int | None = None, **options: Any) -> tuple[int | None, float | None]:
    one = message("m1", region=to, fields={"text": text, "signature": options.pop("own", None)})
    provider = Provider("aliyun", "sms", options=options, price=PRICES)
    return bill(one, Receipt("m1", "accepted", "p1", segments=segments), provider)


@pytest.mark.parametrize(
    ("region", "text", "options", "expected"),
    [
        ("CN", "x" * 70, {}, (1, 0.045)),
        ("CN", "x" * 160, {}, (3, 0.135)),
        ("US", "x" * 160, {}, (1, 0.0079)),
        ("CN", "中" * 66, {"own": "示例"}, (1, 0.045)),
        ("CN", "中" * 67, {"own": "示例"}, (2, 0.09)),
        ("CN", "中" * 67, {"signature": "示例"}, (2, 0.09)),
        ("CN", "中" * 66, {"own": "示例", "signature": "另外一个签名"}, (1, 0.045)),
        ("CN", "中" * 70, {"signature": "env:SIGNATURE"}, (1, 0.045)),
        ("FR", "x" * 161, {}, (2, None)),
        (None, "x", {}, (1, None)),
    ],
)
def test_segments_by_price(region: str | None, text: str, options: dict[str, Any], expected: tuple[int, float]) -> None:
    assert billed(region, text, **options) == expected


def test_what_the_provider_counted_comes_first() -> None:
    assert billed("CN", "x", segments=2) == (2, 0.09)


def test_a_provider_that_is_gone_has_no_price() -> None:
    one = message("m1", region="CN", fields={"text": "x" * 71})
    assert bill(one, Receipt("m1", "accepted", "p1"), None) == (2, None)


@pytest.mark.parametrize("channel", ["push", "wechat", "email", "webhook"])
def test_only_text_messages_are_billed(channel: str) -> None:
    assert bill(message("m1", channel), Receipt("m1", "accepted", "p1", segments=2), None) == (None, None)


def test_ends_written_before_there_were_bills_are_read() -> None:
    old = msgspec.msgpack.encode([2, 7, [["m1", "sent", False, "p1", None, None, 1]]])
    assert decode_entry(old) == Settle(7, [End("m1", "sent", False, "p1")])
    new = Settle(7, [End("m1", "sent", False, "p1", segments=2, price=0.09)])
    assert decode_entry(encode_entry(new)) == new
