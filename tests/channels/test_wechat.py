"""The kind `wechat`: requests, answers, tokens and callbacks; judged by wechatpy."""

import base64
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wechatpy import parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidSignatureException
from wechatpy.utils import check_signature

from channels.adapter import NoToken, Tokened
from channels.kind import Callback, Heard, NotTrue
from channels.options import OptionsError
from channels.secret import Secret
from channels.wechat import KIND, Wechat, WechatCallbacks, WechatOptions
from channels.wechat_envelope import decrypt, document_of, is_signed, key_of, signature
from dispatcher.report import Report, Uplink
from tests.channels.messages import message, messages, reply
from tests.channels.vendor import Heard as Asked
from tests.channels.vendor import Script, send, vendor
from tests.support import run

NOW_S = 1_800_000_000.0
AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
OPTIONS = WechatOptions(app_id="wx1", app_secret=Secret("s3cret"), token=Secret("tok"))
SAFE = msgspec.structs.replace(OPTIONS, encoding_aes_key=Secret(AES_KEY))
JOB = """<xml><ToUserName><![CDATA[gh_7f083739789a]]></ToUserName>
<FromUserName><![CDATA[oia2TjuEGTNoeX76QEjQNrcURxG8]]></FromUserName><CreateTime>1395658920</CreateTime>
<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event><MsgID>200163836</MsgID>
<Status><![CDATA[%s]]></Status></xml>"""
SENT = """<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName><CreateTime>1620963428</CreateTime>
<MsgType>event</MsgType><Event>subscribe_msg_sent_event</Event>
<SubscribeMsgSentEvent>%s</SubscribeMsgSentEvent></xml>"""
ITEM = "<List><TemplateId>T1</TemplateId><MsgID>%s</MsgID><ErrorCode>%s</ErrorCode><ErrorStatus>x</ErrorStatus></List>"
TEXT = """<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[o1]]></FromUserName>
<CreateTime>1348831860</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[退订]]></Content>
<MsgId>1234567890123456</MsgId></xml>"""
CALLBACKS = WechatCallbacks()


def sent(product: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    adapter = Wechat("p1", msgspec.structs.replace(OPTIONS, product=product))
    adapter.use("a/b+c")
    request = adapter.request([message("m1", "wechat", to="openid", **changes)], NOW_S)
    url = urlsplit(request.url)
    assert parse_qs(url.query) == {"access_token": ["a/b+c"]}
    assert (request.method, url.netloc) == ("POST", "api.weixin.qq.com")
    return url.path, msgspec.json.decode(request.body)


def test_template_message() -> None:
    assert sent("template") == (
        "/cgi-bin/message/template/send",
        {
            "touser": "openid", "template_id": "T1", "url": "https://example.com", "client_msg_id": "m1",
            "data": {"first": {"value": "paid"}},
        },
    )  # fmt: skip


def test_subscription_message_of_an_official_account() -> None:
    path, body = sent("subscribe", fields={"template_id": "T1", "data": {"thing1": "paid"}})
    assert path == "/cgi-bin/message/subscribe/bizsend"
    assert body == {"touser": "openid", "template_id": "T1", "data": {"thing1": {"value": "paid"}}}


def test_subscription_message_of_a_mini_program() -> None:
    path, body = sent("mini", fields={"template_id": "T1", "data": {}, "url": "pages/index?id=1"})
    assert path == "/cgi-bin/message/subscribe/send"
    assert body == {
        "touser": "openid", "template_id": "T1", "page": "pages/index?id=1", "miniprogram_state": "formal",
        "lang": "zh_CN", "data": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "answer"),
    [
        ("40003 40031 41009 43004 50005 43101 48002 65302", "invalid_recipient"),
        ("40001 40014 42001 41001 40013 48001 48004 48008 50001 50002", "auth"),
        ("45009 45011", "throttled"),
        ("-1 61450", "transient"),
        ("40037 47001 47003 41028 41029 41030 45002 40033 99999", "rejected"),
    ],
)
def test_codes(codes: str, answer: str) -> None:
    for code in codes.split():
        body = b'{"errcode":%s,"errmsg":"no"}' % code.encode()
        [receipt] = Wechat("p1", OPTIONS).receipts(messages(1, "wechat"), reply(200, body), NOW_S)
        assert (receipt.answer, receipt.code, receipt.find) == (answer, code, None)


def test_accepted_says_what_its_report_will_name() -> None:
    body = b'{"errcode":0,"errmsg":"ok","msgid":200228332}'
    [receipt] = Wechat("p1", OPTIONS).receipts(messages(1, "wechat"), reply(200, body), NOW_S)
    assert (receipt.answer, receipt.ref, receipt.find) == ("accepted", "200228332", "200228332")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errmsg":"ok"}'])
def test_unreadable_reply_is_unknown(body: bytes) -> None:
    assert Wechat("p1", OPTIONS).receipts(messages(1), reply(200, body), NOW_S)[0].answer == "unknown"


class TestToken:
    def test_stable_token_is_asked_for(self) -> None:
        adapter = Wechat("p1", OPTIONS)
        assert isinstance(adapter, Tokened)
        request = adapter.token_request(NOW_S)
        assert (request.method, request.url) == ("POST", "https://api.weixin.qq.com/cgi-bin/stable_token")
        assert msgspec.json.decode(request.body) == {
            "grant_type": "client_credential", "appid": "wx1", "secret": "s3cret", "force_refresh": False,
        }  # fmt: skip

    def test_taken_with_its_life(self) -> None:
        token = Wechat("p1", OPTIONS).token_of(reply(200, b'{"access_token":"T","expires_in":7200}'), NOW_S)
        assert (token.value, token.expires_s) == ("T", NOW_S + 7200)

    @pytest.mark.parametrize(
        ("status", "body", "answer"),
        [
            (200, b'{"errcode":40125,"errmsg":"invalid appsecret"}', "auth"),
            (200, b'{"errcode":45009}', "throttled"),
            (200, b'{"errcode":-1}', "transient"),
            (200, b"<html>", "transient"),
            (200, b'{"access_token":"a b"}', "transient"),
            (503, b"", "transient"),
            (403, b"", "auth"),
        ],
    )
    def test_none_given(self, status: int, body: bytes, answer: str) -> None:
        with pytest.raises(NoToken) as raised:
            Wechat("p1", OPTIONS).token_of(reply(status, body), NOW_S)
        assert raised.value.answer == answer

    def test_stale(self) -> None:
        adapter = Wechat("p1", OPTIONS)
        assert all(adapter.is_stale(reply(200, b'{"errcode":%d}' % code)) for code in (40001, 40014, 41001, 42001))
        assert not any(adapter.is_stale(reply(200, body)) for body in (b'{"errcode":0}', b'{"errcode":40013}', b"no"))


# -- callbacks


def call(body: str | bytes = b"", method: str = "POST", token: str = "tok", **query: str) -> Callback:
    """Signed as the vendor does it."""
    query = {"timestamp": "1800000000", "nonce": "n1", **query}
    query.setdefault("signature", signature(token, query["timestamp"], query["nonce"]))
    data = body.encode() if isinstance(body, str) else body
    return Callback(method, "https://x/v1/reports/p1/s", query, {}, data, NOW_S)


def encrypted(body: str, app_id: str = "wx1", **changes: str) -> Callback:
    """As wechatpy makes it."""
    sealed = WeChatCrypto("tok", AES_KEY, app_id).encrypt_message(body, "n1", "1800000000")
    found = document_of(sealed.encode())
    assert found is not None
    query = {"encrypt_type": "aes", "msg_signature": found["MsgSignature"], **changes}
    return call(f"<xml><ToUserName>gh</ToUserName><Encrypt><![CDATA[{found['Encrypt']}]]></Encrypt></xml>", **query)


def heard(what: Callback, options: WechatOptions = OPTIONS) -> Heard:
    return CALLBACKS.reports("p1", what, options)


def test_a_check_of_the_address_is_echoed() -> None:
    answer = heard(call(method="GET", echostr="5838479218127813673"))
    assert (answer.status, answer.body, answer.items) == (200, b"5838479218127813673", ())


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [("success", "delivered", None), ("failed:user block", "undelivered", "failed:user block"),
     ("failed: system failed", "undelivered", "failed: system failed")],
)  # fmt: skip
def test_finished_job(status: str, expected: str, code: str | None) -> None:
    answer = heard(call(JOB % status))
    assert (answer.status, answer.body) == (200, b"success")
    to = "oia2TjuEGTNoeX76QEjQNrcURxG8"
    at_ms = 1_395_658_920_000
    told = ("p1", expected, None, "200163836", to, code, at_ms)
    assert [msgspec.structs.astuple(report)[:7] for report in answer.items] == [told]


def test_sent_subscription_messages() -> None:
    both = heard(call(SENT % (ITEM % ("7", "0") + ITEM % ("8", "43101"))))
    assert [(r.find, r.status, r.code) for r in both.items if isinstance(r, Report)] == [
        ("7", "delivered", None), ("8", "undelivered", "43101"),
    ]  # fmt: skip
    assert len(heard(call(SENT % (ITEM % ("7", "0")))).items) == 1
    document = {"MsgType": "event", "Event": "subscribe_msg_sent_event", "FromUserName": "o1", "CreateTime": 1620963428,
                "List": [{"TemplateId": "T1", "MsgID": "7", "ErrorCode": "0", "ErrorStatus": "success"}]}  # fmt: skip
    assert heard(call(msgspec.json.encode(document))).items == [
        Report("p1", "delivered", find="7", to="o1", at_ms=1_620_963_428_000)
    ]


def test_a_users_text() -> None:
    wanted = Uplink("p1", "wechat", "o1", "退订", "gh_1", 1_348_831_860_000, "1234567890123456")
    assert heard(call(TEXT)).items == CALLBACKS.uplinks("p1", call(TEXT), OPTIONS).items == [wanted]
    bare = TEXT.replace("<MsgId>1234567890123456</MsgId>", "")
    assert [item.key for item in heard(call(bare)).items if isinstance(item, Uplink)] == ["o1 1348831860000"]
    told = parse_message(TEXT)
    assert (told.source, told.content, str(told.id)) == (wanted.sender, wanted.text, wanted.key)


@pytest.mark.parametrize("event", ["subscribe", "unsubscribe", "CLICK", "subscribe_msg_popup_event"])
def test_other_events_are_only_acknowledged(event: str) -> None:
    answer = heard(call(f"<xml><MsgType>event</MsgType><Event>{event}</Event></xml>"))
    assert (answer.items, answer.body) == ([], b"success")


def test_encrypted_by_wechatpy() -> None:
    assert len(heard(encrypted(JOB % "success"), SAFE).items) == 1
    assert heard(encrypted(TEXT), SAFE).items == heard(call(TEXT)).items


@pytest.mark.parametrize(
    "forged",
    [
        call(TEXT),  # in the open, though the key is there
        encrypted(TEXT, app_id="wx2"),
        encrypted(TEXT, msg_signature="0" * 40),
        encrypted(TEXT, msg_signature=""),
        encrypted(TEXT, signature="é"),
        call("<xml><Encrypt>!</Encrypt></xml>", msg_signature=signature("tok", "1800000000", "n1", "!")),
        call("<xml><Encrypt>AAAA</Encrypt></xml>", msg_signature=signature("tok", "1800000000", "n1", "AAAA")),
        call("<xml><Encrypt><a>1</a></Encrypt></xml>"),
        call(b"\xff"),
    ],
)
def test_forged_encrypted_ones_are_refused(forged: Callback) -> None:
    with pytest.raises(NotTrue):
        heard(forged, SAFE)


@pytest.mark.parametrize("query", [{"signature": ""}, {"signature": "0" * 40}, {"nonce": "n2", "signature": "x"}])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_forged_ones_are_refused(query: dict[str, str], method: str) -> None:
    with pytest.raises(NotTrue):
        heard(call(TEXT, method, **query))
    with pytest.raises(NotTrue):
        heard(call(TEXT, method, token="other"))
    with pytest.raises(NotTrue):
        heard(call(TEXT, method, token=""), msgspec.structs.replace(OPTIONS, token=None))


@pytest.mark.parametrize(
    "body",
    [b"", b"<", b"text", b"[1]", b"<xml>1</xml>", b"\xff\xfe<\x00", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a><b>&b;</b></a>",
     b"<a>" * 100_000, b"<xml><a>&b;</a></xml>", b"{" * 100_000],
)  # fmt: skip
def test_garbage_is_refused(body: bytes) -> None:
    answer = heard(call(body))
    assert (answer.status, answer.items) == (400, ())


def test_deep_documents_are_cut() -> None:
    assert heard(call("<a>" * 50_000 + "</a>" * 50_000)).items == []


_any_text = st.text(st.characters(codec=None))  # lone surrogates, too
_value = st.text(max_size=12) | st.sampled_from(["event", "text", "0", "TEMPLATESENDJOBFINISH", "1395658920"])
_names = st.sampled_from(
    ["MsgType", "Event", "MsgID", "Status", "FromUserName", "CreateTime", "Content", "List", "ErrorCode",
     "SubscribeMsgSentEvent", "MsgId"]
)  # fmt: skip
_fields: st.SearchStrategy[Any] = st.recursive(
    _value | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner),
    max_leaves=9,
)
_documents = st.dictionaries(_names, _fields).map(
    lambda found: {"MsgType": "event", "Event": "subscribe_msg_sent_event", **found}
)


@given(st.binary(max_size=80) | st.builds(msgspec.json.encode, _documents | _fields))
def test_any_body_is_answered(body: bytes) -> None:
    for options in (OPTIONS, SAFE):
        try:
            answer = heard(call(body), options)
        except NotTrue:
            assert options is SAFE
            continue
        assert answer.status in (200, 400)
        msgspec.msgpack.encode(answer.items)


@given(st.binary(max_size=80), st.dictionaries(st.sampled_from(["signature", "nonce", "timestamp"]), _any_text))
def test_whatever_is_not_signed_is_refused(body: bytes, query: dict[str, str]) -> None:
    with pytest.raises(NotTrue):
        heard(Callback("POST", "", query, {}, body, NOW_S))


# -- wechatpy as the judge


@given(st.text(max_size=40), st.from_regex(r"\A[0-9]{1,12}\Z"), st.text(min_size=1, max_size=20))
def test_wechatpy_takes_our_signatures(token: str, timestamp: str, nonce: str) -> None:
    ours = signature(token, timestamp, nonce)
    check_signature(token, ours, timestamp, nonce)  # raises when it is wrong
    with pytest.raises(InvalidSignatureException):
        check_signature(token, ours, timestamp, nonce + "1")


@given(st.text(max_size=300).filter(lambda text: text.isprintable()), st.binary(min_size=32, max_size=32))
def test_what_wechatpy_encrypts_is_opened(text: str, key: bytes) -> None:
    encoded = base64.b64encode(key).decode().rstrip("=")
    body = f"<xml><Content><![CDATA[{text}]]></Content></xml>"
    sealed = document_of(WeChatCrypto("tok", encoded, "wx1").encrypt_message(body, "n", "5").encode())
    assert sealed is not None
    assert is_signed(sealed["MsgSignature"], "tok", "5", "n", sealed["Encrypt"])
    assert decrypt(key_of(encoded), sealed["Encrypt"], "wx1") == body.encode()
    with pytest.raises(ValueError, match="not of this account"):
        decrypt(key_of(encoded), sealed["Encrypt"], "wx2")


@given(st.binary(max_size=96).map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=40))
def test_any_ciphertext_is_opened_or_refused(sealed: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        decrypt(bytes(32), sealed, "wx1")


def test_a_wrong_key_is_named() -> None:
    build = KIND.build
    assert build is not None
    with pytest.raises(OptionsError) as raised:
        build("p1", msgspec.structs.replace(OPTIONS, encoding_aes_key=Secret("short")))
    assert [path for path, _ in raised.value.errors] == ["options.encoding_aes_key"]
    assert "short" not in str(raised.value)


# -- over real sockets


def wechat(tokens: list[str]) -> Script:
    """The vendor: its tokens one after the other, the last of which is good."""
    asked = iter(tokens)

    def script(request: Asked) -> tuple[int, Any]:
        if request.path == "/cgi-bin/stable_token":
            return 200, {"access_token": next(asked), "expires_in": 7200}
        if f"access_token={tokens[-1]}" not in request.path:
            return 200, {"errcode": 40001, "errmsg": "invalid credential"}
        if request.json["touser"] == "gone":
            return 200, {"errcode": 43004, "errmsg": "require subscribe"}
        return 200, {"errcode": 0, "errmsg": "ok", "msgid": 200163836}

    return script


def test_a_stale_token_is_replaced_and_the_report_names_what_the_receipt_did() -> None:
    async def whole() -> None:
        async with vendor(wechat(["old", "new"])) as running:
            options = {"app_id": "wx1", "app_secret": "env:SECRET", "url": running.url}
            batches = [[message("m1", "wechat", to="o1")], [message("m2", "wechat", to="gone")]]
            [[first], [second]] = await send("wechat", options, {"SECRET": "s3cret"}, batches, NOW_S)
            assert (first.id, first.answer, second.answer) == ("m1", "accepted", "invalid_recipient")
            assert len(running.to("stable_token")) == 2
            assert [request.json["touser"] for request in running.to("=old")] == ["o1"]
            assert [request.json["touser"] for request in running.to("=new")] == ["o1", "gone"]
            [report] = heard(encrypted(JOB % "success"), SAFE).items
            assert isinstance(report, Report)
            assert (report.find, report.status) == (first.find, "delivered")

    run(whole())
