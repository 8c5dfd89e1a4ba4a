"""The provider kind `aliyun`: Alibaba Cloud SMS, Dysmsapi 2017-05-25.

Wire facts, codes and their classes: design page `wire.md`, section 1. Signature: ACS3-HMAC-SHA256, the same bytes as
`alibabacloud_tea_openapi` 0.4.6 makes.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from channels.adapter import Reply, Request, Unsendable
from channels.answers import LONGEST_RETRY_AFTER_S, LONGEST_WORD, Verdict, by_code, receipt_of_status
from channels.approved import Apart, Approved, approved, international, national, parts_of
from channels.kind import Callback, Heard, Kind
from channels.loose import BEIJING, items_of, json_of, time_ms, whole, word
from channels.options import Options
from channels.secret import Secret
from dispatcher.ident import place_of
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink

ENDPOINT: Final = "https://dysmsapi.aliyuncs.com"
VERSION: Final = "2017-05-25"
MOST: Final = 100  # numbers of a SendBatchSms

_ANSWERS: Final = by_code(
    {
        "accepted": "OK",
        "invalid_recipient": """isv.MOBILE_NUMBER_ILLEGAL isv.DOMESTIC_NUMBER_NOT_SUPPORTED isv.NOT_SUPPORTED_COUNTRY
            isv.COUNTRY_RESTRICTED""",
        "throttled": """isv.BUSINESS_LIMIT_CONTROL BUSINESS_LIMIT_CONTROL_MINUTE isv.BUSINESS_LIMIT_HOUR
            isv.BUSINESS_LIMIT_DAY BUSINESS_LIMIT_CONTROL_PHONE isv.DAY_LIMIT_CONTROL isv.MONTH_LIMIT_CONTROL
            Throttling Throttling.User Throttling.Api""",
        "rejected": """isv.SMS_CONTENT_ILLEGAL isv.BLACK_KEY_CONTROL_LIMIT isv.PARAM_NOT_SUPPORT_URL
            isv.PARAM_LENGTH_LIMIT isv.SMS_SIGN_ILLEGAL isv.SIGN_STATE_ILLEGAL isv.SMS_SIGNATURE_ILLEGAL
            isv.SMS_TEMPLATE_ILLEGAL isv.SMS_SIGNATURE_SCENE_ILLEGAL isv.TEMPLATE_MISSING_PARAMETERS
            isv.INVALID_PARAMETERS isv.INVALID_JSON_PARAM isv.MOBILE_COUNT_OVER_LIMIT isv.EXTEND_CODE_ERROR""",
        "auth": """isp.RAM_PERMISSION_DENY isv.OUT_OF_SERVICE isv.AMOUNT_NOT_ENOUGH isv.ACCOUNT_NOT_EXISTS
            isv.ACCOUNT_ABNORMAL isv.PRODUCT_UN_SUBSCRIPT isv.PRODUCT_UNSUBSCRIBE isv.DENY_IP_RANGE
            SignatureDoesNotMatch InvalidAccessKeyId.NotFound""",
        # The last two want the same request signed anew, which is what a retry does.
        "transient": """isp.SYSTEM_ERROR isp.GATEWAY_ERROR isp.UNKNOWN ServiceUnavailable InternalError
            InvalidTimeStamp.Expired SignatureNonceUsed""",
    }
)
#: Limits of one number, with the seconds until it is let through; `isv.BUSINESS_LIMIT_CONTROL` says in words which.
_LIMITS_S: Final = {
    "isv.BUSINESS_LIMIT_CONTROL": 60.0,
    "BUSINESS_LIMIT_CONTROL_MINUTE": 60.0,
    "isv.BUSINESS_LIMIT_HOUR": 3600.0,
    "isv.BUSINESS_LIMIT_DAY": 86_400.0,
    "BUSINESS_LIMIT_CONTROL_PHONE": 86_400.0,
}
#: What a single number or its parameters can be to blame for: in a batch nobody says which.
_OF_ONE: Final = frozenset(
    {
        *_LIMITS_S,
        *(code for code, answer in _ANSWERS.items() if answer == "invalid_recipient"),
        "isv.SMS_CONTENT_ILLEGAL",
        "isv.BLACK_KEY_CONTROL_LIMIT",
        "isv.PARAM_NOT_SUPPORT_URL",
        "isv.PARAM_LENGTH_LIMIT",
        "isv.TEMPLATE_MISSING_PARAMETERS",
        "isv.INVALID_PARAMETERS",
        "isv.INVALID_JSON_PARAM",
    }
)
_UNREADABLE: Final = Verdict("unknown", "unreadable reply")
_THANKS: Final = '{"code":0,"msg":"接收成功"}'.encode()
_GARBAGE: Final = Heard(body=b'{"code":1,"msg":"unreadable"}', status=400)


class AliyunOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`signature` stands in where a template has none."""

    access_key_id: str
    access_key_secret: Secret
    signature: str | None = None


def percent(text: str) -> str:
    """RFC 3986: everything but letters, digits and `-_.~`."""
    return quote(text, safe="~")


def canonical_query(query: Mapping[str, str]) -> str:
    """The query as it is signed, and as it goes out."""
    return "&".join([f"{percent(name)}={percent(query[name])}" for name in sorted(query)])


def authorization(
    key_id: str, secret: str, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    """The header of ACS3-HMAC-SHA256, which signs all `headers`; their names are in lower case, and they hold `host`
    and `x-acs-content-sha256`, which is the body's."""
    signed = sorted(headers)
    lines = "".join([f"{name}:{headers[name].strip()}\n" for name in signed])
    names = ";".join(signed)
    whole_ = f"{method}\n{path}\n{canonical_query(query)}\n{lines}\n{names}\n{headers['x-acs-content-sha256']}"
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(whole_.encode()).hexdigest()}"
    signature = hmac.digest(secret.encode(), to_sign.encode(), "sha256").hex()
    return f"ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={signature}"


class Aliyun:
    """One account. A single message is a SendSms, several of one template a SendBatchSms.

    The vendor answers a batch as a whole. Where one number may be to blame, the others must not suffer for it: all are
    answered `throttled`, and go alone when they come back.
    """

    def __init__(
        self, provider: str, options: AliyunOptions, nonce: Callable[[], str] = lambda: secrets.token_hex(16)
    ) -> None:
        self._provider = provider
        self._key_id = options.access_key_id
        self._secret = options.access_key_secret
        self._signature = options.signature
        self._nonce = nonce
        self._url = (options.url or ENDPOINT).rstrip("/")
        split = urlsplit(self._url)
        self._host, self._path = split.netloc, f"{split.path}/"
        self._apart = Apart()

    def __repr__(self) -> str:
        return f"Aliyun({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        return parts_of(messages, lambda message: self._approved(message).code, MOST, self._apart)

    def _approved(self, message: Message) -> Approved:
        found = approved(message, "aliyun", self._signature)
        if not found.signature:
            raise Unsendable("rejected", "no_signature")
        return found

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        found = [self._approved(message) for message in messages]
        numbers = [message.to.removeprefix("+") for message in messages]
        params = [_json(dict(zip(one.names, one.values, strict=True))) for one in found]
        if len(messages) == 1:
            query = {
                "PhoneNumbers": numbers[0],
                "SignName": found[0].signature,
                "TemplateCode": found[0].code,
                "TemplateParam": params[0],
                "OutId": messages[0].id,
            }
            return self._signed("SendSms", query, b"", now_s)
        form = {
            "PhoneNumberJson": _json(numbers),
            "SignNameJson": _json([one.signature for one in found]),
            "TemplateParamJson": _json(params),
        }
        return self._signed("SendBatchSms", {"TemplateCode": found[0].code}, urlencode(form).encode(), now_s)

    def _signed(self, action: str, query: Mapping[str, str], body: bytes, now_s: float) -> Request:
        headers = {
            "host": self._host,
            "accept": "application/json",
            "x-acs-action": action,
            "x-acs-version": VERSION,
            "x-acs-date": datetime.fromtimestamp(int(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": self._nonce(),
            "x-acs-content-sha256": hashlib.sha256(body).hexdigest(),
        }
        if body:
            headers["content-type"] = "application/x-www-form-urlencoded"
        headers["authorization"] = authorization(
            self._key_id, self._secret.reveal(), "POST", self._path, query, headers
        )
        return Request("POST", f"{self._url}/?{canonical_query(query)}", headers, body)

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        told = json_of(reply.body)
        code = word(told.get("Code"), LONGEST_WORD) if isinstance(told, dict) else None
        if code is None or (code not in _ANSWERS and reply.status != 200):
            by_status = receipt_of_status(reply.status, reply.headers, reply.body, now_s)
            return (_UNREADABLE if 200 <= reply.status < 300 else by_status).receipts(messages, self._provider)
        if _ANSWERS.get(code) == "accepted":
            return self._accepted(messages, word(told.get("BizId"), LONGEST_WORD))
        if code in _OF_ONE and len(messages) > 1:
            self._apart.add([message.id for message in messages])
            return Verdict("throttled", f"in a batch: {code}", narrow=True).receipts(messages, self._provider)
        return _verdict(code, told.get("Message"), now_s).receipts(messages, self._provider)

    def _accepted(self, messages: Sequence[Message], biz_id: str | None) -> list[Receipt]:
        if len(messages) == 1 or biz_id is None:
            return [Receipt(message.id, "accepted", self._provider, biz_id) for message in messages]
        return [
            Receipt(message.id, "accepted", self._provider, biz_id, find=f"{biz_id}|{national(message.to)}")
            for message in messages
        ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _verdict(code: str, why: Any, now_s: float) -> Verdict:
    answer = _ANSWERS.get(code, "rejected")
    if answer != "throttled":
        return Verdict(answer, code)
    if code == "isv.BUSINESS_LIMIT_CONTROL":
        return Verdict(answer, code, _limit_s(word(why) or ""), narrow=True)
    if code in _LIMITS_S:
        return Verdict(answer, code, _LIMITS_S[code], narrow=True)
    if code == "isv.DAY_LIMIT_CONTROL":
        return Verdict(answer, code, 86_400 - (now_s + 8 * 3600) % 86_400)  # the account's day ends in Beijing
    return Verdict(answer, code, LONGEST_RETRY_AFTER_S if code == "isv.MONTH_LIMIT_CONTROL" else 1.0)


def _limit_s(why: str) -> float:
    """`触发小时级流控Permits:5`: by the minute, the hour or the day."""
    if "天级" in why:
        return 86_400.0
    return 3600.0 if "小时级" in why or "时级" in why else 60.0


class AliyunCallbacks:
    """SmsReport and SmsUp. Neither is signed: the address is the secret."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        document = json_of(call.body)
        if not isinstance(document, list):
            return _GARBAGE
        heard = [_report(provider, item) or _uplink(provider, item) for item in items_of(document)]
        return Heard([one for one in heard if one is not None], _THANKS)

    uplinks = reports


def _report(provider: str, item: dict[str, Any]) -> Report | None:
    code, success = word(item.get("err_code"), LONGEST_WORD), item.get("success")
    out_id, biz_id, number = word(item.get("out_id")), word(item.get("biz_id")), word(item.get("phone_number"))
    if "success" not in item and code is None:
        return None
    ours = out_id if out_id is not None and place_of(out_id) is not None else None
    find = f"{biz_id}|{national(number)}" if biz_id is not None and number is not None else None
    if ours is None and find is None:
        return None
    delivered = success in (True, "true") or ("success" not in item and code == "DELIVERED")
    return Report(
        provider,
        "delivered" if delivered else "undelivered",
        ours,
        None if ours is not None else find,
        international(number),
        code,
        time_ms(item.get("report_time"), BEIJING),
        whole(item.get("sms_size")) or None,
    )


def _uplink(provider: str, item: dict[str, Any]) -> Uplink | None:
    sender, text = international(word(item.get("phone_number"))), word(item.get("content"), 4096)
    if sender is None or text is None:
        return None
    key = word(item.get("sequence_id")) or ""
    at_ms = time_ms(item.get("send_time"), BEIJING)
    return Uplink(provider, "sms", sender, text, word(item.get("dest_code")) or "", at_ms, key)


def _build(provider: str, options: Options) -> Aliyun:
    assert isinstance(options, AliyunOptions)
    return Aliyun(provider, options)


KIND: Final = Kind(options=AliyunOptions, channels=("sms",), build=_build, most=MOST, callbacks=AliyunCallbacks())
