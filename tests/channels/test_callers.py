"""Who may call back: the secret and the address both decide."""

from typing import Any

import pytest

from channels.callers import admits, is_allowed
from channels.options import Options

ALLOWED = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("options", "secret", "let_in"),
    [
        ({"callback_secret": "s"}, "s", True),
        ({"callback_secret": "s"}, "S", False),
        ({"callback_secret": "s"}, "", False),
        ({"callback_secret": "s"}, "s\udc80", False),
        ({}, "", False),
        ({}, "None", False),
        ({"callback_secret": ""}, "", False),
        ({"callback_secret": "退"}, "退", True),
        ({"callback_secret": "s", "callback_allow": ["10.0.0.0/8"]}, "s", True),
        ({"callback_secret": "s", "callback_allow": ["11.0.0.0/8"]}, "s", False),
    ],
)
def test_the_secret_and_the_address_decide(options: dict[str, Any], secret: str, let_in: bool) -> None:
    assert admits(Options(**options), secret, "10.1.2.3") is let_in


@pytest.mark.parametrize(
    ("address", "let_in"),
    [
        ("10.255.0.1", True), ("192.0.2.7", True), ("192.0.2.8", False), ("2001:db8::1", True), ("::1", False),
        ("::ffff:10.0.0.1", True), ("::ffff:11.0.0.1", False), (None, False), ("", False), ("/run/x.sock", False),
    ],
)  # fmt: skip
def test_an_address_is_in_a_network_or_not(address: str | None, let_in: bool) -> None:
    assert is_allowed(ALLOWED, address) is let_in
    assert is_allowed([], address)
