"""From trigger to order: identity, line, limits, numbers, reasons."""

import msgspec
import pytest

from dispatcher.catalog import decode_document
from dispatcher.intake import MAX_TTL_S, fault_of, id_in, order_of, reason_of
from dispatcher.trigger import Order, Trigger, trigger_decoder


def order(key_line: str | None = None, **fields: object) -> Order | str:
    data = msgspec.json.encode({"template": "pay_ok", "user": "u1", "id": "t1", **fields})
    return order_of(trigger_decoder.decode(data), key_line, lambda: "new", "CN")


def raw(text: bytes) -> Order | str:
    return order_of(trigger_decoder.decode(text), None, lambda: "new", "CN")


def good(made: Order | str) -> Order:
    assert isinstance(made, Order), made
    return made


def reason_in(text: bytes) -> str:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)) as caught:
        trigger_decoder.decode(text)
    return reason_of(caught.value, text)


def test_a_full_trigger_keeps_everything() -> None:
    made = good(
        order(
            line="wallet", params={"a": "x"}, to={"sms": "13800000000"}, channels=["sms"], task="k", ttl_s=60,
            send_at="2026-11-22T10:00:00+08:00", lane="bulk", meta={"n": 1.5, "deep": [{"x": 2.25}]},
        )
    )  # fmt: skip
    assert made == Order(
        "t1", "u1", "u1", "wallet", "pay_ok", {"a": "x"}, {"sms": "13800000000"}, ["sms"], "k", 60.0,
        1_795_312_800.0, "bulk", {"n": 1.5, "deep": [{"x": 2.25}]},
    )  # fmt: skip
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Order) == made


def test_defaults() -> None:
    made = good(raw(b'{"template":"a","user":"u"}'))
    assert (made.id, made.line, made.params, made.to) == ("new", "default", {}, None)


def test_numbers_are_texts_as_written() -> None:
    made = good(raw(b'{"template":"a","user":"u","params":{"a":12.00,"b":1e400,"c":-7,"d":12345678901234567890123}}'))
    assert made.params == {"a": "12.00", "b": "1e400", "c": "-7", "d": "12345678901234567890123"}
    assert all(type(value) is str for value in made.params.values())


def test_msgpack_floats_become_their_shortest_text() -> None:
    trigger = msgspec.msgpack.decode(
        msgspec.msgpack.encode({"template": "a", "user": "u", "params": {"x": 1.5, "n": 3}}), type=Trigger
    )
    assert good(order_of(trigger, None, lambda: "new", "CN")).params == {"x": "1.5", "n": "3"}


@pytest.mark.parametrize("value", [True, None, [], {}])
def test_other_params_are_refused(value: object) -> None:
    assert order(params={"x": value}) == "invalid: params.x: expected a string or a number"


@pytest.mark.parametrize(
    ("key_line", "own", "line"),
    [(None, None, "default"), (None, "a", "a"), ("k", None, "k"), ("k", "k", "k")],
)
def test_line(key_line: str | None, own: str | None, line: str) -> None:
    assert good(order(key_line, line=own)).line == line


def test_a_key_sends_for_its_own_line_only() -> None:
    assert order("k", line="other") == "line_mismatch"


def test_identity_of_addresses_is_their_one_spelling() -> None:
    spellings = [{"sms": "+8613800000000"}, {"sms": "138 0000 0000"}, {"email": "a@b.c", "sms": "13800000000"}]
    made = [good(order(user=None, to=to)) for to in spellings]
    assert {(o.identity, o.user) for o in made} == {("+8613800000000", None)}
    assert good(order(user=None, to={"sms": "nonsense", "email": "A@Example.COM"})).identity == "A@example.com"


def test_nobody_is_addressed() -> None:
    assert order(user=None) == "invalid: user: one of `user` and `to` is required"
    assert order(user=None, to={}) == "invalid: user: one of `user` and `to` is required"
    assert order(user=None, to={"sms": "nonsense"}) == "invalid_address:sms"


def test_limits() -> None:
    assert isinstance(order(params={f"p{i}": "x" for i in range(64)}), Order)
    assert order(params={f"p{i}": "x" for i in range(65)}) == "invalid: params: at most 64 are allowed"
    assert isinstance(order(meta={"a": "x" * (4096 - 8)}), Order)
    assert order(meta={"a": "x" * (4096 - 7)}) == "invalid: meta: larger than 4096 bytes"
    # It travels as msgpack, and one trigger must not spoil the call that carries others.
    assert str(order(meta={"a": 10**30})).startswith("invalid: meta: holds something JSON cannot, or an integer")
    assert isinstance(order(id="x" * 128), Order)
    assert reason_in(b'{"template":"a","id":"%b"}' % (b"x" * 129)).startswith("invalid: id: Expected `str` of length")
    assert order(channels=[]) == "invalid: channels: must not be empty"
    assert order(ttl_s=MAX_TTL_S + 1) == f"invalid: ttl_s: at most {MAX_TTL_S}"
    assert str(order(send_at="2026-11-22T10:00:00")).startswith("invalid: send_at: needs an offset")


def test_a_past_send_at_is_the_shards_to_judge() -> None:
    assert good(order(send_at="2001-01-01T00:00:00Z")).send_at == 978_307_200.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "invalid: trigger: Input data was truncated"),
        (b"[]", "invalid: trigger: Expected `object`, got `array`"),
        (b"{}", "invalid: template: required field is missing"),
        (b'{"template":"a","x":1}', "invalid: x: unknown field"),
        (b'{"template":1}', "invalid: template: Expected `str`, got `int`"),
        (b'{"template":"a","params":[]}', "invalid: params: Expected `object`, got `array`"),
        (b'{"template":"a","channels":["fax"]}', "unsupported_channel:fax"),
        (b'{"template":"a","to":{"fax":"1"}}', "unsupported_channel:fax"),
        (b'{"template":"a","to":{"sms":1}}', "invalid: to[...]: Expected `str`, got `int`"),
        (b'{"template":"a","lane":"slow"}', "invalid: lane: Invalid enum value 'slow'"),
        (b'{"template":"\xff"}', "invalid: template: not UTF-8 (invalid start byte at byte 0 of it)"),
        (
            b'{"id":"a","template":"t","params":{"n":1,"name":"a\xffb"}}',
            "invalid: params.name: not UTF-8 (invalid start byte at byte 1 of it)",
        ),
        (
            b'{"template":"t","params":{"\xff":1}}',
            "invalid: params: a name in it is not UTF-8 (invalid start byte at byte 0 of it)",
        ),
        (
            b'{"template":"t","meta":{"a":["x","b\xc3("]}}',
            "invalid: meta.a[1]: not UTF-8 (invalid continuation byte at byte 1 of it)",
        ),
        (
            b'{"templ\xff":1}',
            "invalid: trigger: a name in it is not UTF-8 (invalid start byte at byte 5 of it)",
        ),
        (b'{"template":"a","meta":' + b'{"a":' * 5000, "invalid: trigger: nested too deeply"),
    ],
)
def test_reasons(text: bytes, reason: str) -> None:
    assert reason_in(text) == reason


def test_reasons_are_short() -> None:
    assert len(reason_in(b'{"template":"a","%b":1}' % (b"x" * 5000))) == 300


def test_the_id_of_a_wrong_trigger_is_found_when_it_can_be() -> None:
    assert id_in(b'{"id":"t1","bad":1}') == "t1"
    assert id_in(b'{"id":7}') is None
    assert id_in(b'{"id":"t1"') is None
    assert id_in(msgspec.msgpack.encode({"id": "t1", "bad": 1}), msgpack=True) == "t1"


def test_faults_name_nested_paths() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        decode_document("routes", b'[{"providers":[{"id":"a","x":1}]}]')
    assert fault_of(caught.value) == ("[0].providers[0].x", "unknown field")
