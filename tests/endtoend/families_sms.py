"""Vendors of text messages, as each of them speaks."""

import asyncio
import base64
import json
import re
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from twilio.request_validator import RequestValidator

from channels.huawei_sms import PATH
from tests.channels.smpp.centre import Centre, centre, text_message
from tests.channels.test_aliyun import official as aliyun_official
from tests.channels.test_huawei_sms import official as huawei_official
from tests.channels.test_sns import CERTIFICATE, enveloped, event
from tests.channels.test_tencent import official as tencent_official
from tests.channels.vendor import Heard
from tests.channels.vendors import Asked
from tests.channels.vendors import vendor as raw_vendor
from tests.endtoend.family import Family, post

KEY = "s3cret/+&"
FORM = "application/x-www-form-urlencoded"


def national(phone: str) -> str:
    return phone.removeprefix("+86")


class Aliyun(Family):
    kind = "aliyun"
    path = ""
    template = {"code": "SMS_1", "params": ["n"]}
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        key = self.secret(KEY)
        return {"url": url, "access_key_id": "LTAI", "access_key_secret": key, "signature": "示例"}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        return 200, {"Code": "OK", "Message": "OK", "BizId": "9006^0", "RequestId": "R"}

    def check(self, message: str, to: str, n: str) -> None:
        asked = self.asked
        query = dict(parse_qsl(urlsplit(asked.path).query))
        assert json.loads(query.pop("TemplateParam")) == {"n": n}
        assert query == {
            "PhoneNumbers": to[1:], "SignName": "示例", "TemplateCode": "SMS_1", "OutId": message
        }  # fmt: skip
        assert (asked.method, asked.headers["x-acs-action"], asked.body) == ("POST", "SendSms", b"")
        given = asked.headers["authorization"]
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        query = dict(parse_qsl(urlsplit(asked.path).query))
        headers = {name: asked.headers[name] for name in names}
        assert given == aliyun_official("POST", "/", query, headers, "LTAI", KEY)

    def report(self, message: str, to: str) -> None:
        said = {
            "phone_number": national(to), "send_time": "2026-11-24 20:00:00", "report_time": "2026-11-24 20:00:03",
            "success": True, "err_code": "DELIVERED", "err_msg": "用户接收成功", "sms_size": "1", "biz_id": "9006^0",
            "out_id": message,
        }  # fmt: skip
        status, answer = post(self.reports_url, json.dumps([said]).encode())
        assert (status, json.loads(answer)["code"]) == (200, 0)

    def unsubscribe(self, sender: str) -> str:
        said = {"phone_number": national(sender), "content": "TD", "send_time": "2026-11-24 20:00:00",
                "dest_code": "0455", "sequence_id": "1234567890"}  # fmt: skip
        status, answer = post(self.uplinks_url, json.dumps([said]).encode())
        assert (status, json.loads(answer)["code"]) == (200, 0)
        return "td"


class Tencent(Family):
    kind = "tencent"
    path = "/"
    template = {"code": "1110", "params": ["n"]}
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        key = self.secret(KEY)
        return {"url": url, "secret_id": "AKID", "secret_key": key, "sdk_app_id": "1400006666", "signature": "示例"}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        told = [
            {"SerialNo": f"S:{phone}", "PhoneNumber": phone, "Fee": 1, "Code": "Ok", "Message": "send success"}
            for phone in asked.json["PhoneNumberSet"]
        ]
        return 200, {"Response": {"SendStatusSet": told, "RequestId": "R"}}

    def check(self, message: str, to: str, n: str) -> None:
        asked = self.asked
        assert asked.json == {
            "PhoneNumberSet": [to], "SmsSdkAppId": "1400006666", "SignName": "示例", "TemplateId": "1110",
            "TemplateParamSet": [n], "SessionContext": message,
        }  # fmt: skip
        headers = asked.headers
        assert (headers["x-tc-action"], headers["x-tc-version"]) == ("SendSms", "2021-01-11")
        names = ("host", "content-type", "x-tc-timestamp")
        wanted = tencent_official(*[headers[name] for name in names], asked.body, KEY)
        assert headers["authorization"].endswith(f", Signature={wanted}")
        assert abs(int(headers["x-tc-timestamp"]) - time.time()) < 300

    def report(self, message: str, to: str) -> None:
        said = {"user_receive_time": "2026-11-24 20:00:03", "nationcode": "86", "mobile": national(to),
                "report_status": "SUCCESS", "errmsg": "DELIVRD", "description": "用户短信送达成功",
                "sid": f"S:{to}"}  # fmt: skip
        status, answer = post(self.reports_url, json.dumps([said]).encode())
        assert (status, json.loads(answer)) == (200, {"result": 0, "errmsg": "OK"})

    def unsubscribe(self, sender: str) -> str:
        said = {"extend": "01", "mobile": national(sender), "nationcode": "86", "sign": "示例", "text": "退订",
                "time": 1_795_000_000}  # fmt: skip
        status, answer = post(self.uplinks_url, json.dumps(said).encode())
        assert (status, json.loads(answer)) == (200, {"result": 0, "errmsg": "OK"})
        return "退订"


class HuaweiSms(Family):
    kind = "huawei_sms"
    path = PATH
    template = {"code": "8ff5", "params": ["n"]}
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        key = self.secret(KEY)
        return {"url": url, "app_key": "c8RW", "app_secret": key, "sender": "8821", "signature": "示例"}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        told = [
            {"total": 1, "originTo": to, "createTime": "2026-11-24T12:00:00Z", "from": "8821", "smsMsgId": f"S{to}",
             "countryId": "CN", "status": "000000"}
            for content in asked.json["smsContent"] for to in content["to"]
        ]  # fmt: skip
        return 200, {"code": "000000", "description": "Success", "result": told}

    def check(self, message: str, to: str, n: str) -> None:
        asked = self.asked
        content = {"to": [to], "templateId": "8ff5", "templateParas": [n], "signature": "示例"}
        assert asked.json == {"from": "8821", "smsContent": [content], "extend": message}
        given = asked.headers["authorization"]
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        headers = {name: asked.headers[name] for name in names}
        assert given == huawei_official("POST", PATH, [], headers, asked.body, "c8RW", KEY)

    def _post(self, url: str, form: dict[str, str], key: str = KEY) -> int:
        """Signed by Huawei's own library."""
        body, split = urlencode(form).encode(), urlsplit(url)
        date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"content-type": FORM, "host": split.netloc, "x-sdk-date": date}
        signed = huawei_official("POST", split.path, [], headers, body, "c8RW", key)
        return post(url, body, {**headers, "authorization": signed})[0]

    def _status(self, message: str, to: str, key: str) -> int:
        form = {"smsMsgId": f"S{to}", "total": "1", "sequence": "1", "status": "DELIVRD", "source": "2",
                "updateTime": "2026-11-24T12:00:03Z", "extend": message, "to": to}  # fmt: skip
        return self._post(self.reports_url, form, key)

    def report(self, message: str, to: str) -> None:
        assert self._status(message, to, KEY) == 200

    def forge(self, message: str, to: str) -> int:
        return self._status(message, to, "another")

    def unsubscribe(self, sender: str) -> str:
        form = {"smsMsgId": f"U{sender}", "from": sender, "to": "8821", "body": " t "}
        assert self._post(self.uplinks_url, form) == 200
        return "t"


class Twilio(Family):
    kind = "twilio"
    path = "/2010-04-01/Accounts/AC1/Messages.json"
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        token = self.secret(KEY)
        return {"url": url, "account_sid": "AC1", "auth_token": token, "from": "+15005550006", "public_url": self.ours}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        told = {"sid": "SM1", "status": "queued", "num_segments": "1", "price": None, "error_code": None,
                "error_message": None, "to": asked.form["To"], "body": asked.form["Body"]}  # fmt: skip
        return 201, told

    def check(self, message: str, to: str, n: str) -> None:
        asked, form = self.asked, self.asked.form
        assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"AC1:{KEY}".encode()).decode()
        assert 1 <= int(form.pop("ValidityPeriod")) <= 36_000
        assert form == {
            "To": to, "From": "+15005550006", "Body": f"paid {n}", "StatusCallback": f"{self.reports_url}?id={message}"
        }  # fmt: skip

    def _post(self, url: str, form: dict[str, str], key: str = KEY) -> tuple[int, bytes]:
        """Signed by Twilio's own library."""
        signed = RequestValidator(key).compute_signature(url, form)
        return post(url, urlencode(form).encode(), {"content-type": FORM, "x-twilio-signature": signed})

    def _status(self, to: str, key: str) -> tuple[int, bytes]:
        form = {"MessageSid": "SM1", "SmsSid": "SM1", "MessageStatus": "delivered", "SmsStatus": "delivered",
                "AccountSid": "AC1", "To": to, "From": "+15005550006", "ApiVersion": "2010-04-01"}  # fmt: skip
        return self._post(self.asked.form["StatusCallback"], form, key)

    def report(self, message: str, to: str) -> None:
        status, answer = self._status(to, KEY)
        assert (status, answer.endswith(b"<Response/>")) == (200, True)

    def forge(self, message: str, to: str) -> int:
        return self._status(to, "another")[0]

    def unsubscribe(self, sender: str) -> str:
        form = {"MessageSid": "SM2", "SmsSid": "SM2", "AccountSid": "AC1", "From": sender, "To": "+15005550006",
                "Body": "Stop", "NumMedia": "0", "NumSegments": "1", "SmsStatus": "received"}  # fmt: skip
        assert self._post(self.uplinks_url, form)[0] == 200
        return "stop"


def is_signed(path: str, headers: dict[str, str], body: bytes, service: str) -> bool:
    """Whether AWS's own library signs this alike."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKIA1/(\S+), SignedHeaders=(\S+), Signature=(\w+)", headers["authorization"]
    )
    assert found is not None
    assert found[1] == f"{headers['x-amz-date'][:8]}/eu-west-1/{service}/aws4_request"
    signed = {name: headers[name] for name in found[2].split(";")}
    request = AWSRequest("POST", f"http://{headers['host']}{path}", signed, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIA1", KEY), service, "eu-west-1")
    told = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return bool(told == found[3])


class AwsSns(Family):
    """Its reports go to CloudWatch Logs only, never to us."""

    kind = "aws_sns"

    async def start(self, stack: AsyncExitStack) -> dict[str, Any]:
        url, self._asked = await stack.enter_async_context(raw_vendor(self._answers))
        key = self.secret(KEY)
        return {"url": f"{url}/", "access_key_id": "AKIA1", "secret_access_key": key, "region": "eu-west-1"}

    def _answers(self, asked: Asked) -> tuple[int, bytes]:
        told = b"<PublishResult><MessageId>94f20ce6</MessageId></PublishResult>"
        return 200, b'<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/">%b</PublishResponse>' % told

    @property
    def taken(self) -> int:
        return len(self._asked)

    def check(self, message: str, to: str, n: str) -> None:
        [asked] = self._asked
        form = dict(parse_qsl(asked.body.decode()))
        assert {name: form[name] for name in ("Action", "PhoneNumber", "Message")} == {
            "Action": "Publish", "PhoneNumber": to, "Message": f"paid {n}"
        }  # fmt: skip
        assert form["MessageAttributes.entry.1.Value.StringValue"] == "Transactional"
        assert is_signed(asked.target, asked.headers, asked.body, "sns")


class AwsEum(Family):
    """Reports and users' texts come in signed envelopes. Their certificate is got from SNS's own hosts only, so here
    the provider has one, made for the tests."""

    kind = "aws_eum"
    path = "/"
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        return {
            "url": f"{url}/", "access_key_id": "AKIA1", "secret_access_key": self.secret(KEY), "region": "eu-west-1",
            "signing_certificate": self.secret(CERTIFICATE.decode()),
        }  # fmt: skip

    def answer(self, asked: Heard) -> tuple[int, Any]:
        return 200, {"MessageId": "862a8790"}

    def check(self, message: str, to: str, n: str) -> None:
        asked, told = self.asked, self.asked.json
        assert asked.headers["x-amz-target"] == "PinpointSMSVoiceV2.SendTextMessage"
        assert 5 <= told.pop("TimeToLive") <= 259_200
        assert told == {
            "DestinationPhoneNumber": to, "MessageBody": f"paid {n}", "MessageType": "TRANSACTIONAL",
            "Context": {"message": message},
        }  # fmt: skip
        assert is_signed(asked.path, asked.headers, asked.body, "sms-voice")

    def report(self, message: str, to: str) -> None:
        assert self._tell(enveloped(self._delivered(message, to))) == 200

    def forge(self, message: str, to: str) -> int:
        """A delivery by whoever has a key and a page for its certificate; and one that was changed on the way."""
        told = self._delivered(message, to)
        page = f"{self.stub.url}/SimpleNotificationService-1.pem"
        status = self._tell(enveloped(told, SigningCertURL=page))
        assert self._tell({**enveloped(told), "Message": json.dumps({**told, "isFinal": False})}) == status
        return status

    def _delivered(self, message: str, to: str) -> dict[str, Any]:
        return event(context={"message": message}, destinationPhoneNumber=to)

    def unsubscribe(self, sender: str) -> str:
        said = {"originationNumber": sender, "destinationNumber": "+12065550142", "messageKeyword": "KEYWORD_1",
                "messageBody": "STOP", "inboundMessageId": f"in-{sender}"}  # fmt: skip
        assert self._tell(enveloped(said), self.uplinks_url) == 200
        return "stop"

    def _tell(self, envelope: dict[str, Any], url: str = "") -> int:
        return post(url or self.reports_url, json.dumps(envelope).encode())[0]


class Smpp(Family):
    """Reports and users' texts come as deliver_sm over the session that the messages went by."""

    kind = "smpp"
    reports = True

    async def start(self, stack: AsyncExitStack) -> dict[str, Any]:
        self._centre: Centre = await stack.enter_async_context(centre())
        return {
            "host": "127.0.0.1", "port": self._centre.port, "system_id": "esme", "password": self.secret("hush"),
            "source_addr": "+8610690000",
        }  # fmt: skip

    @property
    def taken(self) -> int:
        return len(self._centre.submitted)

    def check(self, message: str, to: str, n: str) -> None:
        bind = self._centre.binds[-1]
        assert (bind.system_id, bind.password) == ("esme", "hush")
        [one] = self._centre.submitted
        assert (one.source, one.to, one.to_ton, one.to_npi) == ("8610690000", to[1:], 1, 1)
        assert (one.registered & 1, one.coding, one.text) == (1, 0, f"paid {n}".encode())

    def report(self, message: str, to: str) -> None:
        words = "id:id1 sub:001 dlvrd:001 submit date:2611242000 done date:2611242001 stat:DELIVRD err:000 text:paid"
        self._deliver(words, to, esm_class=4)

    def unsubscribe(self, sender: str) -> str:
        self._deliver("unsubscribe", sender)
        return "unsubscribe"

    def _deliver(self, text: str, phone: str, **changes: Any) -> None:
        async def told() -> int:
            asked = self._centre.deliver(text_message(text.encode(), source=phone[1:], **changes))
            async with asyncio.timeout(20):
                return await self._centre.answered(asked)

        assert self.loop.run(told()) == 0


SMS: list[type[Family]] = [Aliyun, Tencent, HuaweiSms, Twilio, Smpp, AwsSns, AwsEum]
#: Of `aws_sns` a user's text comes as of `aws_eum`.
UPLINKS: list[type[Family]] = [Aliyun, Tencent, HuaweiSms, Twilio, Smpp, AwsEum]
