"""The provider kind `smtp`: a mail server that takes our e-mail.

Source: design page `wire.md`, section 15.
"""

import socket
from email.utils import parseaddr
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from channels.adapter import Unsendable
from channels.kind import Kind
from channels.options import Options, OptionsError
from channels.secret import Secret
from channels.smtp.courier import SmtpCourier
from channels.smtp.mail import Sender, envelope
from channels.smtp.pool import Account
from channels.tls import tls_context

__all__ = ["KIND", "SmtpOptions"]

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}


class SmtpOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`from`: an address, or `Name <address>`. `tls`: `starttls` and `tls` insist on it."""

    host: str
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    username: str | None = None
    password: Secret | None = None
    from_: str = msgspec.field(name="from")
    tls: Literal["starttls", "tls", "none"] = "starttls"


def _open(provider: str, options: Options, concurrency: int) -> SmtpCourier:
    """`concurrency`: connections at most."""
    assert isinstance(options, SmtpOptions)
    errors: list[tuple[str, str]] = []
    if options.url is not None:
        errors.append(("options.url", "a mail server has `host` and `port`"))
    if options.ca_file is not None and options.tls == "none":
        errors.append(("options.ca_file", "needs `tls`"))
    if (options.username is None) != (options.password is None):
        errors.append(("options.password", "`username` and `password` go together"))
    sender = _sender(options.from_)
    if sender is None:
        errors.append(("options.from", "must be an e-mail address, or `Name <address>`"))
    if errors or sender is None:
        raise OptionsError(errors)
    tls = None
    if options.tls != "none":
        try:
            tls = tls_context(options.ca_file, ())
        except OSError as error:  # ssl's own errors are OSErrors too
            raise OptionsError([("options.ca_file", f"cannot be used: {error.strerror or error}")]) from None
    account = Account(
        host=options.host,
        port=options.port or _PORTS[options.tls],
        ourselves=_ourselves(),
        username=options.username,
        password=options.password,
        tls=tls,
        starttls=options.tls == "starttls",
    )
    return SmtpCourier(provider, account, sender, concurrency)


def _sender(written: str) -> Sender | None:
    name, address = parseaddr(written if written.isprintable() else "")
    try:
        address = envelope(address)
    except Unsendable:
        return None
    return Sender(name, address)


def _ourselves() -> str:
    """What EHLO says: this machine's name. A look-up of its full name could hang."""
    name = socket.gethostname()
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "localhost"


KIND: Final = Kind(options=SmtpOptions, channels=("email",), open=_open, most=50)
