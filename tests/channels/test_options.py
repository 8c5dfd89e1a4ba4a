"""Checking, opening and masking of provider options; secrets."""

import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from channels import ADAPTERS, build, check, mask
from channels.options import OptionsError, unsubscribe_words
from channels.secret import Secret, Unresolved, resolve
from channels.webhook import Webhook
from dispatcher.documents import Provider
from dispatcher.uplink import UNSUBSCRIBE_WORDS

URL = "https://gateway.example.com/send"
VALUE = "whsec_c2hhbGxub3RiZXNlZW4="


def provider(channel: str = "sms", kind: str = "webhook", **options: Any) -> Provider:
    return msgspec.convert({"kind": kind, "channel": channel, "options": {"url": URL, **options}}, Provider)


def paths(document: Provider) -> list[str]:
    return [path for path, _ in check(document)]


class TestCheck:
    def test_unknown_kind_lists_the_known(self) -> None:
        known = ", ".join(sorted(ADAPTERS))
        assert check(provider(kind="pigeon")) == [("kind", f"unknown kind `pigeon`: one of {known}")]

    def test_url_is_required(self) -> None:
        assert check(Provider(kind="webhook", channel="sms")) == [("options.url", "is required")]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("url", 7),
            ("url", "ftp://x"),
            ("url", "https://"),
            ("url", "https://u:p@example.com"),
            ("url", "https://example.com:port/"),
            ("url", "https://[::1"),
            ("url", "https://exämple.com"),
            ("url", "https://example.com/a b"),
            ("url", None),
            ("url", "env:"),
            ("allow_private", "yes"),
            ("allow_private", 1),
            ("callback_allow", "10.0.0.1"),
            ("ca_file", 1),
            ("unsubscribe_words", "TD"),
            ("unsubscribe_words", [1]),
            ("secret", VALUE),
            ("secret", 7),
            ("callback_secret", 7),
        ],
    )
    def test_bad_value_is_named(self, name: str, value: Any) -> None:
        errors = check(provider(**{name: value}))
        assert [path for path, _ in errors] == [f"options.{name}"]
        assert VALUE not in str(errors)

    def test_every_fault_is_told(self) -> None:
        assert paths(provider(secret="plain", colour=1, allow_private="x")) == [
            "options.colour",
            "options.secret",
            "options.allow_private",
        ]

    def test_bad_callback_network_is_named(self) -> None:
        assert paths(provider(callback_allow=["10.0.0.0/8", "home"])) == ["options.callback_allow[1]"]

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "localhost", "a.localhost.", "[::1]", "10.1.2.3", "2130706433", "127.1"]
    )
    def test_private_url_needs_allow_private(self, host: str) -> None:
        assert paths(provider(url=f"http://{host}:80/")) == ["options.url"]
        assert paths(provider(url=f"http://{host}:80/", allow_private=True)) == []
        assert paths(provider(url=f"http://{host}:80/", allow_private=False)) == ["options.url"]

    def test_any_value_may_be_a_reference(self) -> None:
        options = {"url": "env:URL", "secret": "file:/run/s", "allow_private": "env:P", "callback_allow": "env:A"}
        assert paths(provider(**options)) == []


class TestBuild:
    def test_references_are_opened(self) -> None:
        environ = {"URL": "http://10.0.0.1/x", "P": "true", "S": VALUE, "A": "10.0.0.0/8, 1.2.3.4"}
        document = provider(url="env:URL", allow_private="env:P", secret="env:S", callback_allow="env:A")
        adapter, _ = build("p1", document, environ)
        assert isinstance(adapter, Webhook)
        assert adapter.request([], 0).url == "http://10.0.0.1/x"

    @pytest.mark.parametrize(
        ("options", "path"),
        [
            ({"secret": "env:ABSENT"}, "options.secret"),
            ({"secret": "file:/nowhere/s"}, "options.secret"),
            ({"secret": "env:NOT_BASE64"}, "options.secret"),
            ({"url": "env:PRIVATE"}, "options.url"),
            ({"allow_private": "env:NOT_BASE64"}, "options.allow_private"),
            ({"callback_allow": "env:NOT_BASE64"}, "options.callback_allow[0]"),
            ({"ca_file": "/nowhere/ca.pem"}, "options.ca_file"),
            ({"ca_file": "env:BAD_PEM"}, "options.ca_file"),
        ],
    )
    def test_what_is_behind_a_reference_is_checked_but_never_shown(self, options: dict[str, Any], path: str) -> None:
        environ = {
            "NOT_BASE64": "s3cr!t",
            "PRIVATE": "http://127.0.0.1/",
            "BAD_PEM": "-----BEGIN CERTIFICATE-----\ns3cr!t\n-----END CERTIFICATE-----",
        }
        with pytest.raises(OptionsError) as caught:
            build("p1", provider(**options), environ)
        assert [path for path, _ in caught.value.errors] == [path]
        assert "s3cr!t" not in str(caught.value)

    def test_plain_secret_is_refused(self) -> None:
        with pytest.raises(OptionsError, match=r"options\.secret"):
            build("p1", provider(secret=VALUE), {})


class TestMask:
    def test_references_stay_so_that_a_document_can_be_put_back(self) -> None:
        options = {"url": URL, "secret": "env:S", "allow_private": False}
        assert mask(options) == options

    def test_plain_secrets_and_what_nobody_knows_are_hidden(self) -> None:
        assert mask({"secret": VALUE, "password": "p"}) == {"secret": "***", "password": "***"}
        assert mask({"url": "x"}, "pigeon") == {"url": "***"}


class TestSecret:
    def test_is_never_shown(self) -> None:
        secret = Secret(VALUE)
        assert VALUE not in f"{secret} {secret!r} {[secret]}"
        assert (secret.reveal(), secret) == (VALUE, Secret(VALUE))
        with pytest.raises(TypeError):
            pickle.dumps(secret)

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_file_without_its_last_line_break(self, tmp_path: Path, end: str) -> None:
        path = tmp_path / "secret"
        path.write_bytes(f"a b{end}".encode())
        assert resolve(f"file:{path}", {}) == "a b"

    @pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfes3cr!t", b"x" * 2_000_000])
    def test_unusable_file_is_named_not_shown(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "secret"
        path.write_bytes(content)
        with pytest.raises(Unresolved) as caught:
            resolve(f"file:{path}", {})
        assert str(path) in str(caught.value)
        assert "s3cr!t" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, UNSUBSCRIBE_WORDS),
        ({"unsubscribe_words": []}, []),
        ({"unsubscribe_words": ["0000"]}, ["0000"]),
        ({"unsubscribe_words": "env:WORDS"}, ["TD", "0000"]),
        ({"unsubscribe_words": "env:NOTHING"}, UNSUBSCRIBE_WORDS),
        ({"unsubscribe_words": 7}, UNSUBSCRIBE_WORDS),
    ],
)
def test_unsubscribe_words(written: dict[str, Any], words: Any) -> None:
    assert unsubscribe_words(written, {"WORDS": "TD, 0000"}) == words
