"""What a mail server is sent, what its replies mean, and how its connections are used. The server is aiosmtpd."""

import asyncio
import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import build
from channels.adapter import Unsendable
from channels.options import OptionsError
from channels.secret import Secret
from channels.smtp import pool
from channels.smtp.mail import Sender, envelope, mail
from channels.smtp.status import REPLIES, Step, queue_id, verdict
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import ANSWERS
from tests.channels.messages import message
from tests.channels.smtp.post import LOGIN, courier, post
from tests.channels.test_couriers import Watched, words
from tests.support import run, until

NOW_S = 1_800_000_000.0
SENDER = Sender("Shop", "shop@example.com")


def letter(id_: str = "m1", to: str = "ann@example.org", **fields: str) -> Message:
    return message(id_, "email", to=to, fields={"subject": "Paid", "text": "12.00", **fields})


def letters(count: int) -> list[Message]:
    return [letter(f"m{n}", f"u{n}@example.org") for n in range(count)]


def read(content: bytes) -> EmailMessage:
    """As it arrives: without the dot at the end, dots undoubled."""
    assert content.endswith(b"\r\n.\r\n")
    lines = content[:-3].split(b"\r\n")
    plain = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
    found = email.message_from_bytes(plain, _class=EmailMessage, policy=email.policy.SMTP)  # type: ignore[call-overload]
    assert isinstance(found, EmailMessage)
    return found


def part(of: EmailMessage, kind: str) -> str:
    body = of.get_body((kind,))
    assert body is not None
    return str(body.get_content())


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


class TestMail:
    def test_text_and_html(self) -> None:
        url = "https://example.com/u?a=1"
        made = mail(letter(subject="已支付 12 元", html="<b>十二</b>", unsubscribe_url=url), SENDER, NOW_S)
        found = read(made.content)
        assert (made.sender, made.to, made.international) == ("shop@example.com", "ann@example.org", False)
        assert made.content.isascii()
        assert max(map(len, made.content.split(b"\r\n"))) <= 998
        assert found.get_content_type() == "multipart/alternative"
        assert (part(found, "plain").strip(), part(found, "html").strip()) == ("12.00", "<b>十二</b>")
        assert {name: found[name] for name in ("From", "To", "Subject", "Message-ID", "Date")} == {
            "From": "Shop <shop@example.com>",
            "To": "ann@example.org",
            "Subject": "已支付 12 元",
            "Message-ID": "<m1@example.com>",
            "Date": "Fri, 15 Jan 2027 08:00:00 +0000",
        }
        assert found["List-Unsubscribe"] == f"<{url}>"
        assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"

    def test_html_alone_and_a_mailto(self) -> None:
        made = message("m1", "email", to="a@b.example", fields={
            "subject": "s", "html": "<p>", "unsubscribe_url": "mailto:u@example.com?subject=stop"})  # fmt: skip
        found = read(mail(made, SENDER, NOW_S).content)
        assert found.get_content_type() == "text/html"
        assert found["List-Unsubscribe"] == "<mailto:u@example.com?subject=stop>"
        assert found["List-Unsubscribe-Post"] is None

    @given(
        _texts,
        _texts | st.sampled_from([".", "..\r\n.\r\n.x", "x" * 3_000]),
    )
    def test_any_text_arrives_and_adds_no_header(self, subject: str, text: str) -> None:
        made = mail(letter(subject=subject, text=text), SENDER, NOW_S)
        assert made.content.isascii()
        assert max(map(len, made.content.split(b"\r\n"))) <= 998
        assert b"\r\n.\r\n" not in made.content[:-5]
        assert b"\n" not in made.content.replace(b"\r\n", b"")
        assert b"\r" not in made.content.replace(b"\r\n", b"")
        found = read(made.content)
        assert set(found.keys()) <= {
            "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "MIME-Version",
            "Content-Transfer-Encoding",
        }  # fmt: skip
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        assert part(found, "plain").replace("\r\n", "\n").rstrip("\n") == lines.rstrip("\n")

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ("ann@example.org", "ann@example.org"),
            ("ann+x@bücher.example", "ann+x@xn--bcher-kva.example"),
            ("安@例え.example", "安@xn--r8jz45g.example"),
            ("", None),
            ("ann", None),
            ("@example.org", None),
            ("ann@", None),
            ("a b@example.org", None),
            ("ann@example.org>\r\nRCPT TO:<eve@example.org", None),
            ("a,eve@example.org", None),
            ("a@b@example.org", None),
            ("x" * 65 + "@example.org", None),
            ("a@" + "x" * 64 + ".example", None),
        ],
    )
    def test_addresses(self, written: str, told: str | None) -> None:
        if told is not None:
            assert envelope(written) == told
            return
        with pytest.raises(Unsendable) as raised:
            envelope(written)
        assert raised.value.answer == "invalid_recipient"

    @given(st.text(max_size=30) | st.emails())
    def test_any_address_is_told_whole_or_refused(self, written: str) -> None:
        try:
            made = mail(letter(to=written), SENDER, NOW_S)
        except Unsendable:
            return
        assert not any(c in made.to for c in " \r\n<>,;")
        assert made.to.count("@") == 1
        assert made.international == (not made.to.isascii())


class TestStatus:
    @pytest.mark.parametrize(
        ("step", "code", "text", "answer", "narrow"),
        [
            ("rcpt", 550, "5.1.1 <a@b>: no such user", "invalid_recipient", False),
            ("rcpt", 550, "5.1.10 null MX", "invalid_recipient", False),
            ("rcpt", 550, "5.1.100 something else", "rejected", False),
            ("rcpt", 550, "no such user", "rejected", False),
            ("rcpt", 551, "not local", "invalid_recipient", False),
            ("rcpt", 553, "5.1.3 bad", "invalid_recipient", False),
            ("mail", 553, "5.7.1 not owned by user", "rejected", False),
            ("mail", 553, "not allowed", "rejected", False),
            ("rcpt", 550, "5.7.1 blocked", "rejected", False),
            ("data", 554, "5.7.1 spam", "rejected", False),
            ("data", 552, "5.3.4 too big", "rejected", False),
            ("rcpt", 450, "4.7.1 greylisted", "throttled", True),
            ("rcpt", 450, "4.2.1 busy", "throttled", True),
            ("rcpt", 451, "4.7.1 try later", "throttled", True),
            ("rcpt", 452, "4.5.3 too many", "throttled", True),
            ("rcpt", 421, "4.7.0 too many connections", "throttled", False),
            ("mail", 421, "closing", "throttled", False),
            ("rcpt", 450, "4.1.1 unverified", "transient", False),
            ("data", 451, "4.3.0 disk", "transient", False),
            ("mail", 530, "5.7.0 authentication required", "auth", False),
            ("session", 535, "5.7.8 bad credentials", "auth", False),
            ("session", 554, "no service for you", "auth", False),
            ("session", 454, "4.7.0 temporary", "transient", False),
            ("session", 421, "busy", "throttled", False),
        ],
    )
    def test_replies(self, step: Step, code: int, text: str, answer: str, narrow: bool) -> None:
        found = verdict(step, code, text)
        assert found is not None
        assert (found.answer, found.narrow) == (answer, narrow)
        assert (found.code or "").startswith(str(code))
        assert "@" not in (found.code or "")

    @given(st.sampled_from(["session", "mail", "rcpt", "data"]), st.integers(-1, 999), st.text(max_size=30))
    def test_any_reply(self, step: Step, code: int, text: str) -> None:
        found = verdict(step, code, text)
        assert (found is None) == (not 400 <= code <= 599)
        assert found is None or found.answer in ANSWERS
        queue_id(text)

    def test_queue_ids(self) -> None:
        texts = ("2.0.0 Ok: queued as 4Xyz12", "OK id=1rAbCd-0001-AB", "Ok 0100018c2b3a-4d5e", "2.0.0 OK thanks")
        assert [queue_id(text) for text in texts] == ["4Xyz12", "1rAbCd-0001-AB", "0100018c2b3a-4d5e", None]
        assert len(REPLIES) == 7 + 5 + 4 + 5


class TestServer:
    def test_a_mail_arrives_as_it_was_made(self) -> None:
        async def scene() -> None:
            async with post() as one, courier(one.port) as ours:
                text = ".\r\n..two\r\n尊敬的张三\r\n" + "x" * 3_000
                watch = Watched()
                [told] = await ours.send([letter(text=text)], 10, watch)
                assert (told.answer, told.ref, told.find) == ("accepted", "Q0001", None)
                assert (watch.begun, watch.told) == (1, 1)
                got = one.mails[0]
                assert (got.mail_from, got.rcpt_tos) == ("shop@example.com", ["ann@example.org"])
                assert isinstance(got.content, bytes)
                arrived = email.message_from_bytes(got.content, policy=email.policy.SMTP)
                assert isinstance(arrived, EmailMessage)
                assert part(arrived, "plain").replace("\r\n", "\n").strip("\n") == text.replace("\r\n", "\n")
                assert any(option.startswith("SIZE=") for option in got.mail_options)

        run(scene())

    @pytest.mark.parametrize("tls", ["starttls", "tls", "none"])
    def test_encrypted_and_logged_in(self, tls: str) -> None:
        async def scene() -> None:
            async with post(tls, auth=True) as one, courier(one.port, tls, **LOGIN) as ours:
                receipts = await ours.send(letters(3), 10)
                assert {(r.answer, r.code) for r in receipts} == {("accepted", None)}
                assert set(one.logins) == {("us", True)}
                assert one.tls == [tls != "none"] * 3

        run(scene())

    def test_a_wrong_password_burns_no_message(self) -> None:
        async def scene() -> None:
            wrong = {"username": "us", "password": Secret("wrong-wrong")}
            async with post("tls", auth=True) as one, courier(one.port, "tls", **wrong) as ours:
                receipts = await ours.send(letters(2), 10)
                assert words(receipts) == {("auth", "535 5.7.8")}
                assert one.mails == []
                assert one.logins == [("us", False)] * 2  # each once

        run(scene())

    @pytest.mark.parametrize(("mine", "theirs"), [("starttls", "none"), ("tls", "none")])
    def test_nothing_is_sent_in_the_clear_where_tls_is_asked_for(self, mine: str, theirs: str) -> None:
        async def scene() -> None:
            async with post(theirs) as one, courier(one.port, mine) as ours:
                receipts = await ours.send(letters(2), 5)
                assert {receipt.answer for receipt in receipts} <= {"auth", "transient"}
                assert one.mails == []

        run(scene())

    def test_each_recipient_has_its_own_answer(self) -> None:
        async def scene() -> None:
            async with post() as one, courier(one.port) as ours:
                said = {"u1": "550 5.1.1 unknown", "u2": "451 4.7.1 greylisted", "u3": "550 5.7.1 blocked"}
                one.rcpt = lambda address: said.get(address.split("@")[0], "250 Ok")
                batch = [*letters(5), letter("bad", "no address")]
                receipts = await ours.send(batch, 10)
                assert [(r.id, r.answer, r.code) for r in receipts] == [
                    ("m0", "accepted", None),
                    ("m1", "invalid_recipient", "550 5.1.1"),
                    ("m2", "throttled", "451 4.7.1"),
                    ("m3", "rejected", "550 5.7.1"),
                    ("m4", "accepted", None),
                    ("bad", "invalid_recipient", "not_an_address"),
                ]
                assert (len(one.mails), receipts[2].narrow) == (2, True)

        run(scene())

    def test_what_is_refused_at_the_end(self) -> None:
        async def scene() -> None:
            async with post() as one, courier(one.port, concurrency=1) as ours:

                async def says(n: int, server: Any) -> str:
                    return ("554 5.7.1 spam", "451 4.3.0 disk", "399 odd", "250 Ok")[n - 1]

                one.says = says
                found = [(await ours.send([one_], 10))[0] for one_ in letters(4)]
                assert [r.answer for r in found] == ["rejected", "transient", "unknown", "accepted"]

        run(scene())

    def test_connections_are_kept_and_end_after_so_many_mails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert pool.MOST_MAILS == 100
        monkeypatch.setattr(pool, "MOST_MAILS", 10)

        async def scene() -> None:
            async with post() as one, courier(one.port, concurrency=2) as ours:
                for _ in range(2):
                    assert words(await ours.send(letters(9), 10)) == {("accepted", "")}
                assert one.connections == 2
                for _ in range(3):
                    assert words(await ours.send(letters(9), 10)) == {("accepted", "")}
                assert len(one.mails) == 45
                assert 5 <= one.connections <= 6
                await until(lambda: one.open <= 2, "the used-up connections are over")

        run(scene())

    @pytest.mark.parametrize("goodbye", [True, False])
    def test_a_kept_connection_that_the_server_ended(self, goodbye: bool) -> None:
        async def scene() -> None:
            async with post() as one, courier(one.port, concurrency=1) as ours:
                assert words(await ours.send(letters(1), 10)) == {("accepted", "")}
                if goodbye:
                    left = iter(["421 4.4.2 idle too long"])
                    one.sender = lambda address: next(left, "250 Ok")
                else:
                    one.cut()
                assert words(await ours.send(letters(1), 10)) == {("accepted", "")}
                assert (one.connections, len(one.mails)) == (2, 2)

        run(scene())

    @pytest.mark.parametrize("offered", [True, False])
    def test_addresses_in_utf8(self, offered: bool) -> None:
        async def scene() -> None:
            async with post(enable_SMTPUTF8=offered) as one, courier(one.port) as ours:
                [told] = await ours.send([letter(to="安@例え.example")], 10)
                if not offered:
                    assert (told.answer, told.code, one.mails) == ("rejected", "no SMTPUTF8", [])
                    return
                assert told.answer == "accepted"
                assert one.mails[0].rcpt_tos == ["安@xn--r8jz45g.example"]
                assert "SMTPUTF8" in one.mails[0].mail_options
                assert "安@xn--r8jz45g.example".encode() in (one.mails[0].original_content or b"")

        run(scene())

    def test_waiting_for_a_connection_in_vain_is_not_written(self) -> None:
        async def scene() -> None:
            async with post() as one, courier(one.port, concurrency=1) as ours:

                async def says(n: int, server: Any) -> str:
                    await asyncio.Event().wait()
                    return ""

                one.says = says
                receipts = await ours.send(letters(3), 1)
                assert sorted(receipt.answer for receipt in receipts) == ["transient", "transient", "unknown"]
                assert len(one.mails) == 1

        run(scene())


class TestOptions:
    @pytest.mark.parametrize(
        ("changes", "path"),
        [
            ({"url": "https://example.com"}, "options.url"),
            ({"from": "nobody"}, "options.from"),
            ({"from": "a@b.example\r\nBcc: x@y"}, "options.from"),
            ({"username": "us"}, "options.password"),
            ({"ca_file": "/nowhere.pem"}, "options.ca_file"),
            ({"ca_file": "/nowhere.pem", "tls": "none"}, "options.ca_file"),
        ],
    )
    def test_wrong_ones(self, changes: dict[str, Any], path: str) -> None:
        options = {"host": "mail.example.com", "from": "shop@example.com", **changes}
        with pytest.raises(OptionsError) as raised:
            build("p1", Provider("smtp", "email", options=options), {})
        assert [error[0] for error in raised.value.errors] == [path]

    @pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
    def test_ports(self, tls: str, port: int) -> None:
        options = {"host": "mail.example.com", "from": "shop@example.com", "tls": tls}
        way = build("p1", Provider("smtp", "email", options=options), {})
        assert vars(vars(way)["_pool"])["_account"].port == port
