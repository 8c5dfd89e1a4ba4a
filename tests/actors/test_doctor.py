"""`dispatcher doctor`: every fault of a provider by its path, and one real message through one, to servers that are
there."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli.main import main
from channels.smpp.pdu import UNBIND
from channels.smpp.status import CODES
from dispatcher.receipt import ANSWERS
from dispatcher.trial import MEANINGS
from tests.channels.smpp.centre import centre
from tests.channels.smtp.post import PASSWORD, post
from tests.channels.vendor import Heard, Script, Vendor, vendor
from tests.commands import config_file
from tests.servers import free_port
from tests.support import run

NUMBER = "+8613800000000"
SECRET = "whsec_c2hhbGxub3RiZXNlZW4="
TEMPLATES = {
    "pay_ok": {
        "type": "notice",
        "channels": [{"channel": "sms", "text": "paid {amount}"}],
        "vendor": {"tencent": {"code": "1110", "params": ["amount"]}},
    },
    "hello": {"type": "notice", "channels": [{"channel": "push", "title": "hello", "body": "you"}]},
}


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Doctor":
    monkeypatch.setenv("DOCTOR_SECRET", SECRET)
    monkeypatch.delenv("DOCTOR_NOTHING", raising=False)
    return Doctor(tmp_path, monkeypatch, capsys)


class Doctor:
    """Runs the command over a configuration with one provider, `p`; `typed` is what somebody types."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._place = place
        self._patch = patch
        self._captured = captured
        self.out = self.err = ""

    def __call__(self, provider: dict[str, Any], *words: str, typed: str = "") -> int:
        return self.look({"p": provider}, *words, typed=typed)

    def knows(self, name: str, value: str) -> None:
        """Set a variable of the environment."""
        self._patch.setenv(name, value)

    def look(self, providers: dict[str, Any], *words: str, typed: str = "") -> int:
        file = config_file(
            self._place, data_dir=str(self._place / "data"), http={"port": 0}, templates=TEMPLATES, providers=providers
        )
        self._patch.setattr("sys.stdin", io.StringIO(typed))
        code = main(["doctor", "--config", file, *words])
        self.out, self.err = self._captured.readouterr()
        assert SECRET not in self.out + self.err
        assert not (self._place / "data").exists()
        return code

    def told(self) -> dict[str, str]:
        """The table that was printed."""
        lines = self.out.replace("Send it? [y/N] ", "").splitlines()  # nobody's return key is shown here
        return {line[:10].strip(): line[10:] for line in lines}


def webhook(url: str, **options: Any) -> dict[str, Any]:
    return {"kind": "webhook", "channel": "sms", "options": {"url": url, "allow_private": True, **options}}


def says(answer: str, **more: Any) -> Script:
    return lambda asked: (200, {"results": [{"id": asked.json["messages"][0]["id"], "answer": answer, **more}]})


def against(script: Script, scene: Callable[[Vendor], None]) -> None:
    """Play a scene, which waits in the ways of a command, beside a vendor that answers."""

    async def whole() -> None:
        async with vendor(script) as there:
            await asyncio.to_thread(scene, there)

    run(whole())


# -- sending one


def test_what_is_sent_is_said_before_and_its_answer_after(doctor: Doctor) -> None:
    def scene(there: Vendor) -> None:
        words = ("--send-test", "p", "--to", "138 0000 0000", "--template", "pay_ok", "--param", "amount=12.00")
        assert doctor(webhook(there.url, secret="env:DOCTOR_SECRET"), *words, typed="y\n") == 0
        told = doctor.told()
        assert " ".join(told) == "provider to template text answer ref code took means to do"
        assert told["provider"] == "p (kind webhook, channel sms; of the configuration)"
        assert (told["to"], told["template"], told["text"]) == (NUMBER, "pay_ok", "paid 12.00")
        assert (told["answer"], told["ref"], told["code"]) == ("accepted", "r-1", "none")
        assert told["took"].endswith(" ms")
        assert told["means"] == MEANINGS["accepted"].means
        [message] = there.requests[0].json["messages"]
        assert (message["to"], message["text"], message["params"]) == (NUMBER, "paid 12.00", {"amount": "12.00"})
        assert "webhook-signature" in there.requests[0].headers

    against(says("accepted", ref="r-1"), scene)


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer != "refused"])
def test_only_an_accepted_one_is_a_success_and_each_answer_is_explained(doctor: Doctor, answer: str) -> None:
    def scene(there: Vendor) -> None:
        code = doctor(webhook(there.url, secret="env:DOCTOR_SECRET"), "--send-test", "p", "--to", NUMBER, "--yes")
        assert code == (0 if answer == "accepted" else 1)
        told = doctor.told()
        assert told["answer"] == answer
        assert told["code"] == "says ***"  # a vendor that says our secret back
        meaning = MEANINGS[answer]  # type: ignore[index]
        assert (told["means"], told["to do"]) == meaning
        assert told.get("try again") == ("in 7 s, it says" if answer == "throttled" else None)

    more = {"retry_after_s": 7.0} if answer == "throttled" else {}
    against(says(answer, code=f"says {SECRET}", **more), scene)


def test_nobody_is_sent_anything_without_a_yes(doctor: Doctor) -> None:
    def scene(there: Vendor) -> None:
        for typed in ("", "\n", "n\n", "maybe\n"):
            assert doctor(webhook(there.url), "--send-test", "p", "--to", NUMBER, typed=typed) == 1
            assert "Send it? [y/N]" in doctor.out
            assert doctor.out.endswith("nothing was sent\n")
        assert there.requests == []

    against(says("accepted"), scene)


def test_a_host_that_is_not_reached(doctor: Doctor) -> None:
    url = f"http://127.0.0.1:{free_port()}/send"
    assert doctor(webhook(url), "--send-test", "p", "--to", NUMBER, "--yes") == 1
    told = doctor.told()
    assert told["answer"] == "transient"
    assert told["code"].startswith("not_written: ")
    assert "options (url, host, port)" in told["to do"]


WECHAT = {
    "kind": "wechat", "channel": "wechat",
    "options": {"app_id": "1", "app_secret": "env:DOCTOR_SECRET", "url": "http://127.0.0.1:1"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "words", "said"),
    [
        (None, ("--send-test", "q", "--to", NUMBER), "--send-test: there is no 'q' in the configuration; it has: p"),
        (None, ("--send-test", "p"), "--to: missing; a provider of channel `sms` needs an address"),
        (None, ("--send-test", "p", "--to", "12"), "--to: '12' is no address of channel `sms`"),
        (None, ("--send-test", "p", "--to", NUMBER, "--template", "x"), "--template: there is no 'x' in the config"),
        (None, ("--send-test", "p", "--to", NUMBER, "--template", "hello"), "--template: 'hello' has nothing for"),
        (None, ("--send-test", "p", "--to", NUMBER, "--template", "pay_ok"), "--param: 'pay_ok' wants 'amount'"),
        (None, ("--send-test", "p", "--to", NUMBER, "--param", "amount"), "--param: 'amount' is not k=v"),
        (None, ("--send-test", "p", "--to", NUMBER, "--param", "a=1"), "--param: only a template has parameters"),
        (WECHAT, ("--send-test", "p", "--to", "o1"), "--template: channel `wechat` needs one"),
        (None, ("--to", NUMBER), "--to, --template, --param and --yes belong to --send-test PROVIDER"),
    ],
)
def test_a_wrong_command_line_sends_nothing(
    doctor: Doctor, provider: dict[str, Any] | None, words: tuple[str, ...], said: str
) -> None:
    def scene(there: Vendor) -> None:
        assert doctor(provider or webhook(there.url), *words, *(["--yes"] if "--send-test" in words else [])) == 2
        assert doctor.err.startswith(f"doctor: {said}")
        assert doctor.out == ""
        assert there.requests == []

    against(says("accepted"), scene)


def test_a_reference_that_leads_nowhere_is_named_before_anything_is_asked(doctor: Doctor) -> None:
    provider = webhook("http://127.0.0.1:1/", secret="env:DOCTOR_NOTHING", ca_file="file:/no/such/file")
    assert doctor(provider, "--send-test", "p", "--to", NUMBER) == 1
    assert doctor.out == ""
    assert sorted(doctor.err.splitlines()) == [
        "doctor: providers.p.options.ca_file: the file /no/such/file cannot be read: No such file or directory",
        "doctor: providers.p.options.secret: the environment variable DOCTOR_NOTHING is not set",
    ]


def test_a_push_token_goes_out_with_an_access_token_that_was_fetched(doctor: Doctor) -> None:
    refused = False

    def script(asked: Heard) -> tuple[int, Any]:
        if "token" in asked.path:
            return (403, {"error": "invalid_client"}) if refused else (200, {"access_token": "t0", "expires_in": 3600})
        return 200, {"code": "80000000", "msg": "Success", "requestId": "R1"}

    def scene(there: Vendor) -> None:
        nonlocal refused
        options = {"app_id": "100", "app_secret": "env:DOCTOR_SECRET", "url": there.url}
        provider = {"kind": "huawei_push", "channel": "push", "options": options}
        words = ("--send-test", "p", "--to", "device-token", "--template", "hello", "--yes")
        assert doctor(provider, *words) == 0
        assert doctor.told()["ref"].startswith("R1")
        fetched, sent = there.requests
        assert fetched.path.startswith("/oauth2")
        assert sent.headers["authorization"] == "Bearer t0"
        assert sent.json["message"]["token"] == ["device-token"]
        assert sent.json["message"]["notification"]["title"] == "hello"
        refused = True
        assert doctor(provider, *words) == 1
        assert doctor.told()["answer"] == "auth"
        assert len(there.requests) == 3

    against(script, scene)


def test_a_robot_needs_no_address_and_its_own_is_not_shown(doctor: Doctor) -> None:
    def scene(there: Vendor) -> None:
        url = f"{there.url}/robot/send?access_token=hush-hush"
        doctor.knows("DOCTOR_ROBOT", url)
        provider = {"kind": "dingtalk", "channel": "webhook", "options": {"url": "env:DOCTOR_ROBOT"}}
        assert doctor(provider, "--send-test", "p", "--yes") == 0
        assert doctor.told()["to"] == "the robot's own group"
        assert "hush-hush" not in doctor.out + doctor.err
        assert there.url not in doctor.out + doctor.err
        assert there.requests[0].json["text"]["content"] in doctor.told()["body"]

    against(lambda asked: (200, {"errcode": 0, "errmsg": "ok"}), scene)


def test_a_mail_goes_out_after_a_login(doctor: Doctor) -> None:
    async def whole() -> None:
        async with post(auth=True) as there:
            options = {
                "host": "127.0.0.1", "port": there.port, "tls": "none", "from": "shop@example.com",
                "username": "shop", "password": "env:DOCTOR_PASSWORD",
            }  # fmt: skip
            provider = {"kind": "smtp", "channel": "email", "options": options}
            words = ("--send-test", "p", "--to", "ann@example.org", "--yes")
            for password, code in ((PASSWORD, 0), ("wrong-wrong", 1)):
                doctor.knows("DOCTOR_PASSWORD", password)
                assert await asyncio.to_thread(doctor, provider, *words) == code
                assert doctor.told()["answer"] == ("auth" if code else "accepted")
                assert password not in doctor.out + doctor.err
            assert [mail.rcpt_tos for mail in there.mails] == [["ann@example.org"]]
            assert doctor.told()["subject"] == "Test"

    run(whole())


def test_a_centre_is_bound_to_and_left_again(doctor: Doctor) -> None:
    async def whole() -> None:
        async with centre() as there:
            options = {"host": "127.0.0.1", "port": there.port, "system_id": "esme", "password": "env:DOCTOR_PASSWORD"}
            provider = {"kind": "smpp", "channel": "sms", "options": options}
            words = ("--send-test", "p", "--to", NUMBER, "--yes")
            assert await asyncio.to_thread(doctor, provider, *words) == 0
            assert doctor.told()["ref"] == "id1"
            assert [message.to for message in there.submitted] == [NUMBER.removeprefix("+")]
            assert UNBIND in [pdu.command for pdu in there.heard]
            there.bind_status = CODES["RINVPASWD"]
            assert await asyncio.to_thread(doctor, provider, *words) == 1
            assert (doctor.told()["answer"], len(there.submitted)) == ("auth", 1)
            assert "hush-hu" not in doctor.out + doctor.err

    doctor.knows("DOCTOR_PASSWORD", "hush-hu")
    run(whole())


# -- looking


def test_every_fault_of_every_provider_is_named_by_its_path(doctor: Doctor) -> None:
    twilio = {"account_sid": "a", "auth_token": "env:DOCTOR_NOTHING", "from": "+15"}
    providers = {
        "a": webhook("http://127.0.0.1:1/", colour=1, secret=SECRET),
        "b": {"kind": "twilio", "channel": "sms", "options": twilio},
        "c": {"kind": "twilio", "channel": "sms", "options": {**twilio, "auth_token": "env:DOCTOR_SECRET", "from": 7}},
        "d": webhook("http://127.0.0.1:1/", secret="env:DOCTOR_SECRET"),
    }
    assert doctor.look(providers) == 1
    broken = [line.removeprefix("broken  ") for line in doctor.out.splitlines()]
    said = [line.split(": ", 1)[1] for line in broken]
    for begins in (
        "providers.a.options.colour: unknown option",
        "providers.a.options.secret: is a secret: write it as",
        "providers.c.options.from: Expected `str | null`, got `int`",
        "providers.b.options.auth_token: the environment variable DOCTOR_NOTHING is not set",
    ):
        assert [line for line in said if line.startswith(begins)], (begins, doctor.out)
    assert len(said) == 4
    assert json.dumps(providers).count(SECRET) == 1  # it was there to be shown
