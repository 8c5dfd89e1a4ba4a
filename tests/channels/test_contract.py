"""What holds for every provider kind in `ADAPTERS`."""

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

#: A complete configuration of each kind; a new kind adds its row.
SAMPLES: dict[str, dict[str, Any]] = {
    "webhook": {"url": "https://gateway.example.com/send", "secret": "env:SECRET", "callback_secret": "env:CALLBACK"},
}
ENVIRON = {"SECRET": "whsec_c2hhbGxub3RiZXNlZW4=", "CALLBACK": "shallnotbeseen"}
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


def adapter(kind: str) -> Adapter:
    return build("p1", sample(kind), ENVIRON)[0]


def test_every_kind_has_a_sample() -> None:
    assert set(SAMPLES) == set(ADAPTERS)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
class TestKind:
    def test_sample_is_right(self, kind: str) -> None:
        assert check(sample(kind)) == []

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

    def test_secrets_are_never_shown(self, kind: str) -> None:
        provider = sample(kind)
        made, transport = build("p1", provider, ENVIRON)
        shown = repr([provider, made, transport, made.request(messages(1), NOW_S), mask(provider.options, kind)])
        for value in ENVIRON.values():
            assert value not in shown
            assert value.removeprefix("whsec_") not in shown

    def test_unknown_option_is_named(self, kind: str) -> None:
        wrong = msgspec.structs.replace(sample(kind), options={**SAMPLES[kind], "colour": 1})
        assert ("options.colour", "unknown option") in check(wrong)

    def test_common_options_are_taken(self, kind: str) -> None:
        common = {"ca_file": "/etc/ca.pem", "callback_secret": "file:/run/secret", "callback_allow": ["10.0.0.0/8"]}
        assert check(msgspec.structs.replace(sample(kind), options={**SAMPLES[kind], **common})) == []
