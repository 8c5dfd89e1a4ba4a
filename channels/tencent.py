"""The provider kind `tencent`: Tencent Cloud SMS, API 2021-01-11.

Wire facts, codes and their classes: design page `wire.md`, section 2. Signature: TC3-HMAC-SHA256 over `content-type`
and `host`, the same bytes as `tencentcloud-sdk-python-common` 3.1.195 makes.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from channels.adapter import Reply, Request, Unsendable
from channels.answers import LONGEST_RETRY_AFTER_S, LONGEST_WORD, Verdict, by_code, receipt_of_status
from channels.approved import MAINLAND, Apart, Approved, approved, international, parts_of
from channels.kind import Callback, Heard, Kind
from channels.loose import BEIJING, items_of, json_of, time_ms, whole, word
from channels.options import Options
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.report import Report, Uplink

ENDPOINT: Final = "https://sms.tencentcloudapi.com"
VERSION: Final = "2021-01-11"
CONTENT_TYPE: Final = "application/json"
MOST: Final = 200  # numbers of a SendSms

_ANSWERS: Final = by_code(
    {
        "accepted": "Ok",
        "invalid_recipient": """InvalidParameterValue.IncorrectPhoneNumber FailedOperation.PhoneNumberParseFail
            FailedOperation.PhoneNumberInBlacklist UnsupportedOperation.UnsupportedRegion""",
        "throttled": """LimitExceeded.PhoneNumberThirtySecondLimit LimitExceeded.PhoneNumberOneHourLimit
            LimitExceeded.PhoneNumberDailyLimit LimitExceeded.PhoneNumberSameContentDailyLimit
            LimitExceeded.DeliveryFrequencyLimit LimitExceeded.GlobalSmsSendingRateLimit LimitExceeded.AppDailyLimit
            LimitExceeded.DailyLimit LimitExceeded.AppMainlandChinaDailyLimit LimitExceeded.AppGlobalDailyLimit
            LimitExceeded.AppCountryOrRegionDailyLimit FailedOperation.MarketingSendTimeConstraint""",
        "rejected": """FailedOperation.ContainSensitiveWord InvalidParameter.DirtyWordFound
            FailedOperation.SignatureIncorrectOrUnapproved FailedOperation.TemplateIncorrectOrUnapproved
            FailedOperation.TemplateUnapprovedOrNotExist
            FailedOperation.TemplateParamSetNotMatchApprovedTemplate LimitExceeded.PhoneNumberCountLimit
            UnsupportedOperation.ContainDomesticAndInternationalPhoneNumber
            UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone
            UnsupportedOperation.GlobalTemplateToChineseMainlandPhone FailedOperation.JsonParseFail
            FailedOperation.FailResolvePacket""",
        "auth": "FailedOperation.InsufficientBalanceInSmsPackage",
        # The second wants the same request signed anew, which is what a retry does.
        "transient": "FailedOperation.OtherError AuthFailure.SignatureExpire",
    }
)
#: What is not in the table, by how it begins.
_BEGINNINGS: Final[tuple[tuple[str, Answer], ...]] = (
    ("AuthFailure", "auth"),
    ("UnauthorizedOperation", "auth"),
    ("InternalError", "transient"),
    ("RequestLimitExceeded", "throttled"),
)
#: Limits of one number, with the seconds until it is let through.
_LIMITS_S: Final = {
    "LimitExceeded.PhoneNumberThirtySecondLimit": 30.0,
    "LimitExceeded.PhoneNumberOneHourLimit": 3600.0,
    "LimitExceeded.PhoneNumberDailyLimit": 86_400.0,
    "LimitExceeded.PhoneNumberSameContentDailyLimit": 86_400.0,
    "LimitExceeded.DeliveryFrequencyLimit": 30.0,
}
#: Caps of the account, which end with the day in Beijing.
_CAPS: Final = frozenset(
    {
        "LimitExceeded.AppDailyLimit",
        "LimitExceeded.DailyLimit",
        "LimitExceeded.AppMainlandChinaDailyLimit",
        "LimitExceeded.AppGlobalDailyLimit",
        "LimitExceeded.AppCountryOrRegionDailyLimit",
    }
)
#: Marketing goes out from 08:00 on.
_MARKETING: Final = "FailedOperation.MarketingSendTimeConstraint"
_DAY_S: Final = 86_400
_UNREADABLE: Final = Verdict("unknown", "unreadable reply")
_MISSING: Final = Verdict("unknown", "missing in the reply")
_THANKS: Final = b'{"result":0,"errmsg":"OK"}'
_GARBAGE: Final = Heard(body=b'{"result":1,"errmsg":"unreadable"}', status=400)


class TencentOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`signature` stands in where a template has none; numbers outside mainland China need none."""

    secret_id: str
    secret_key: Secret
    sdk_app_id: str
    region: str = "ap-guangzhou"
    signature: str | None = None


def authorization(secret_id: str, secret_key: str, host: str, body: bytes, timestamp_s: int, service: str) -> str:
    """The header of TC3-HMAC-SHA256 for a POST of JSON to `/`."""
    signed = f"content-type:{CONTENT_TYPE}\nhost:{host}\n\ncontent-type;host"
    whole_ = f"POST\n/\n\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    date = datetime.fromtimestamp(timestamp_s, UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    to_sign = f"TC3-HMAC-SHA256\n{timestamp_s}\n{scope}\n{hashlib.sha256(whole_.encode()).hexdigest()}"
    signature = signed_with(secret_key, date, service, to_sign)
    return f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders=content-type;host, Signature={signature}"


def signed_with(secret_key: str, date: str, service: str, to_sign: str) -> str:
    """The signature by the key of that day (`YYYY-MM-DD`, UTC) and service."""
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


class Tencent:
    """One application (`sdk_app_id`) of an account. A request has one template and one set of parameters."""

    def __init__(self, provider: str, options: TencentOptions) -> None:
        self._provider = provider
        self._options = options
        self._url = f"{(options.url or ENDPOINT).rstrip('/')}/"
        self._host = urlsplit(self._url).netloc
        self._apart = Apart()

    def __repr__(self) -> str:
        return f"Tencent({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        def key(message: Message) -> tuple[Approved, bool]:
            return self._approved(message), message.to.startswith(MAINLAND)

        return parts_of(messages, key, MOST, self._apart)

    def _approved(self, message: Message) -> Approved:
        found = approved(message, "tencent", self._options.signature)
        if not found.signature and message.to.startswith(MAINLAND):
            raise Unsendable("rejected", "no_signature")
        return found

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        found = self._approved(messages[0])
        document = {
            "PhoneNumberSet": [message.to for message in messages],
            "SmsSdkAppId": self._options.sdk_app_id,
            "SignName": found.signature,
            "TemplateId": found.code,
            "TemplateParamSet": found.values,
        }
        if len(messages) == 1:
            document["SessionContext"] = messages[0].id
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        secret = self._options.secret_key.reveal()
        signed = authorization(self._options.secret_id, secret, self._host, body, int(now_s), "sms")
        headers = {
            "content-type": CONTENT_TYPE,
            "host": self._host,
            "x-tc-action": "SendSms",
            "x-tc-version": VERSION,
            "x-tc-region": self._options.region,
            "x-tc-timestamp": str(int(now_s)),
            "authorization": signed,
        }
        return Request("POST", self._url, headers, body)

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        told = json_of(reply.body)
        response = told.get("Response") if isinstance(told, dict) else None
        error = response.get("Error") if isinstance(response, dict) else None
        code = word(error.get("Code"), LONGEST_WORD) if isinstance(error, dict) else None
        if code is not None:
            return self._refused(messages, code, now_s)
        if reply.status != 200:
            return receipt_of_status(reply.status, reply.headers, reply.body, now_s).receipts(messages, self._provider)
        results = response.get("SendStatusSet") if isinstance(response, dict) else None
        if not isinstance(results, list):
            return _UNREADABLE.receipts(messages, self._provider)
        by_number = {word(item.get("PhoneNumber")): item for item in reversed(items_of(results))}
        return [self._receipt(message, by_number.get(message.to), now_s) for message in messages]

    def _refused(self, messages: Sequence[Message], code: str, now_s: float) -> list[Receipt]:
        """The request as a whole. Where one number is to blame, nobody says which: they go alone next time."""
        verdict = _verdict(code, now_s)
        if len(messages) > 1 and (verdict.answer == "invalid_recipient" or code in _LIMITS_S):
            self._apart.add([message.id for message in messages])
            verdict = Verdict("throttled", f"in a batch: {code}", narrow=True)
        return verdict.receipts(messages, self._provider)

    def _receipt(self, message: Message, item: dict[str, Any] | None, now_s: float) -> Receipt:
        code = word(item.get("Code"), LONGEST_WORD) if item is not None else None
        if item is None or code is None:
            return _MISSING.receipt(message.id, self._provider)
        if _ANSWERS.get(code) != "accepted":
            return _verdict(code, now_s).receipt(message.id, self._provider)
        serial, fee = word(item.get("SerialNo"), LONGEST_WORD), whole(item.get("Fee"))
        return Receipt(message.id, "accepted", self._provider, serial, find=serial, segments=fee or None)


def _verdict(code: str, now_s: float) -> Verdict:
    answer = _answer(code)
    if answer != "throttled":
        return Verdict(answer, code)
    if code in _LIMITS_S:
        return Verdict(answer, code, _LIMITS_S[code], narrow=True)
    if code == _MARKETING:
        return Verdict(answer, code, _until_s(now_s, 8), narrow=True)
    return Verdict(answer, code, min(_until_s(now_s, 0), LONGEST_RETRY_AFTER_S) if code in _CAPS else 1.0)


def _answer(code: str) -> Answer:
    known = _ANSWERS.get(code)
    if known is not None:
        return known
    return next((answer for beginning, answer in _BEGINNINGS if code.startswith(beginning)), "rejected")


def _until_s(now_s: float, hour: int) -> float:
    """Seconds until it is that hour in Beijing."""
    return _DAY_S - (now_s + (8 - hour) * 3600) % _DAY_S


class TencentCallbacks:
    """Reports come as an array, a user's message as one object. Neither is signed: the address is the secret."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        document = json_of(call.body)
        if isinstance(document, dict):
            uplink = _uplink(provider, document, call.body)
            return _GARBAGE if uplink is None else Heard([uplink], _THANKS)
        if not isinstance(document, list):
            return _GARBAGE
        reports = [_report(provider, item) for item in items_of(document)]
        return Heard([report for report in reports if report is not None], _THANKS)

    uplinks = reports


def _number(item: dict[str, Any]) -> str | None:
    """`nationcode` and `mobile`."""
    mobile, nation = word(item.get("mobile")), word(item.get("nationcode"))
    if mobile is None or nation is None:
        return international(mobile)
    digits = nation.removeprefix("+") + mobile
    return f"+{digits}" if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


def _report(provider: str, item: dict[str, Any]) -> Report | None:
    sid, status = word(item.get("sid"), LONGEST_WORD), item.get("report_status")
    if sid is None or status not in ("SUCCESS", "FAIL"):
        return None
    return Report(
        provider,
        "delivered" if status == "SUCCESS" else "undelivered",
        find=sid,
        to=_number(item),
        code=word(item.get("errmsg"), LONGEST_WORD),
        at_ms=time_ms(item.get("user_receive_time"), BEIJING),
    )


def _uplink(provider: str, item: dict[str, Any], body: bytes) -> Uplink | None:
    """The vendor gives it no id: the same bytes are the same message."""
    sender, text = _number(item), word(item.get("text"), 4096)
    if sender is None or text is None:
        return None
    key = hashlib.blake2b(body, digest_size=12).hexdigest()
    return Uplink(provider, "sms", sender, text, word(item.get("extend")) or "", time_ms(item.get("time")), key)


def _build(provider: str, options: Options) -> Tencent:
    assert isinstance(options, TencentOptions)
    return Tencent(provider, options)


KIND: Final = Kind(options=TencentOptions, channels=("sms",), build=_build, most=MOST, callbacks=TencentCallbacks())
