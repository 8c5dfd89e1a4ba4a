"""What holds for every provider kind in `ADAPTERS`."""

from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import ADAPTERS, build, check, mask
from channels.adapter import Adapter, Reply
from channels.answers import LONGEST_WORD
from dispatcher.documents import Provider
from dispatcher.receipt import ANSWERS
from tests.channels.messages import messages
from tests.channels.p8 import P8
from tests.channels.service_account import SERVICE_ACCOUNT

#: A complete configuration of each kind; a new kind adds its row.
SAMPLES: dict[str, dict[str, Any]] = {
    "dingtalk": {"url": "env:ROBOT", "secret": "env:SECRET"},
    "feishu": {"url": "env:ROBOT", "secret": "env:SECRET"},
    "wechat": {"app_id": "wx1", "app_secret": "env:SECRET", "token": "env:TOKEN", "encoding_aes_key": "env:AES_KEY"},
    "wecom": {"corp_id": "ww1", "corp_secret": "env:SECRET", "agent_id": 1000002},
    "wecom_robot": {"url": "env:ROBOT"},
    "aws_eum": {"access_key_id": "AKIA1", "secret_access_key": "env:API_SECRET", "region": "eu-west-1",
                "session_token": "env:TOKEN", "origination_identity": "pool-1"},
    "aws_sns": {"access_key_id": "AKIA1", "secret_access_key": "env:API_SECRET", "region": "us-east-1"},
    "twilio": {"account_sid": "AC1", "auth_token": "env:API_SECRET", "from": "+15005550006",
               "public_url": "https://us.example.com", "callback_secret": "env:CALLBACK"},
    "aliyun": {"access_key_id": "LTAI", "access_key_secret": "env:API_SECRET", "signature": "示例"},
    "huawei_sms": {"app_key": "c8RW", "app_secret": "env:API_SECRET", "sender": "8821", "signature": "示例"},
    "tencent": {"secret_id": "AKID", "secret_key": "env:API_SECRET", "sdk_app_id": "1400006666", "signature": "示例"},
    "webhook": {"url": "https://gateway.example.com/send", "secret": "env:SECRET", "callback_secret": "env:CALLBACK"},
    "fcm": {"service_account": "env:SERVICE_ACCOUNT"},
    "smpp": {"host": "smpp.example.com", "system_id": "esme", "password": "env:SMPP_PASSWORD", "source_addr": "10690"},
    "apns": {"key": "env:APNS_KEY", "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "topic": "com.example.app"},
    "smtp": {"host": "mail.example.com", "username": "us", "password": "env:API_SECRET",
             "from": "Shop <shop@example.com>"},
    "jpush": {"app_key": "k1", "master_secret": "env:PUSH_SECRET"},
    "getui": {"app_id": "a1", "app_key": "k1", "master_secret": "env:PUSH_SECRET"},
    "huawei_push": {"app_id": "a1", "app_secret": "env:PUSH_SECRET", "callback_key": "env:CALLBACK"},
    "xiaomi": {"app_secret": "env:PUSH_SECRET", "package": "com.example.app"},
}
ENVIRON = {
    "SMPP_PASSWORD": "hidden!!",
    "SECRET": "whsec_c2hhbGxub3RiZXNlZW4=",
    "CALLBACK": "shallnotbeseen",
    "PUSH_SECRET": "hush",
    "SERVICE_ACCOUNT": SERVICE_ACCOUNT,
    "APNS_KEY": P8,
    "API_SECRET": "nottobeseeneither",
    "ROBOT": "https://robots.example.com/send?access_token=shallneverbeseen",
    "TOKEN": "tokennottobeseen",
    "AES_KEY": "nottobeseen" + "A" * 32,
}
NOW_S = 1_800_000_000.0

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_result = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["m0", "m1", "m2", "m9"]) | _json,
        "answer": st.sampled_from([*ANSWERS, "sure"]) | _json,
        "ref": st.text(max_size=3) | st.just("r" * 5_000) | _json,
        "code": _json,
        "retry_after_s": st.floats(allow_nan=False, allow_infinity=False) | _json,
    },
)
_body = (
    st.binary(max_size=64)
    | st.builds(msgspec.json.encode, _json)
    | st.builds(lambda results: msgspec.json.encode({"results": results}), st.lists(_result | _json, max_size=4))
    | st.sampled_from(
        [b"", b" \n", b"[" * 100_000, b'{"results":[{"id":"m0","answer":"accepted","retry_after_s":1e999}]}']
    )
)
_reply = st.builds(
    Reply,
    st.integers(-1, 700) | st.sampled_from([200, 204, 429, 503]),
    st.dictionaries(st.sampled_from(["retry-after", "content-type", "x"]), st.text(max_size=40), max_size=3),
    _body,
)


def sample(kind: str, **changes: Any) -> Provider:
    document = {"kind": kind, "channel": ADAPTERS[kind].channels[0], "options": SAMPLES[kind], **changes}
    return msgspec.convert(document, Provider)


@cache
def adapter(kind: str) -> Adapter:
    way = build("p1", sample(kind), ENVIRON)
    assert isinstance(way, tuple)
    return way[0]


def test_every_kind_has_a_sample() -> None:
    assert set(SAMPLES) == set(ADAPTERS)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
class TestKind:
    def test_sample_is_right(self, kind: str) -> None:
        assert check(sample(kind)) == []

    def test_secrets_are_never_shown(self, kind: str) -> None:
        provider = sample(kind)
        way = build("p1", provider, ENVIRON)
        request = way[0].request(messages(1, ADAPTERS[kind].channels[0]), NOW_S) if isinstance(way, tuple) else None
        shown = repr([provider, way, request, mask(provider.options, kind)])
        for value in ENVIRON.values():
            assert value not in shown
            assert value.removeprefix("whsec_") not in shown

    def test_unknown_option_is_named(self, kind: str) -> None:
        wrong = msgspec.structs.replace(sample(kind), options={**SAMPLES[kind], "colour": 1})
        assert ("options.colour", "unknown option") in check(wrong)

    def test_common_options_are_taken(self, kind: str) -> None:
        common = {"ca_file": "/etc/ca.pem", "callback_secret": "file:/run/secret", "callback_allow": ["10.0.0.0/8"]}
        assert check(msgspec.structs.replace(sample(kind), options={**SAMPLES[kind], **common})) == []


@pytest.mark.parametrize("kind", sorted(kind for kind, one in ADAPTERS.items() if one.build is not None))
class TestAdapter:
    @given(count=st.integers(0, 3), reply=_reply)
    def test_one_receipt_for_each_message_in_order(self, kind: str, count: int, reply: Reply) -> None:
        batch = messages(count, ADAPTERS[kind].channels[0])
        receipts = adapter(kind).receipts(batch, reply, NOW_S)
        assert [receipt.id for receipt in receipts] == [message.id for message in batch]
        for receipt in receipts:
            assert receipt.provider == "p1"
            assert receipt.answer in ANSWERS
            assert receipt.answer != "refused"
            assert receipt.retry_after_s is None or 0 <= receipt.retry_after_s <= 86_400
            assert max(len(receipt.code or ""), len(receipt.ref or "")) <= LONGEST_WORD
            msgspec.msgpack.encode(receipt)

    @pytest.mark.parametrize("status", [401, 429, 500, 504, 404])
    def test_status_table_holds(self, kind: str, status: int) -> None:
        receipts = adapter(kind).receipts(messages(2), Reply(status, {}, b"no"), NOW_S)
        wanted = {401: "auth", 429: "throttled", 500: "transient", 504: "unknown", 404: "rejected"}[status]
        assert [receipt.answer for receipt in receipts] == [wanted] * 2

    def test_request_is_made_for_every_channel(self, kind: str) -> None:
        for channel in ADAPTERS[kind].channels:
            request = adapter(kind).request(messages(3, channel), NOW_S)
            assert request.url.startswith("http")
            assert all("\n" not in value and "\r" not in value for value in request.headers.values())
