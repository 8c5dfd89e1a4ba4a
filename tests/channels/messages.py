"""Messages of every channel, as the dispatcher renders them."""

from typing import Any

from channels.adapter import Reply
from dispatcher.message import Message

FIELDS: dict[str, dict[str, Any]] = {
    "sms": {"text": "尊敬的张三，已支付12.00元。", "signature": "示例"},
    "push": {"title": "Paid", "body": "12.00", "jump": {"kind": "h5", "url": "https://example.com"}},
    "wechat": {"template_id": "T1", "data": {"first": {"value": "paid"}}, "url": "https://example.com"},
    "email": {"subject": "Paid", "text": "12.00", "html": "<b>12.00</b>"},
    "webhook": {"body": {"amount": "12.00"}},
}
#: How the vendors that have templates of their own know `pay_ok`.
VENDOR = {"aliyun": ["SMS_1", ["amount"]], "huawei_sms": ["8ff5", ["amount"]], "tencent": ["1110", ["amount"]]}


def message(id_: str = "m1", channel: str = "sms", **changes: Any) -> Message:
    values: dict[str, Any] = {
        "id": id_,
        "trigger": f"t-{id_}",
        "identity": "u42",
        "channel": channel,
        "to": "+8613800000000",
        "type": "notice",
        "level": 3,
        "lane": 1,
        "line": "wallet",
        "template": "pay_ok",
        "fields": FIELDS[channel],
        "params": {"amount": "12.00"},
        "admitted_ms": 1,
        "due_ms": 1,
        "expires_ms": 2,
        "vendor": VENDOR,
    }
    return Message(**{**values, **changes})


def messages(count: int, channel: str = "sms") -> list[Message]:
    return [message(f"m{i}", channel) for i in range(count)]


def reply(status: int = 200, body: bytes = b"", **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
