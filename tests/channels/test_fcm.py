"""FCM: our JSON and our token request against Google's own libraries, answers against firebase-admin's exceptions."""

import asyncio
import json
import time
import warnings
from typing import Any
from urllib.parse import parse_qsl

import firebase_admin
import google.auth.jwt
import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from firebase_admin import credentials, exceptions, messaging
from google.oauth2 import _client
from google.oauth2 import service_account as google_account
from hypothesis import given
from hypothesis import strategies as st

from channels import OptionsError, build
from channels.adapter import NoToken
from channels.fcm import Fcm, wire_message
from dispatcher.documents import Provider
from dispatcher.kinds import BULK
from dispatcher.message import Message
from tests.channels.messages import message
from tests.channels.service_account import KEY, SERVICE_ACCOUNT, service_account
from tests.channels.vendor import Heard, Script, Vendor, reply, send, vendor
from tests.support import run

NOW_S = 1_800_000_000.0
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
TOKEN = "c" * 22 + ":APA91b" + "x" * 134
NO_KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
FID = "cQ-4567890123456789_12"


def fcm(account: str = SERVICE_ACCOUNT, **options: Any) -> Fcm:
    provider = Provider(kind="fcm", channel="push", options={"service_account": "env:A", **options})
    made = build("p1", provider, {"A": account})[0]  # type: ignore[index]
    assert isinstance(made, Fcm)
    return made


FCM = fcm()


def theirs(ours: Message, life: int) -> Any:
    """The same message, made and encoded by firebase-admin."""
    bulk = ours.lane == BULK
    jump = ours.fields.get("jump")
    data = {"message": ours.id} | ({"jump_kind": jump["kind"], "jump_url": jump["url"]} if jump else {})
    headers = {
        "apns-collapse-id": ours.id,
        "apns-expiration": str(int(NOW_S) + life),
        "apns-priority": "5" if bulk else "10",
    }
    link = jump["url"] if jump and jump["kind"] == "h5" and jump["url"].startswith("https://") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of `token`
        made = messaging.Message(
            **{"fid" if ours.to == FID else "token": ours.to},
            notification=messaging.Notification(title=ours.fields["title"], body=ours.fields["body"]),
            data=data,
            android=messaging.AndroidConfig(
                priority="normal" if bulk else "high", ttl=life, notification=messaging.AndroidNotification(tag=ours.id)
            ),
            apns=messaging.APNSConfig(headers=headers),
            webpush=messaging.WebpushConfig(fcm_options=messaging.WebpushFCMOptions(link=link)) if link else None,
        )
    return messaging._MessagingService.encode_message(made)


@given(
    st.text(min_size=1),
    st.text(min_size=1),
    st.none()
    | st.fixed_dictionaries({
        "kind": st.sampled_from(["h5", "native"]),
        "url": st.sampled_from(["https://example.com/a?b=c", "http://a.example", "app://order/1"]),
    }),
    st.sampled_from([TOKEN, FID]),
    st.integers(0, 2),
    st.integers(1, 28 * 86_400),
)
def test_our_message_is_what_firebase_admin_would_send(
    title: str, body: str, jump: dict[str, str] | None, to: str, lane: int, life: int
) -> None:
    fields = {"title": title, "body": body} | ({"jump": jump} if jump else {})
    ours = message("01J" + "A" * 23, "push", to=to, lane=lane, fields=fields, expires_ms=int(NOW_S + life) * 1000)
    assert wire_message(ours, NOW_S) == theirs(ours, life)
    sent = FCM.request([ours], NOW_S)
    assert sent.url == "https://fcm.googleapis.com/v1/projects/p-1/messages:send"
    assert json.loads(sent.body) == {"message": theirs(ours, life)}


def error_body(status: str, code: str | None, why: str = "no", fields: bool = False) -> dict[str, Any]:
    details: list[dict[str, Any]] = []
    if code:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if fields:
        violation = {"field": "message.android.ttl", "description": "Invalid"}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    return {"error": {"code": 1, "message": why, "status": status, "details": details}}


SERVICE = object.__new__(messaging._MessagingService)  # only to read replies
NO_TOKEN = "The registration token is not a valid FCM registration token"


ANSWERS = [
    (404, "NOT_FOUND", "UNREGISTERED", "", "invalid_recipient", messaging.UnregisteredError),
    (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "", "invalid_recipient", messaging.SenderIdMismatchError),
    (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "", "throttled", messaging.QuotaExceededError),
    (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "", "auth", messaging.ThirdPartyAuthError),
    (401, "UNAUTHENTICATED", None, "", "auth", exceptions.UnauthenticatedError),
    (403, "PERMISSION_DENIED", None, "", "auth", exceptions.PermissionDeniedError),
    (503, "UNAVAILABLE", "UNAVAILABLE", "", "transient", exceptions.UnavailableError),
    (500, "INTERNAL", "INTERNAL", "", "transient", exceptions.InternalError),
    (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", NO_TOKEN, "invalid_recipient", exceptions.InvalidArgumentError),
    (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Invalid ttl", "rejected", exceptions.InvalidArgumentError),
]


@pytest.mark.parametrize(("http", "status", "code", "why", "answer", "exception"), ANSWERS)
def test_answers_and_what_firebase_admin_makes_of_them(
    http: int, status: str, code: str | None, why: str, answer: str, exception: type
) -> None:
    body = error_body(status, code, why)
    [receipt] = FCM.receipts([message("m1", "push")], reply(http, body), NOW_S)
    assert receipt.answer == answer
    answered = requests.Response()
    answered.status_code, answered._content = http, json.dumps(body).encode()
    raised = SERVICE._handle_fcm_error(requests.HTTPError(response=answered))
    assert type(raised) is exception


def test_a_field_that_is_wrong_kills_no_token() -> None:
    body = error_body("INVALID_ARGUMENT", "INVALID_ARGUMENT", NO_TOKEN, fields=True)
    assert FCM.receipts([message("m1", "push")], reply(400, body), NOW_S)[0].answer == "rejected"


def test_a_quota_without_a_time_is_a_minute() -> None:
    body = error_body("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    [first] = FCM.receipts([message("m1", "push")], reply(429, body), NOW_S)
    [second] = FCM.receipts([message("m1", "push")], reply(429, body, retry_after="7"), NOW_S)
    assert (first.retry_after_s, second.retry_after_s) == (60.0, 7.0)


class TestToken:
    def test_the_assertion_is_one_that_google_verifies(self) -> None:
        now_s = int(time.time())  # its verifier looks at the clock
        made = FCM.token_request(now_s)
        form = dict(parse_qsl(made.body.decode(), strict_parsing=True))
        assert form["grant_type"] == _client._JWT_GRANT_TYPE
        claims = google.auth.jwt.decode(form["assertion"], certs={"key-1": PUBLIC}, audience=made.url)
        account = google_account.Credentials.from_service_account_info(
            json.loads(SERVICE_ACCOUNT), scopes=["https://www.googleapis.com/auth/firebase.messaging"]
        )
        wanted = google.auth.jwt.decode(account._make_authorization_grant_assertion(), certs={"key-1": PUBLIC})
        assert {name: claims[name] for name in ("iss", "scope", "aud")} == {
            name: wanted[name] for name in ("iss", "scope", "aud")
        }
        assert claims["exp"] - claims["iat"] == 3600
        assert google.auth.jwt.decode_header(form["assertion"]) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}

    def test_tokens_and_refusals(self) -> None:
        token = FCM.token_of(reply(200, {"access_token": "ya29.x", "expires_in": 3599}), NOW_S)
        assert (token.value, token.expires_s) == ("ya29.x", NOW_S + 3599)
        for http, body, answer in [
            (400, {"error": "invalid_grant"}, "auth"),
            (503, {}, "transient"),
            (429, {}, "throttled"),
            (200, {"access_token": "a\r\nb"}, "transient"),
        ]:
            with pytest.raises(NoToken) as raised:
                FCM.token_of(reply(http, body), NOW_S)
            assert raised.value.answer == answer

    def test_only_a_refused_token_is_stale(self) -> None:
        assert FCM.is_stale(reply(401, error_body("UNAUTHENTICATED", None)))
        assert not FCM.is_stale(reply(401, error_body("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")))
        assert not FCM.is_stale(reply(403, error_body("PERMISSION_DENIED", "SENDER_ID_MISMATCH")))
        assert not FCM.is_stale(reply(200, {"name": "x"}))


@pytest.mark.parametrize(
    ("account", "path"),
    [
        ("{}", "options.service_account"),
        ("no json", "options.service_account"),
        (service_account(private_key=NO_KEY), "options.service_account"),
        (service_account(token_uri="ftp://x"), "options.service_account"),
        (service_account(project_id=""), "options.project_id"),
    ],
)
def test_a_service_account_that_is_none(account: str, path: str) -> None:
    with pytest.raises(OptionsError) as raised:
        fcm(account)
    assert raised.value.errors[0][0] == path
    assert "AAAA" not in str(raised.value)


def test_project_of_the_options_wins() -> None:
    assert "/projects/other/" in fcm(project_id="other").request([message("m1", "push")], NOW_S).url


def project(*granted: str) -> Script:
    """Grants these tokens, and takes the first one back after one message."""
    tokens = iter(granted)

    def script(heard: Heard) -> tuple[int, Any]:
        if heard.path == "/token":
            return 200, {"access_token": next(tokens), "expires_in": 3599, "token_type": "Bearer"}
        if heard.headers["authorization"] == "Bearer one" and heard.json["message"]["token"] != "t0":
            return 401, error_body("UNAUTHENTICATED", None)
        if heard.json["message"]["token"] == "gone":
            return 404, error_body("NOT_FOUND", "UNREGISTERED")
        return 200, {"name": f"projects/p-1/messages/{heard.json['message']['token']}"}

    return script


def test_the_whole_way_with_a_token_that_google_takes_back() -> None:
    async def scenario() -> None:
        async with vendor(project("one", "two")) as there:
            account = service_account(token_uri=f"{there.url}/token")
            options = {"service_account": "env:A", "url": there.url}
            batches = [[message(f"m{i}", "push", to=to)] for i, to in enumerate(["t0", "t1", "gone", "t3"])]
            told = await send("fcm", options, {"A": account}, batches, NOW_S)
            words = [(r.id, r.answer, r.ref) for [r] in told]
            assert words == [
                ("m0", "accepted", "projects/p-1/messages/t0"),
                ("m1", "accepted", "projects/p-1/messages/t1"),
                ("m2", "invalid_recipient", None),
                ("m3", "accepted", "projects/p-1/messages/t3"),
            ]
            assert [len(there.to("/token")), len(there.to(":send"))] == [2, 5]

    run(scenario())


def test_firebase_admin_gets_along_with_the_same_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_firebase_admin(there: Vendor) -> list[Any]:
        monkeypatch.setattr(messaging._MessagingService, "FCM_URL", there.url + "/v1/projects/{0}/messages:send")
        account = json.loads(service_account(token_uri=f"{there.url}/token"))
        app = firebase_admin.initialize_app(credentials.Certificate(account), name="stub")
        told: list[Any] = []
        try:
            for to in ("t0", "gone"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of `token`
                    made = messaging.Message(token=to, notification=messaging.Notification("Paid", "12.00"))
                try:
                    told.append(messaging.send(made, app=app))
                except messaging.UnregisteredError as error:
                    told.append(type(error))
        finally:
            firebase_admin.delete_app(app)
        return told

    async def scenario() -> None:
        async with vendor(project("two")) as there:
            told = await asyncio.to_thread(by_firebase_admin, there)
            assert told == ["projects/p-1/messages/t0", messaging.UnregisteredError]
            theirs, ours = there.to("/token")[0].form, dict(parse_qsl(FCM.token_request(time.time()).body.decode()))
            assert theirs.keys() == ours.keys()
            assert theirs["grant_type"] == ours["grant_type"]
            one = there.to(":send")[0]
            assert one.headers["authorization"] == "Bearer two"
            assert one.headers["content-type"].startswith("application/json")

    run(scenario())
