"""A trigger as it stands on the wire."""

from typing import Any

import msgspec
import pytest

from dispatcher.trigger import NumberText, Order, explain_error, trigger_decoder, trigger_lines_decoder

WHOLE = {
    "id": "t", "user": "u", "to": {"sms": "+8613800000000"}, "template": "pay", "line": "wallet",
    "params": {"amount": "1"}, "channels": ["sms"], "task": "spring", "ttl_s": 600, "lane": "normal",
    "send_at": "2026-11-22T10:00:00+08:00", "meta": {"order": [1, None]},
}  # fmt: skip


def test_every_field_is_read() -> None:
    trigger = trigger_decoder.decode(msgspec.json.encode(WHOLE))
    assert msgspec.to_builtins(trigger) == {**WHOLE, "ttl_s": 600.0}


@pytest.mark.parametrize("number", ["12.00", "1e5", "0.10", "123456789012345678.10", "-1.50"])
def test_a_number_keeps_its_digits(number: str) -> None:
    trigger = trigger_decoder.decode(b'{"template":"t","params":{"n":%b}}' % number.encode())
    assert trigger.params["n"] == number
    assert type(trigger.params["n"]) is NumberText


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"template": ""}, "template"), ({"template": None}, "template"), ({"id": "x" * 129}, "id"), ({"id": ""}, "id"),
        ({"to": {"fax": "1"}}, "to"), ({"to": {"sms": ""}}, "to[...]"), ({"channels": ["fax"]}, "channels[0]"),
        ({"ttl_s": 0}, "ttl_s"), ({"lane": "fast"}, "lane"), ({"send_at": "tomorrow"}, "send_at"),
        ({"user": 7}, "user"), ({"params": []}, "params"), ({"meta": []}, "meta"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_path(more: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        trigger_decoder.decode(msgspec.json.encode(WHOLE | more))
    text = explain_error(error.value)
    assert text.startswith("invalid: ")
    assert path in text


def test_unknown_and_missing_fields_are_errors() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        trigger_decoder.decode(msgspec.json.encode({**WHOLE, "colour": 1}))
    with pytest.raises(msgspec.ValidationError, match="missing required field `template`"):
        trigger_decoder.decode(b"{}")


def test_lines_are_read_at_once() -> None:
    lines = b"".join(b'{"template":"t","id":"%d"}\n' % i for i in range(5))
    assert [trigger.id for trigger in trigger_lines_decoder.decode_lines(lines)] == list("01234")


def test_an_order_travels_whole() -> None:
    rare = {"to": {"sms": "x"}, "channels": ["sms"], "task": "s", "ttl_s": 1.5, "send_at": 2.5, "meta": {"a": [1]}}
    order = Order("t", "u", "u", "wallet", "pay", {"n": "1.50"}, lane="bulk", **rare)  # type: ignore[arg-type]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=Order) == order
