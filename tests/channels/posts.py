"""What every vendor posts, valid: bodies of its pages, how it signs them, and how a stranger would."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import msgspec
from msgspec import Struct
from wechatpy.crypto import PrpCrypto

from channels.aliyun import AliyunOptions
from channels.aws_eum import AwsEumOptions
from channels.aws_sns import AwsSnsOptions
from channels.getui import GetuiOptions
from channels.huawei_push import HuaweiPushOptions
from channels.huawei_push import signature as huawei_push_signature
from channels.huawei_sms import HuaweiOptions
from channels.huawei_sms import authorization as huawei_authorization
from channels.kind import Callback
from channels.options import Options
from channels.secret import Secret
from channels.standard_webhooks import sign, signing_key
from channels.tencent import TencentOptions
from channels.twilio_callbacks import TwilioOptions
from channels.twilio_callbacks import signature as twilio_signature
from channels.webhook import WebhookOptions
from channels.wechat import WechatOptions
from channels.wechat_envelope import signature as wechat_signature
from channels.xiaomi import XiaomiOptions
from dispatcher.ident import message_id, time_prefix
from tests.channels.test_sns import CERTIFICATE, PAGE, enveloped, event

NOW_S: Final = 1_800_000_000.0
OURS: Final = message_id(time_prefix(1_700_000_000_000), "0123456789ABC", 7, "sms")
URL: Final = "https://d.example.com/v1/reports/p1/s?a=1"
Seal = Callable[[bytes], Callback]


class Post(Struct, frozen=True):
    """`seal` posts a body as the vendor does, `forge` as one does who does not know the secret: None where the vendor
    signs nothing. `signature`: the header or query field that holds it, where it is none of the body's."""

    options: Options
    samples: tuple[bytes, ...]
    seal: Seal
    forge: Seal | None = None
    signature: str = ""


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def _form(document: dict[str, str]) -> bytes:
    return urlencode(document).encode()


def call(body: bytes, headers: dict[str, str] | None = None, query: dict[str, str] | None = None) -> Callback:
    return Callback("POST", URL, query or {}, headers or {}, body, NOW_S)


# -- unsigned

_ALIYUN: Final = (
    _json([
        {"phone_number": "13811110000", "send_time": "2017-01-01 00:00:00", "report_time": "2017-01-01 08:00:10",
         "success": True, "err_code": "DELIVERED", "err_msg": "用户接收成功", "sms_size": "2", "biz_id": "12345",
         "out_id": OURS},
        {"phone_number": "8613811110001", "report_time": "2017-01-01 08:00:10", "success": False, "err_code": "MK:0001",
         "sms_size": "1", "biz_id": "932702304080415357^0", "out_id": ""},
    ]),
    _json([{"phone_number": "13811110000", "content": "TD", "send_time": "2017-01-01 00:00:00", "dest_code": "1069",
            "sequence_id": 1234567890}]),
)  # fmt: skip
_TENCENT: Final = (
    _json([{"user_receive_time": "2015-10-17 08:03:04", "nationcode": "86", "mobile": "13811110000",
            "report_status": "SUCCESS", "errmsg": "DELIVRD", "description": "用户短信送达成功", "sid": "s0"}] * 2),
    _json({"extend": "00", "mobile": "13811110000", "nationcode": "86", "sign": "s", "text": "TD", "time": 1457336869}),
)  # fmt: skip
_XIAOMI: Final = tuple(
    _form({"data": json.dumps(data)})
    for data in (
        {"X1": {"type": 1, "targets": "a,b", "timestamp": 1_700_000_000_000, "barStatus": "Enable"}},
        {"X2": {"type": 16, "targets": "c", "param": OURS, "errorCode": 10029, "jobkey": "k"}, "X3": {"type": 64}},
    )
)

# -- signed


def _huawei_sms(secret: str) -> Seal:
    def seal(body: bytes) -> Callback:
        headers = {"content-type": "application/json", "host": "d.example.com", "x-sdk-date": "20270115T080000Z"}
        value = huawei_authorization("c8RW", secret, "POST", "/v1/reports/p1/s", [("a", "1")], headers, body)
        return call(body, {**headers, "accept": "*/*", "authorization": value})

    return seal


_HUAWEI_SMS_REPORT: Final = {
    "smsMsgId": "s0", "total": "3", "sequence": "1", "status": "DELIVRD", "source": "2", "extend": OURS,
    "orgCode": "000", "updateTime": "2018-04-13T06:31:46Z", "to": "+8613800000000",
}  # fmt: skip
_HUAWEI_SMS: Final = (
    _form(_HUAWEI_SMS_REPORT),
    _json({"statusReportList": [_HUAWEI_SMS_REPORT, {**_HUAWEI_SMS_REPORT, "extend": "", "status": "E200022"}]}),
    _form({"smsMsgId": "u1", "from": "+8613811110000", "to": "1069", "body": "退订", "createTime": "2018-04-13"}),
)


def _twilio(token: str) -> Seal:
    def seal(body: bytes) -> Callback:
        try:
            posted = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        except ValueError:
            posted = {}
        return call(body, {"x-twilio-signature": twilio_signature(token, URL, posted)}, {"a": "1"})

    return seal


_SID: Final = "SM0123456789abcdef0123456789abcdef"
_TWILIO: Final = (
    _form({"MessageSid": _SID, "SmsSid": _SID, "MessageStatus": "undelivered", "ErrorCode": "30005",
           "To": "+8613800000000", "From": "+15005550006", "ApiVersion": "2010-04-01", "NewField": "é +~*"}),
    _form({"MessageSid": _SID, "From": "+14155550182", "To": "+15005550006", "Body": "STOP 退订", "NumMedia": "0",
           "SmsStatus": "received"}),
)  # fmt: skip


def _sns(body: bytes) -> Callback:
    made = _json(enveloped(body.decode("utf-8", "replace")))
    return msgspec.structs.replace(call(made), fetched={PAGE: CERTIFICATE})


_OTHERS: Final = enveloped("of somebody else")["Signature"]


def _sns_forged(body: bytes) -> Callback:
    """A true signature, of another text."""
    document = {"Type": "Notification", "MessageId": "1", "Message": body.decode("utf-8", "replace"), "TopicArn": "a",
                "Timestamp": "2026-11-24T12:00:00.250Z", "SignatureVersion": "2", "SigningCertURL": PAGE,
                "Signature": _OTHERS}  # fmt: skip
    return msgspec.structs.replace(call(_json(document)), fetched={PAGE: CERTIFICATE})


def _sns_whole(body: bytes) -> Callback:
    """The envelope itself: signed when it was made, and changed since."""
    return msgspec.structs.replace(call(body), fetched={PAGE: CERTIFICATE})


_SNS: Final = (
    _json(event()),
    _json(event("TEXT_INVALID", context={}, isFinal=False)),
    _json({"originationNumber": "+14255550182", "destinationNumber": "+12125550101", "messageKeyword": "k",
           "messageBody": "STOP 退订", "inboundMessageId": "m1", "previousPublishedMessageId": "m0"}),
)  # fmt: skip
CONFIRM: Final = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
_SNS_WHOLE: Final = (
    _json(enveloped(event())),
    _json(enveloped("hi", "SubscriptionConfirmation", SubscribeURL=CONFIRM, Token="t")),
)


def _getui(secret: str) -> Seal:
    """Signs every line that is an object; others go as they are."""

    def line(raw: bytes) -> bytes:
        try:
            said = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return raw
        if not isinstance(said, dict):
            return raw
        words = "".join(
            str(value)[:200] for value in (said.get(name) for name in ("appid", "cid", "taskid", "msgid"))
            if isinstance(value, str | int | float) and not isinstance(value, bool)
        )  # fmt: skip
        said["sign"] = hashlib.md5((words + secret).encode()).hexdigest()
        return msgspec.json.encode(said)

    return lambda body: call(b"\n".join(line(raw) for raw in body.split(b"\n")))


_GETUI_LINE: Final = {"appid": "app", "cid": "c1", "taskid": "T1", "msgid": "M1", "code": "200", "recvtime": 5,
                      "desc": "ok", "actionId": "0"}  # fmt: skip
_GETUI: Final = (_json(_GETUI_LINE), _json(_GETUI_LINE) + b"\n" + _json({**_GETUI_LINE, "cid": "c2", "code": 401}))


def _huawei_push(key: str) -> Seal:
    timestamp = str(int(NOW_S * 1000))
    value = huawei_push_signature(timestamp, "6a1b", "me", key)
    return lambda body: call(body, {"x-huawei-callback-id": f"timestamp={timestamp}; nonce=6a1b; value={value}"})


_HUAWEI_PUSH: Final = (
    _json({"statuses": [
        {"biTag": OURS, "appid": "1", "token": "a", "status": 0, "timestamp": 1_700_000_000_000, "requestId": "R"},
        {"biTag": "", "appid": "1", "token": "b", "status": 5, "timestamp": "1700000000000", "requestId": "R"},
    ]}),
)  # fmt: skip


def _wechat(token: str, key: bytes | None = None) -> Seal:
    """In the open, or encrypted with `key`, whose signature covers the text."""

    def seal(body: bytes) -> Callback:
        query = {"timestamp": "1800000000", "nonce": "n1", "signature": wechat_signature(token, "1800000000", "n1")}
        if key is not None:
            encrypted = PrpCrypto(key).encrypt(body, "wx1").decode()
            query["msg_signature"] = wechat_signature(token, "1800000000", "n1", encrypted)
            body = f"<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>".encode()
        return call(body, query=query)

    return seal


_AES: Final = bytes(range(32))
_WECHAT_OPEN: Final = WechatOptions(app_id="wx1", app_secret=Secret("s"), token=Secret("tok"))
_WECHAT_SAFE: Final = msgspec.structs.replace(
    _WECHAT_OPEN, encoding_aes_key=Secret(base64.b64encode(_AES).decode().rstrip("="))
)
_WECHAT: Final = tuple(
    body.encode()
    for body in (
        "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[o1]]></FromUserName>"
        "<CreateTime>1395658920</CreateTime><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[TEMPLATESENDJOBFINISH]]>"
        "</Event><MsgID>200163836</MsgID><Status><![CDATA[failed:user block]]></Status></xml>",
        "<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName><CreateTime>1620963428</CreateTime><MsgType>"
        "event</MsgType><Event>subscribe_msg_sent_event</Event><SubscribeMsgSentEvent><List><TemplateId>T1</TemplateId>"
        "<MsgID>7</MsgID><ErrorCode>0</ErrorCode><ErrorStatus>x</ErrorStatus></List><List><TemplateId>T1</TemplateId>"
        "<MsgID>8</MsgID><ErrorCode>43101</ErrorCode><ErrorStatus>x</ErrorStatus></List></SubscribeMsgSentEvent></xml>",
        "<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName><CreateTime>1348831860</CreateTime>"
        "<MsgType>text</MsgType><Content><![CDATA[退订]]></Content><MsgId>1234567890123456</MsgId></xml>",
        '{"MsgType": "event", "Event": "subscribe_msg_sent_event", "FromUserName": "o1", "CreateTime": 1620963428,'
        ' "List": [{"TemplateId": "T1", "MsgID": "7", "ErrorCode": "0", "ErrorStatus": "success"}]}',
    )
)


def _webhook(secret: str) -> Seal:
    return lambda body: call(body, sign(signing_key(secret), "w1", int(NOW_S), body))


_WEBHOOK: Final = (
    _json([{"id": OURS, "status": "delivered", "at": "2026-11-24T10:00:00Z", "segments": 2, "price": 0.05, "code": "0"},
           {"ref": "r1", "status": "undelivered", "dead": True, "code": 7}]),
    _json([{"from": "+8613800000000", "to": "1069", "text": "退订", "at": "2026-11-24T10:00:00", "id": "u1"}]),
)  # fmt: skip
_AWS: Final = {"access_key_id": "AKIA1", "secret_access_key": Secret("s"), "region": "eu-west-1"}
_HUAWEI_OPTIONS: Final = HuaweiOptions(app_key="c8RW", app_secret=Secret("s3cret"), sender="8821", signature="示例")
_SNS_EVENTS: Final = (_SNS, _sns, _sns_forged)
_WEBHOOK_SECRET: Final = "whsec_c2hhbGxub3RiZXNlZW4="

#: Kind -> the ways its vendor posts. A new kind with callbacks adds its row.
POSTS: Final[dict[str, tuple[Post, ...]]] = {
    "aliyun": (Post(AliyunOptions(access_key_id="a", access_key_secret=Secret("s")), _ALIYUN, call),),
    "aws_eum": (
        Post(AwsEumOptions(**_AWS), *_SNS_EVENTS),
        Post(AwsEumOptions(**_AWS), _SNS_WHOLE, _sns_whole),
    ),
    "aws_sns": (Post(AwsSnsOptions(**_AWS), *_SNS_EVENTS),),
    "getui": (
        Post(GetuiOptions(app_id="app", app_key="k", master_secret=Secret("m")), _GETUI, _getui("m"), _getui("x")),
    ),
    "huawei_push": (
        Post(
            HuaweiPushOptions(
                app_id="1", app_secret=Secret("s"), callback_key=Secret("key"), callback_user="me"
            ), _HUAWEI_PUSH, _huawei_push("key"), _huawei_push("x"), "x-huawei-callback-id",
        ),
        Post(HuaweiPushOptions(app_id="1", app_secret=Secret("s")), _HUAWEI_PUSH, call),
    ),
    "huawei_sms": (
        Post(_HUAWEI_OPTIONS, _HUAWEI_SMS, _huawei_sms("s3cret"), _huawei_sms("x"), "authorization"),
        Post(_HUAWEI_OPTIONS, _HUAWEI_SMS, call),
    ),
    "tencent": (
        Post(TencentOptions(secret_id="a", secret_key=Secret("s"), sdk_app_id="1"), _TENCENT, call),
    ),
    "twilio": (
        Post(
            TwilioOptions(account_sid="AC1", auth_token=Secret("12345"), from_="+15005550006"),
            _TWILIO, _twilio("12345"), _twilio("x"), "x-twilio-signature",
        ),
    ),
    "webhook": (
        Post(
            WebhookOptions(url="https://x", secret=Secret(_WEBHOOK_SECRET)),
            _WEBHOOK, _webhook(_WEBHOOK_SECRET), _webhook("whsec_b3RoZXI="), "webhook-signature",
        ),
        Post(WebhookOptions(url="https://x"), _WEBHOOK, call),
    ),
    "wechat": (
        Post(_WECHAT_OPEN, _WECHAT, _wechat("tok"), _wechat("x"), "signature"),
        Post(_WECHAT_SAFE, _WECHAT, _wechat("tok", _AES), _wechat("tok", bytes(32)), "msg_signature"),
    ),
    "xiaomi": (Post(XiaomiOptions(app_secret=Secret("s"), package="com.x"), _XIAOMI, call),),
}  # fmt: skip
