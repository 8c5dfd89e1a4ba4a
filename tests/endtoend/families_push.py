"""Vendors of push messages, rooms of office platforms and mail, as each of them speaks."""

import base64
import hashlib
import hmac
import json
import time
from contextlib import AsyncExitStack
from email import message_from_bytes
from email.policy import default
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import google.auth.jwt
import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.channels.apns.apple import Apple, apple
from tests.channels.p8 import KEY as APPLE_KEY
from tests.channels.p8 import P8
from tests.channels.service_account import KEY as GOOGLE_KEY
from tests.channels.service_account import service_account
from tests.channels.smtp.post import DATA, PASSWORD, Post
from tests.channels.smtp.post import post as mail_server
from tests.channels.vendor import Heard
from tests.endtoend.family import Family, post

SECRET = "s3cret/+&"
PAGE = "https://example.com/orders"


class Fcm(Family):
    """HTTP v1 has no delivery receipts: Google tells in an export to BigQuery only."""

    kind = "fcm"
    channel = "push"
    path = "/v1/projects/p-1/messages:send"
    to = "c" * 22 + ":APA91b" + "x" * 134

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "service_account": self.secret(service_account(token_uri=f"{url}/token"))}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        if asked.path == "/token":
            return 200, {"access_token": "ya29.one", "expires_in": 3599, "token_type": "Bearer"}
        return 200, {"name": "projects/p-1/messages/0:1"}

    def check(self, message: str, to: str, n: str) -> None:
        [granted] = self.stub.to("/token")
        public = GOOGLE_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        uri = f"{self.stub.url}/token"
        claims = google.auth.jwt.decode(granted.form["assertion"], certs={"key-1": public}, audience=uri)
        assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        assert self.asked.headers["authorization"] == "Bearer ya29.one"
        told = self.asked.json["message"]
        assert (told["token"], told["notification"]) == (to, {"title": "Paid", "body": f"paid {n}"})
        assert told["data"] == {"message": message, "jump_kind": "h5", "jump_url": PAGE}
        assert told["webpush"] == {"fcm_options": {"link": PAGE}}


class Apns(Family):
    """Apple says whether it took a message, and nothing later."""

    kind = "apns"
    channel = "push"
    to = "a1" * 32

    async def start(self, stack: AsyncExitStack) -> dict[str, Any]:
        self._apple: Apple = await stack.enter_async_context(apple())
        return {"url": f"http://127.0.0.1:{self._apple.port}", "key": self.secret(P8), "key_id": "ABC123DEFG",
                "team_id": "DEF123GHIJ", "topic": "com.example.app"}  # fmt: skip

    @property
    def taken(self) -> int:
        return len(self._apple.asked)

    def check(self, message: str, to: str, n: str) -> None:
        [asked] = self._apple.asked
        headers = asked.headers
        assert (headers[":method"], headers[":path"]) == ("POST", f"/3/device/{to}")
        bearer, token = headers["authorization"].split(" ")
        claims = jwt.decode(token, APPLE_KEY.public_key(), ["ES256"], options={"verify_iat": False})
        assert (bearer, claims["iss"]) == ("bearer", "DEF123GHIJ")
        assert jwt.get_unverified_header(token)["kid"] == "ABC123DEFG"
        assert {name: headers[name] for name in ("apns-topic", "apns-push-type", "apns-collapse-id")} == {
            "apns-topic": "com.example.app", "apns-push-type": "alert", "apns-collapse-id": message
        }  # fmt: skip
        assert asked.json["aps"]["alert"] == {"title": "Paid", "body": f"paid {n}"}


class Getui(Family):
    kind = "getui"
    channel = "push"
    path = "/v2/app/push/single/cid"
    to = "5f1c0de1a7b2"
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "app_id": "app", "app_key": "key", "master_secret": self.secret(SECRET)}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        if asked.path == "/v2/app/auth":
            day_ms = int(time.time() + 86_400) * 1000
            return 200, {"code": 0, "msg": "success", "data": {"token": "t1", "expire_time": str(day_ms)}}
        [cid] = asked.json["audience"]["cid"]
        return 200, {"code": 0, "msg": "success", "data": {"RASS_1": {cid: "successed_online"}}}

    def check(self, message: str, to: str, n: str) -> None:
        [login] = self.stub.to("/auth")
        signed = f"key{login.json['timestamp']}{SECRET}"
        assert login.json["sign"] == hashlib.sha256(signed.encode()).hexdigest()
        asked = self.asked
        assert asked.headers["token"] == "t1"
        assert (asked.json["request_id"], asked.json["audience"]) == (message, {"cid": [to]})
        shown = {"title": "Paid", "body": f"paid {n}", "click_type": "url", "url": PAGE}
        assert asked.json["push_message"] == {"notification": shown}

    def _receipt(self, to: str, secret: str) -> int:
        said = {"appid": "app", "cid": to, "taskid": "RASS_1", "msgid": "M1", "code": "200", "desc": "ok",
                "actionId": "0", "recvtime": int(time.time() * 1000)}  # fmt: skip
        signed = f"app{to}RASS_1M1{secret}"
        line = {**said, "sign": hashlib.md5(signed.encode()).hexdigest()}
        return post(self.reports_url, json.dumps(line).encode() + b"\n")[0]

    def report(self, message: str, to: str) -> None:
        assert self._receipt(to, SECRET) == 200

    def forge(self, message: str, to: str) -> int:
        return self._receipt(to, "another")


class HuaweiPush(Family):
    kind = "huawei_push"
    channel = "push"
    path = "/v1/100/messages:send"
    to = "IQAAAACy0example"
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "app_id": "100", "app_secret": self.secret(SECRET), "callback_user": "me",
                "callback_key": self.secret("a key")}  # fmt: skip

    def answer(self, asked: Heard) -> tuple[int, Any]:
        if asked.path == "/oauth2/v3/token":
            return 200, {"access_token": "one", "expires_in": 3600, "token_type": "Bearer"}
        return 200, {"code": "80000000", "msg": "Success", "requestId": "R1"}

    def check(self, message: str, to: str, n: str) -> None:
        [login] = self.stub.to("/token")
        assert login.form == {"grant_type": "client_credentials", "client_id": "100", "client_secret": SECRET}
        asked, told = self.asked, self.asked.json["message"]
        assert asked.headers["authorization"] == "Bearer one"
        assert (told["token"], told["android"]["bi_tag"]) == ([to], message)
        assert told["notification"] == {"title": "Paid", "body": f"paid {n}"}
        assert told["android"]["notification"]["click_action"] == {"type": 2, "url": PAGE}

    def _receipt(self, message: str, to: str, key: bytes) -> tuple[int, bytes]:
        stamp, nonce = str(int(time.time() * 1000)), "6a1b"
        value = base64.b64encode(hmac.digest(key, f"{stamp}{nonce}me".encode(), "sha256")).decode()
        headers = {"content-type": "application/json",
                   "x-huawei-callback-id": f"timestamp={stamp}; nonce={nonce}; value={value}"}  # fmt: skip
        said = {"biTag": message, "appid": "100", "token": to, "status": 0, "timestamp": int(stamp), "requestId": "R1"}
        return post(self.reports_url, json.dumps({"statuses": [said]}).encode(), headers)

    def report(self, message: str, to: str) -> None:
        status, answer = self._receipt(message, to, b"a key")
        assert (status, json.loads(answer)["code"]) == (200, "0")

    def forge(self, message: str, to: str) -> int:
        return self._receipt(message, to, b"another")[0]


class Xiaomi(Family):
    """Receipts are not signed: the address is the secret."""

    kind = "xiaomi"
    channel = "push"
    path = "/v3/message/regid"
    to = "d//igwEhgBGCI2TG6lWqlAG0example="
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "app_secret": self.secret(SECRET), "package": "com.example", "public_url": self.ours}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        return 200, {"result": "ok", "trace_id": "X1", "code": 0, "data": {"id": "sdm1"}, "description": "成功"}

    def check(self, message: str, to: str, n: str) -> None:
        form = self.asked.form
        assert self.asked.headers["authorization"] == f"key={SECRET}"
        assert {name: form[name] for name in ("registration_id", "restricted_package_name", "title")} == {
            "registration_id": to, "restricted_package_name": "com.example", "title": "Paid"
        }  # fmt: skip
        assert (form["description"], form["extra.web_uri"]) == (f"paid {n}", PAGE)
        assert (form["extra.callback"], form["extra.callback.param"]) == (self.reports_url, message)

    def report(self, message: str, to: str) -> None:
        form = self.asked.form
        said = {"param": form["extra.callback.param"], "type": 1, "targets": to, "jobkey": form["extra.jobkey"],
                "barStatus": "Enable", "timestamp": int(time.time() * 1000)}  # fmt: skip
        body = urlencode({"data": json.dumps({"sdm1": said})}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert post(form["extra.callback"], body, headers)[0] == 200


class Jpush(Family):
    """It posts nothing to ordinary accounts: the sender asks it, for the first time after 15 s."""

    kind = "jpush"
    channel = "push"
    path = "/v3/push"
    to = "1507bfd3a7c568d4761"
    reports = True

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "app_key": "key", "master_secret": self.secret(SECRET)}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        if asked.path == "/v3/push":
            return 200, {"sendno": "18", "msg_id": "1828256757"}
        return 200, {id_: {"status": 0} for id_ in asked.json["registration_ids"]}

    def check(self, message: str, to: str, n: str) -> None:
        self._authorized(self.asked)
        told = self.asked.json
        assert told["audience"] == {"registration_id": [to]}
        assert (told["notification"]["alert"], told["notification"]["android"]["title"]) == (f"paid {n}", "Paid")
        assert told["notification"]["android"]["extras"]["message"] == message

    def _authorized(self, asked: Heard) -> None:
        assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"key:{SECRET}".encode()).decode()

    def check_question(self, to: str) -> None:
        [question] = self.stub.to("/v3/status/message")
        self._authorized(question)
        assert (question.json["msg_id"], question.json["registration_ids"]) == (1828256757, [to])


class Wecom(Family):
    """The vendor has no delivery reports."""

    kind = "wecom"
    channel = "wechat"
    path = "/cgi-bin/message/send?access_token=tok1"
    to = "ZhangSan"

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "corp_id": "ww1", "corp_secret": self.secret(SECRET), "agent_id": 1000002}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        if asked.path.startswith("/cgi-bin/gettoken"):
            return 200, {"errcode": 0, "errmsg": "ok", "access_token": "tok1", "expires_in": 7200}
        return 200, {"errcode": 0, "errmsg": "ok", "invaliduser": "", "msgid": "M1"}

    def check(self, message: str, to: str, n: str) -> None:
        login = self.stub.requests[0]
        assert dict(parse_qsl(urlsplit(login.path).query)) == {"corpid": "ww1", "corpsecret": SECRET}
        told = self.asked.json
        assert (told["touser"], told["agentid"], told["msgtype"]) == (to, 1000002, "text")
        assert told["text"] == {"content": f"paid {n}"}


class Room(Family):
    """A chat group's robot answers a message and has no delivery reports."""

    channel = "webhook"
    path = ""
    to = "https://example.com/room"

    def options(self, url: str) -> dict[str, Any]:
        return {"url": self.secret(f"{url}/robot/send?access_token=t1"), "secret": self.secret("SECabc")}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        return 200, {"errcode": 0, "errmsg": "ok"}


class Dingtalk(Room):
    kind = "dingtalk"

    def check(self, message: str, to: str, n: str) -> None:
        query = dict(parse_qsl(urlsplit(self.asked.path).query))
        signed = f"{query['timestamp']}\nSECabc".encode()
        wanted = base64.b64encode(hmac.digest(b"SECabc", signed, "sha256")).decode()
        assert (query["access_token"], query["sign"]) == ("t1", wanted)
        assert abs(int(query["timestamp"]) / 1000 - time.time()) < 3600
        assert self.asked.json == {"msgtype": "text", "text": {"content": f"paid {n}"}}


class WecomRobot(Room):
    kind = "wecom_robot"

    def options(self, url: str) -> dict[str, Any]:
        return {"url": self.secret(f"{url}/cgi-bin/webhook/send?key=k1")}

    def check(self, message: str, to: str, n: str) -> None:
        assert self.asked.path == "/cgi-bin/webhook/send?key=k1"
        assert self.asked.json == {"msgtype": "text", "text": {"content": f"paid {n}"}}


class Feishu(Room):
    kind = "feishu"

    def answer(self, asked: Heard) -> tuple[int, Any]:
        return 200, {"code": 0, "msg": "success", "data": {}}

    def check(self, message: str, to: str, n: str) -> None:
        told = self.asked.json
        key = f"{told['timestamp']}\nSECabc".encode()
        assert told.pop("sign") == base64.b64encode(hmac.digest(key, b"", "sha256")).decode()
        assert abs(int(told.pop("timestamp")) - time.time()) < 3600
        assert told == {"msg_type": "text", "content": {"text": f"paid {n}"}}


class Smtp(Family):
    """Bounces come by mail to the sender's address, which the dispatcher does not read."""

    kind = "smtp"
    channel = "email"
    to = "someone@example.org"

    async def start(self, stack: AsyncExitStack) -> dict[str, Any]:
        self._post: Post = await stack.enter_async_context(mail_server("starttls", auth=True))
        return {"host": "localhost", "port": self._post.port, "ca_file": str(DATA / "ca.pem"), "username": "us",
                "password": self.secret(PASSWORD), "from": "Shop <shop@example.com>"}  # fmt: skip

    @property
    def taken(self) -> int:
        return len(self._post.mails)

    def check(self, message: str, to: str, n: str) -> None:
        [mail] = self._post.mails
        assert (self._post.tls, self._post.logins) == ([True], [("us", True)])
        assert (mail.mail_from, mail.rcpt_tos) == ("shop@example.com", [to])
        assert isinstance(mail.content, bytes)
        read = message_from_bytes(mail.content, policy=default)
        assert (read["subject"], read["from"], read["to"]) == ("Paid", "Shop <shop@example.com>", to)
        assert read["message-id"] == f"<{message}@example.com>"
        assert read.get_content().strip() == f"paid {n}"


#: JPush's answer takes longest, so it comes last.
OTHERS: list[type[Family]] = [
    Fcm, Apns, Getui, HuaweiPush, Xiaomi, Wecom, WecomRobot, Dingtalk, Feishu, Smtp, Jpush
]  # fmt: skip
