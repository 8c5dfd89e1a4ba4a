"""One message as an e-mail. Pure.

Source: design page `wire.md`, section 15; RFC 5322; RFC 2047; RFC 2369; RFC 8058; RFC 3834.
"""

import re
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from msgspec import Struct

from channels.adapter import Unsendable
from dispatcher.message import Message

#: Everything in ASCII, lines below 79 characters: there is nothing that a server on the way could not take.
_PLAIN: Final = policy.SMTP.clone(cte_type="7bit")
_INTERNATIONAL: Final = _PLAIN.clone(utf8=True)
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f<>()\[\],;:\\\"]")
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
#: RFC 5321, 4.5.3.1.
_LONGEST_LOCAL: Final = 64
_LONGEST_ADDRESS: Final = 254


class Sender(Struct, frozen=True):
    """Who mails are from."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


class Mail(Struct, frozen=True, gc=False):
    """An e-mail ready to be handed over, lines ended and dots doubled, with the dot that ends it. `international`: only
    to a server that takes addresses in UTF-8."""

    sender: str
    to: str
    content: bytes
    international: bool


def mail(message: Message, sender: Sender, now_s: float) -> Mail:
    """Raises Unsendable. The Message-ID is ours, so that bounces and replies name the message, and a repeated mail is
    known as one."""
    to = envelope(message.to)
    international = not (to + sender.address).isascii()
    letter = EmailMessage(policy=_INTERNATIONAL if international else _PLAIN)
    try:
        letter["From"] = _mailbox(sender.name, sender.address)
        letter["To"] = _mailbox("", to)
        letter["Subject"] = _BREAKS.sub(" ", message.fields["subject"])
        letter["Date"] = format_datetime(datetime.fromtimestamp(int(now_s), UTC))
        letter["Message-ID"] = f"<{message.id}@{sender.domain}>"
        letter["Auto-Submitted"] = "auto-generated"  # nobody's absence note comes back
        _unsubscribe(letter, message.fields.get("unsubscribe_url"))
        _body(letter, message.fields.get("text"), message.fields.get("html"))
        content = letter.as_bytes()
    except (ValueError, LookupError, UnicodeError) as error:
        raise Unsendable("rejected", f"unwritable: {type(error).__name__}") from None
    return Mail(sender.address, to, _stuffed(content), international)


def envelope(address: str) -> str:
    """The address as the server is told it: its domain in ASCII (RFC 5890), unusual quoting refused."""
    local, at, domain = address.rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    if not local or not at or not domain or _UNFIT.search(local + domain) or len(local.encode()) > _LONGEST_LOCAL:
        raise Unsendable("invalid_recipient", "not_an_address")
    found = f"{local}@{domain}"
    if len(found.encode()) > _LONGEST_ADDRESS or "@" in local:
        raise Unsendable("invalid_recipient", "not_an_address")
    return found


def _mailbox(name: str, address: str) -> Address:
    local, _, domain = address.rpartition("@")
    return Address(_BREAKS.sub(" ", name), local, domain)


def _unsubscribe(letter: EmailMessage, url: str | None) -> None:
    """With https a mailbox's own button unsubscribes in one click, by POST."""
    if not url or not url.isascii() or _UNFIT.search(url.replace(":", "").replace(",", "").replace(";", "")):
        return
    letter["List-Unsubscribe"] = f"<{url}>"
    if url.startswith("https://"):
        letter["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"


def _body(letter: EmailMessage, text: str | None, html: str | None) -> None:
    if text is not None:
        letter.set_content(text)
        if html is not None:
            letter.add_alternative(html, subtype="html")
    else:
        letter.set_content(html or "", subtype="html")


def _stuffed(content: bytes) -> bytes:
    """RFC 5321, 4.5.2."""
    lines = content.replace(b"\r\n.", b"\r\n..")
    lines = b"." + lines if lines.startswith(b".") else lines
    return lines + (b".\r\n" if lines.endswith(b"\r\n") else b"\r\n.\r\n")
